"""Two rows of one measurement, or of two, set against each other: which of two models or settings is better?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from genbench.core.baseline import Entry
from genbench.core.errors import SettingError, UnknownName
from genbench.core.spec import Ref, Scalar, parse_ref
from genbench.core.verdict import Verdict

_PRESENCE = {"vanished", "new"}


@dataclass(frozen=True)
class Opposed:
    """Entries of two rows under one name."""

    base: list[Entry]
    head: list[Entry]
    remarks: tuple[str, ...]
    """What differs between the two beside their settings."""


def opposed(base: Sequence[Entry], head: Sequence[Entry], *, first: str, second: str) -> Opposed:
    """The row `first` of base and the row `second` of head.

    A model stands in its table with a budget of its own; both take that of the first here, and a remark says so.

    Raises:
        UnknownName: a side has no such row.
        SettingError: a text that is no reference, or one row twice.
    """
    old, new = _rows_of(base, first, "the first"), _rows_of(head, second, "the second")
    if old == new:
        raise SettingError(f"`{first}` and `{second}` are one row", hint="name two rows, or give two runs")
    seen = [side[0].cell.samples_seen for side in (old, new)]
    labels = [side[0].cell.label for side in (old, new)]
    name = f"{labels[1]} against {labels[0]}"
    remark = f"other budgets: `{labels[0]}` saw {seen[0]:,} training examples, `{labels[1]}` {seen[1]:,}"
    return Opposed(_renamed(old, name, seen[0]), _renamed(new, name, seen[0]), (remark,) if seen[0] != seen[1] else ())


def measured_on_both(verdicts: Iterable[Verdict]) -> tuple[list[Verdict], list[str]]:
    """Verdicts on what both rows have, and sentences on what one of them has alone, which is no regression."""
    kept = list(verdicts)
    alone = [one for one in kept if one.outcome in _PRESENCE and one.measure != "cell"]
    sentences = [f"{one.measure}: only of the {'first' if one.outcome == 'vanished' else 'second'}" for one in alone]
    return [one for one in kept if one not in alone], sentences


def _rows_of(entries: Sequence[Entry], text: str, side: str) -> list[Entry]:
    wanted = _identity(parse_ref(text))
    found = [entry for entry in entries if _identity(parse_ref(entry.cell.label)) == wanted]
    eager = [entry for entry in found if entry.variant == "eager"]
    if not eager:
        known = ", ".join(f"`{label}`" for label in dict.fromkeys(entry.cell.label for entry in entries))
        raise UnknownName(f"{side} has no row `{text}`", hint=f"it has {known or 'none'}")
    return eager


def _identity(ref: Ref) -> tuple[str, str | None, str | None, tuple[tuple[str, Scalar], ...]]:
    """What is the same however its settings are ordered."""
    return ref.name, ref.argument, ref.preset, tuple(sorted(ref.config.items()))


def _renamed(entries: Iterable[Entry], name: str, seen: int) -> list[Entry]:
    changed = {"subject": Ref(name=name), "sampling": {}, "samples_seen": seen}
    return [entry.model_copy(update={"cell": entry.cell.model_copy(update=changed)}) for entry in entries]
