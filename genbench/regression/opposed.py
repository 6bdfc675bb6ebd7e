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

    Args:
        base: entries of one side.
        head: of the other.
        first: name of a row, or what tells it from the others.
        second: the same of `head`.

    Raises:
        UnknownName: a side has no such row.
        SettingError: a text that is no reference or may mean several rows, or one row twice.
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
    eager = [(parse_ref(entry.cell.label), entry) for entry in entries if entry.variant == "eager"]
    meant = _identity(_row_meant([row for row, _ in eager], text, side))
    return [entry for row, entry in eager if _identity(row) == meant]


def _row_meant(rows: Iterable[Ref], text: str, side: str) -> Ref:
    """The row that a text spells, in any order of settings, or else the only one that it may mean."""
    wanted, known = parse_ref(text), {_identity(row): row for row in rows}
    meant = [row for name, row in known.items() if name == _identity(wanted)]
    meant = meant or [row for row in known.values() if wanted.may_mean(row)]
    if not meant:
        raise UnknownName(f"{side} has no row `{text}`", hint=f"it has {_listed(known.values()) or 'none'}")
    if len(meant) > 1:
        hint = f"say more of one: {_listed(meant)}"
        raise SettingError(f"`{text}` may be any of {len(meant)} rows of {side}", hint=hint)
    return meant[0]


def _listed(rows: Iterable[Ref]) -> str:
    return ", ".join(f"`{row.label}`" for row in rows)


def _identity(ref: Ref) -> tuple[str, str | None, str | None, tuple[tuple[str, Scalar], ...]]:
    """What is the same however its settings are ordered."""
    return ref.name, ref.argument, ref.preset, tuple(sorted(ref.config.items()))


def _renamed(entries: Iterable[Entry], name: str, seen: int) -> list[Entry]:
    changed = {"subject": Ref(name=name), "sampling": {}, "samples_seen": seen}
    return [entry.model_copy(update={"cell": entry.cell.model_copy(update=changed)}) for entry in entries]
