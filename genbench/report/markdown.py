"""Leaderboards as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from genbench.report._table import CellValue, Leaderboard, Row, letter, letters

_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
"""`@` too: in a pull request it would call people."""


def to_markdown(boards: Sequence[Leaderboard], *, pictures: Mapping[str, str] | None = None) -> str:
    """All tables with their footnotes, ready for a README or a pull request; ends with a newline.

    Args:
        boards: the tables.
        pictures: what is shown -> path from the text's own folder; they stand below the tables in this order.
    """
    shown = [_shown(what, path) for what, path in (pictures or {}).items()]
    return "\n".join([*map(_board, boards), *shown])


def _shown(what: str, path: str) -> str:
    """A picture, or a link to a page, which Markdown cannot show inside itself."""
    mark = "" if path.endswith(".html") else "!"
    return f"{mark}[{escape_markdown(what)}]({quote(path)})\n"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line and inside a table too."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return "".join(_ENTITIES.get(char) or _SPECIAL.sub(r"\\\1", char) for char in text)


def _prose(text: str) -> str:
    """Escaped text outside a table, where what stands between backticks becomes code."""
    pieces = " ".join(text.split()).split("`")
    if len(pieces) % 2 == 0 or "" in pieces[1::2]:
        return escape_markdown(text)
    shown = [_escaped(piece) if index % 2 == 0 else f"`{piece}`" for index, piece in enumerate(pieces)]
    return "".join(shown)


def _board(board: Leaderboard) -> str:
    tiered = any(row.tier is not None for row in board.rows)
    head = [*(["tier"] if tiered else []), "model", "paradigm", *(column.header for column in board.columns)]
    aligned = [*(["--:"] if tiered else []), ":--", ":--", *("--:" for _ in board.columns)]
    lines = [f"### {escape_markdown(board.title)}", "", _line([escape_markdown(cell) for cell in head]), _line(aligned)]
    lines += [_row(row, tiered=tiered) for row in board.rows]
    below = _below(board)
    return "\n".join([*lines, "", *below, ""] if below else [*lines, ""])


def _row(row: Row, *, tiered: bool) -> str:
    label = escape_markdown(row.label)
    shown = f"*{label}*" if row.role == "control" else label
    paradigm = escape_markdown(row.paradigm if row.role == "model" else "control")
    tier = [str(row.tier or "")] if tiered else []
    return _line([*tier, f"{shown}{_raised(row.notes)}", paradigm, *map(_cell, row.cells)])


def _cell(cell: CellValue) -> str:
    interval = f"<br><sub>{_escaped(cell.interval)}</sub>" if cell.interval and not cell.spread else ""
    return (f"**{cell.text}**" if cell.bold else cell.text) + _raised(cell.notes) + interval


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _raised(notes: tuple[int, ...]) -> str:
    return f" <sup>{letters(notes)}</sup>" if notes else ""


def _below(board: Leaderboard) -> list[str]:
    """Warnings, legend, counts and footnotes, one list item each."""
    texts = [f"**warning**: {_prose(finding.message)}" for finding in board.findings]
    texts += [_prose(f"separate table: {reason}") for reason in board.split]
    texts += [f"{'**bold**' if sign == 'best' else sign}: {meaning}" for sign, meaning in _legend(board)]
    texts += [_prose(text) for text in (*board.counts, *board.remarks)]
    texts += [f"<sup>{letter(i)}</sup> {_prose(text)}" for i, text in enumerate(board.footnotes)]
    return [f"- {text}" for text in texts]


def _legend(board: Leaderboard) -> list[tuple[str, str]]:
    return [(entry.sign, _prose(entry.meaning)) for entry in board.legend]
