"""Counts of single calls in a file beside a test, for the pytest plugin, and how they are compared.

The file has counts by test, by measurement, and by what two counts must share to be compared: one file serves several
versions of torch. It is written for version control: sorted, a line for each count.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from genbench.core.baseline import Row
from genbench.core.bench import Counters
from genbench.core.errors import StoreError
from genbench.core.files import write_atomically
from genbench.core.verdict import Verdict
from genbench.regression.counters import COUNTED, count_of, count_verdict, escaped

SCHEMA = "genbench.counted/1"

Counts = dict[str, dict[str, Counters]]
"""Counts of one test: by measurement, then by versions."""
_BOOK: TypeAdapter[dict[str, Counts]] = TypeAdapter(dict[str, Counts])


def read_counts(path: Path, test: str) -> Counts:
    """Counts of one test; none where there is no file.

    Raises:
        StoreError: the file is something else, or damaged.
    """
    return _read(path).get(test, {})


def save_counts(
    path: Path, test: str, counts: Mapping[str, Mapping[str, Counters]], *, forget: Sequence[str] = ()
) -> None:
    """Put counts of a test beside those of other versions; tests of several processes may do so at once.

    Args:
        path: of the file; made when it is not there.
        test: whose counts they are.
        counts: by measurement, then by versions.
        forget: measurements that are taken out, of all versions.

    Raises:
        StoreError: the file is something else, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        book = _read(path)
        kept = {name: by_versions for name, by_versions in book.get(test, {}).items() if name not in forget}
        for name, by_versions in counts.items():
            kept[name] = {**kept.get(name, {}), **by_versions}
        book = {name: known for name, known in {**book, test: kept}.items() if known}
        described = {"schema": SCHEMA, "counted": _BOOK.dump_python(book, mode="json")}
        write_atomically(path, json.dumps(described, indent=1, sort_keys=True).encode() + b"\n")


def _read(path: Path) -> dict[str, Counts]:
    if not path.is_file():
        return {}
    try:
        described = json.loads(path.read_bytes())
        if described["schema"] != SCHEMA:
            raise ValueError(f"schema `{described['schema']}`, expected `{SCHEMA}`")
        return _BOOK.validate_python(described["counted"])
    except (ValueError, KeyError, TypeError) as error:
        hint = "take it from version control; or delete it, and the next run makes a new one"
        raise StoreError(f"{path}: no counts can be read from it: {error}", hint=hint) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone with the files of a folder, as long as all ask; a process that dies lets go."""
    import fcntl  # only on systems that have it

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def compare_counted(
    name: str, known: Mapping[str, Counters], versions: str, found: Counters, *, tolerance: float = 0.0
) -> list[Verdict]:
    """Verdicts on every count of one measurement.

    Args:
        name: of the measurement.
        known: counts that it is held against, by versions.
        versions: with which it was counted now.
        found: what was counted now.
        tolerance: share by which a count may grow.
    """
    whole = Verdict(gate="counters", row=name, dataset="", measure="cell", outcome="new", note="no baseline yet")
    if not known:
        return [whole]
    if versions not in known:
        note = f"the baseline was counted with {'; '.join(sorted(known))}, this is {versions}"
        return [whole.model_copy(update={"outcome": "not_comparable", "note": note})]
    base, head = known[versions], found
    row, lost = Row(name, ""), escaped(base, head)
    return [
        count_verdict(
            row, measure, measure, count_of(base, measure) or 0, count_of(head, measure) or 0, lost, tolerance
        )
        for measure in COUNTED
    ]
