r"""Leaderboards as LaTeX tables, ready to paste: `\usepackage{booktabs}` is all that they need."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genbench.report._table import INTERVAL, CellValue, Column, Leaderboard, Row, letter, letters

_PLAIN = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "#": r"\#",
    "$": r"\$",
    "%": r"\%",
    "&": r"\&",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",  # the straight mark needs a font encoding that is not the default
    "–": "--",  # noqa: RUF001
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
}
_LAST_LATIN = 0x17F  # up to here pdflatex knows every letter without a package


def to_latex(boards: Sequence[Leaderboard]) -> str:
    """One `table` for each leaderboard, with caption and label; ends with a newline."""
    return "\n".join(_table(board, number) for number, board in enumerate(boards))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, in one line.

    What stands between backticks is set in typewriter; characters that pdflatex lacks become their code point.
    """
    pieces = " ".join(text.split()).split("`")
    escaped = ["".join(map(_escaped, piece)) for piece in pieces]
    if len(pieces) % 2 == 0:  # an odd number of backticks quotes nothing
        return "`".join(escaped)
    return "".join(piece if index % 2 == 0 else rf"\texttt{{{piece}}}" for index, piece in enumerate(escaped))


def _escaped(char: str) -> str:
    if char in _PLAIN:
        return _PLAIN[char]
    if char.isprintable() and ord(char) <= _LAST_LATIN:
        return char
    return f"[U+{ord(char):04X}]"


def _table(board: Leaderboard, number: int) -> str:
    models = [_row(row) for row in board.rows if row.role == "model"]
    controls = [_row(row) for row in board.rows if row.role == "control"]
    rule = [r"\midrule"] if models and controls else []
    head = " & ".join(["Model", *(_header(column) for column in board.columns)])
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{_caption(board)}}}",
        rf"\label{{{_label(board, number)}}}",
        r"\small",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{l{'r' * len(board.columns)}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *models,
        *rule,
        *controls,
        r"\bottomrule",
        r"\end{tabular}",
        *_footnotes(board),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _header(column: Column) -> str:
    return escape_latex(column.header)


def _row(row: Row) -> str:
    label = escape_latex(row.label)
    shown = rf"\emph{{{label}}}" if row.role == "control" else label
    guard = "{}" if shown.startswith(("[", "*")) else ""  # else they would be read as options of the \\ above
    return " & ".join([guard + shown + _raised(row.notes), *map(_cell, row.cells)]) + r" \\"


def _cell(cell: CellValue) -> str:
    text = escape_latex(cell.text)
    return (rf"\textbf{{{text}}}" if cell.bold else text) + _raised(cell.notes)


def _raised(notes: tuple[int, ...]) -> str:
    return rf"\textsuperscript{{{letters(notes)}}}" if notes else ""


def _caption(board: Leaderboard) -> str:
    signs = {entry.sign: entry.meaning for entry in board.legend if entry.sign not in {"tier", INTERVAL}}
    meanings = [f"{_sign(sign)}: {escape_latex(meaning)}" for sign, meaning in signs.items()]
    return ". ".join([*(escape_latex(text) for text in (board.title, *board.counts)), *meanings]) + "."


def _sign(sign: str) -> str:
    return r"\textbf{bold}" if sign == "best" else escape_latex(sign)


def _footnotes(board: Leaderboard) -> list[str]:
    """Warnings, remarks and footnotes, in small type under the table."""
    texts = [rf"\textbf{{Warning}}: {escape_latex(finding.message)}" for finding in board.findings]
    texts += [escape_latex(f"Separate table: {reason}") for reason in board.split]
    texts += [escape_latex(text) for text in board.remarks]
    texts += [rf"\textsuperscript{{{letter(i)}}} {escape_latex(text)}" for i, text in enumerate(board.footnotes)]
    if not texts:
        return []
    return [
        r"\par\medskip",
        r"\begin{minipage}{\linewidth}\footnotesize",
        *(rf"{text}\par" for text in texts),
        r"\end{minipage}",
    ]


def _label(board: Leaderboard, number: int) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", f"{board.suite}-{board.tier}-{board.dataset}".lower()).strip("-")
    return f"tab:{words}" if number == 0 else f"tab:{words}-{number + 1}"
