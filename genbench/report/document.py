"""Leaderboards as JSON, schema `genbench.leaderboard/1`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from genbench.report._table import CellValue, Column, Leaderboard, Row, letter

LEADERBOARD_SCHEMA = "genbench.leaderboard/1"


def document(boards: Sequence[Leaderboard], *, pictures: Mapping[str, str] | None = None) -> dict[str, object]:
    """Everything the other formats show, and the numbers behind it in full precision.

    Args:
        boards: the tables.
        pictures: what is shown -> path from the document's own folder; without any the document does not speak of them.
    """
    shown = {"pictures": dict(pictures)} if pictures else {}
    return {"schema": LEADERBOARD_SCHEMA, "leaderboards": [_board(board) for board in boards], **shown}


def to_json(boards: Sequence[Leaderboard], *, pictures: Mapping[str, str] | None = None) -> str:
    """The document as text; ends with a newline."""
    return json.dumps(document(boards, pictures=pictures), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _board(board: Leaderboard) -> dict[str, object]:
    return {
        "title": board.title,
        "suite": board.suite,
        "suite_version": board.suite_version,
        "tier": board.tier,
        "dataset": board.dataset,
        "features": board.features,
        "sort": board.sort,
        "columns": [_column(column) for column in board.columns],
        "rows": [_row(row, board.columns) for row in board.rows],
        "footnotes": {letter(index): text for index, text in enumerate(board.footnotes)},
        "legend": {entry.sign: entry.meaning for entry in board.legend},
        "remarks": list(board.remarks),
        "split": list(board.split),
        "findings": [
            {"metric": finding.metric, "control": finding.control, "message": finding.message}
            for finding in board.findings
        ],
    }


def _column(column: Column) -> dict[str, object]:
    return {
        "name": column.name,
        "label": column.label,
        "unit": column.unit,
        "better": column.better,
        "quality": column.quality,
        "num_samples": column.num_samples,
        "num_reference": column.num_reference,
        "protocol": dict(column.protocol),
    }


def _row(row: Row, columns: Sequence[Column]) -> dict[str, object]:
    return {
        "label": row.label,
        "role": row.role,
        "paradigm": row.paradigm,
        "tier": row.tier,
        "seeds": list(row.seeds),
        "failed_seeds": list(row.failed_seeds),
        "samples_seen": row.samples_seen,
        "notes": [letter(note) for note in row.notes],
        "cells": {column.name: _cell(cell) for column, cell in zip(columns, row.cells, strict=True)},
    }


def _cell(cell: CellValue) -> dict[str, object]:
    half_width = None if cell.ci95 is None else (cell.ci95[1] - cell.ci95[0]) / 2
    return {
        "status": cell.status,
        "text": cell.text,
        "value": cell.number,
        "stderr": cell.stderr,
        "ci95": None if cell.ci95 is None else list(cell.ci95),
        "ci95_half_width": half_width,
        "kind": cell.kind,
        "num_samples": cell.num_samples,
        "tier": cell.tier,
        "best": cell.bold,
        "notes": [letter(note) for note in cell.notes],
    }
