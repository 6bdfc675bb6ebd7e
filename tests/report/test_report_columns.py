"""A choice of columns: every format shows these and no others, with the numbers, ranks and notes of the whole table."""

import csv
import io
import json
import re

import pytest
from report_records import failed, fd, model, precision, run
from rich.console import Console

from genbench.core.errors import UnknownName
from genbench.core.spec import parse_ref
from genbench.report.document import document, to_json
from genbench.report.frame import COLUMNS, frame, to_csv
from genbench.report.latex import to_latex
from genbench.report.leaderboard import leaderboard
from genbench.report.markdown import to_markdown
from genbench.report.terminal import print_leaderboards

CHOSEN = ["bits_per_dim", "train_seconds", "precision"]


def _board(columns, *, records=None, sort=None):
    (board,) = leaderboard(run() if records is None else records, columns=columns, sort=sort)
    return board


@pytest.mark.parametrize(
    ("dataset", "unit"),
    [("shapes", "img/s"), ("toy2d", "points/s"), ("tones", "sounds/s"), ("captioned_shapes", "examples/s")],
)
def test_speeds_of_a_table_are_counted_in_what_its_data_hold(dataset, unit):
    board = _board(None, records=[model("vae", [fd(30.0)], dataset=parse_ref(dataset))])
    headers = {column.name: column.header for column in board.columns}
    assert headers["train_images_per_second"] == f"train ({unit}) ↑"
    assert f"train ({unit}) ↑" in to_markdown([board])


def _numbers(board):
    """Number of every row in every column, with its tier and whether it is best."""
    names = [column.name for column in board.columns]
    return {
        (row.label, name): (cell.number, cell.tier, cell.bold, cell.text)
        for row in board.rows
        for name, cell in zip(names, row.cells, strict=True)
        if cell.status == "value"
    }


def test_all_columns_by_name_are_the_table_itself():
    (whole,) = leaderboard(run())
    assert _board([column.name for column in whole.columns]) == whole


def test_chosen_columns_keep_their_order_and_every_number_its_rank():
    board, whole = _board(CHOSEN), _board(None, sort="bits_per_dim")
    assert [column.name for column in board.columns] == CHOSEN
    assert (board.sort, [row.label for row in board.rows]) == ("bits_per_dim", [row.label for row in whole.rows])
    expected = {key: found for key, found in _numbers(whole).items() if key[1] in CHOSEN}
    assert _numbers(board) == expected
    assert len(expected) > 20
    assert [column.name for column in _board([*CHOSEN, "precision"]).columns] == CHOSEN


def test_a_table_that_shows_its_first_score_is_sorted_by_it_wherever_it_stands():
    assert _board(["precision", "fd_shapes_net"]).sort == "fd_shapes_net"
    assert _board(["train_seconds"]).sort == "train_seconds"
    board = _board(["precision"], sort="bits_per_dim")
    assert [row.label for row in board.rows] == [row.label for row in _board(None, sort="bits_per_dim").rows]
    assert "sorted by `bits_per_dim`, which is not shown" in board.remarks


def test_a_metric_stands_for_its_scores():
    assert [column.name for column in _board(["precision_recall", "frechet_distance"]).columns] == [
        "precision",
        "fd_shapes_net",
    ]


def test_an_unknown_column_is_refused_with_all_that_there_are():
    with pytest.raises(UnknownName) as caught:
        _board(["fd_shapes_net", "fdd"])
    assert caught.value.message == "no column `fdd`"
    (whole,) = leaderboard(run())
    assert caught.value.hint == f"columns: {', '.join(column.name for column in whole.columns)}"


def test_failures_show_and_notes_are_those_of_what_is_shown():
    board = _board(["num_parameters", "bits_per_dim"])
    row = next(row for row in board.rows if row.label == "vqvae")
    assert row.cells[0].text == "failed"
    assert any("CUDA out of memory" in note for note in board.footnotes)
    assert "a GAN has no likelihood" in board.footnotes
    assert "a GAN has no likelihood" not in _board(["num_parameters"]).footnotes
    used = {note for row in board.rows for cell in row.cells for note in cell.notes} | {
        note for row in board.rows for note in row.notes
    }
    assert used == set(range(len(board.footnotes)))


def test_a_table_without_any_of_the_columns_is_left_out():
    other = model("a", [fd(1.0, protocol={"resize": "clean"})])
    boards = leaderboard([model("b", [fd(2.0), precision(0.5)]), other], columns=["precision"])
    assert [[row.label for row in board.rows] for board in boards] == [["b"]]


def test_every_format_shows_the_chosen_columns_alone():
    boards = leaderboard(run(), columns=CHOSEN)
    header = next(line for line in to_markdown(boards).splitlines() if line.startswith("| "))
    assert [cell.strip() for cell in header.strip("| ").split("|")] == [
        "tier",
        "model",
        "paradigm",
        "bits/dim ↓",
        "train (s) ↓",
        "precision ↑",
    ]
    assert r"\begin{tabular}{lrrr}" in to_latex(boards)
    assert [column["name"] for column in json.loads(to_json(boards))["leaderboards"][0]["columns"]] == CHOSEN
    assert set(document(boards)["leaderboards"][0]["rows"][0]["cells"]) == set(CHOSEN)
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    print_leaderboards(boards, console)
    shown = console.file.getvalue()
    assert "precision" in shown
    assert not re.search("fd_shapes_net|params|hidden at this width", shown)


def test_csv_has_the_rows_of_the_chosen_scores_and_the_columns_of_the_chosen_costs():
    rows = list(csv.DictReader(io.StringIO(to_csv(run(), columns=CHOSEN))))
    whole = list(csv.DictReader(io.StringIO(to_csv(run()))))
    wanted = {"bits_per_dim", "precision", "precision_recall"}
    kept = [row for row in whole if row["score"] in wanted or row["status"] == "failed"]
    assert [row["reason"] for row in rows if row["score"] == "bits_per_dim" and row["status"] == "skipped"]
    names = list(rows[0])
    assert rows == [{name: row[name] for name in names} for row in kept]
    assert set(COLUMNS) - set(names) == {
        "num_parameters",
        "samples_seen",
        "train_images_per_second",
        "sample_images_per_second",
        "latency_seconds",
        "real_time_factor",
        "network_evaluations",
        "peak_memory_gib",
        "time_to_quality",
        "samples_to_quality",
        "quality_budget_seconds",
    }


def test_csv_of_costs_alone_has_one_row_a_subject_and_seed():
    records = [*run(), failed("made", "boom")]
    table = frame(records, columns=["train_seconds"])
    assert len(table) == len(records)
    assert table["score"].isna().all()
    assert set(table["train_seconds"].dropna()) == {61.5}
