import io
import json
import re

import golden_files
import pandas as pd
import pytest
from golden_files import FILES, GOLDEN, terminal
from hypothesis import given, settings
from hypothesis import strategies as st
from report_records import NASTY, control, controls, failed, fd, model, run
from rich.console import Console

from genbench.report.document import LEADERBOARD_SCHEMA, document, to_json
from genbench.report.frame import COLUMNS, frame, to_csv
from genbench.report.latex import escape_latex, to_latex
from genbench.report.leaderboard import leaderboard
from genbench.report.markdown import escape_markdown, to_markdown
from genbench.report.terminal import print_leaderboards

HOSTILE = '\\end{table} $x^2_{i}$ 100% #1 & ~a^b | `c` "d" <script>*x*</script> [l](u) @team 模型 ±'


@pytest.mark.parametrize("name", FILES)
def test_output_equals_the_golden_file(name):
    assert FILES[name](run()) == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_the_order_of_the_records_changes_no_output(name):
    assert FILES[name](run()[::-1]) == FILES[name](run())


@pytest.mark.parametrize("name", FILES)
def test_no_output_holds_a_nan(name):
    shown = FILES[name]([record for record in run() if record.error is None])  # the failure's message says NaN
    assert not re.search(r"\b(nan|NaN|None|inf)\b", shown)


def cells_of(line):
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_every_markdown_row_has_the_cells_of_the_header():
    lines = [line for line in to_markdown(leaderboard(run())).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 15  # header, rule, nine models and six controls
    assert {len(cells_of(line)) for line in lines} == {13}


def test_markdown_is_clean_of_html_and_mentions_from_names():
    shown = escape_markdown(HOSTILE)
    assert "<" not in shown
    assert "@" not in shown
    assert not re.search(r"(?<!\\)[|*`\[\]_]", shown)
    assert "<script>" not in to_markdown(leaderboard(run()))


@given(st.text())
def test_markdown_escapes_every_sign_that_would_act(text):
    shown = escape_markdown(text)
    assert "\n" not in shown
    bare = re.sub(r"\\[\\`*_\[\]#|~$]", "", shown)
    assert not re.search(r"[\\`*_\[\]|~$<>@]", bare)


def test_code_in_a_markdown_note_stays_code_and_broken_code_is_escaped():
    shown = to_markdown(leaderboard([failed("a", "no `x|y` here"), failed("b", "odd ` one")]))
    assert "no `x|y` here" in shown
    assert "odd \\` one" in shown


def without_escapes(latex):
    return re.sub(r"\\[\\{}$%#&_]", "", latex)


def braces_balance(latex):
    depth = 0
    for char in without_escapes(latex):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth < 0:
            return False
    return depth == 0


@given(st.text())
def test_escaped_latex_balances_and_has_no_active_sign(text):
    shown = escape_latex(text)
    assert braces_balance(shown)
    plain = re.sub(r"\\[a-z]+(\{\})?|\$\\[a-z]+\$", "", without_escapes(shown))
    assert not re.search(r'[#$%&_~^\\"]', plain)
    assert all(ord(char) <= 0x17F for char in shown)


def test_latex_tables_are_whole():
    shown = to_latex(leaderboard([*run(), model(HOSTILE_LABEL, [fd(1.0)])]))
    assert braces_balance(shown)
    for name in ("table", "tabular", "minipage"):
        assert shown.count(f"\\begin{{{name}}}") == shown.count(f"\\end{{{name}}}") == 1
    body = shown[shown.index("\\midrule") : shown.index("\\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 16
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {10}
    assert shown.count(r"\toprule") == shown.count(r"\bottomrule") == 1
    assert len(re.findall(r"(?<!\\)\$", shown)) % 2 == 0


HOSTILE_LABEL = "x^2_i%&#$~"


def test_a_latex_row_never_begins_like_an_option_of_the_row_above():
    shown = to_latex(leaderboard([failed("a", "boom"), model("模型", [fd(1.0)])]))
    assert "{}[U+6A21][U+578B] & " in shown


def test_latex_labels_differ_between_the_tables_of_a_suite():
    records = [model("a", [fd(1.0)]), model("b", [fd(1.0, protocol={"resize": "clean"})])]
    labels = re.findall(r"\\label\{(.*?)\}", to_latex(leaderboard(records)))
    assert labels == ["tab:images-quick-shapes-resolution-16", "tab:images-quick-shapes-resolution-16-2"]


def test_json_holds_the_numbers_in_full_and_the_schema():
    shown = json.loads(to_json(leaderboard(run())))
    assert shown["schema"] == LEADERBOARD_SCHEMA == "genbench.leaderboard/1"
    (board,) = shown["leaderboards"]
    vae = next(row for row in board["rows"] if row["label"] == "vae")
    score = vae["cells"]["bits_per_dim"]
    assert score["value"] == pytest.approx(5.31 + (-0.8 + 0.3 + 0.6) / 3 / 50)
    assert score["kind"] == "bound"
    assert score["ci95_half_width"] == pytest.approx((score["ci95"][1] - score["ci95"][0]) / 2)
    assert set(board["rows"][0]["cells"]) == {column["name"] for column in board["columns"]}
    assert shown == json.loads(json.dumps(document(leaderboard(run()))))


def test_warnings_of_the_self_check_are_in_every_readable_format():
    wrong = [record for record in controls() if record.cell.subject.name != "noise"]
    records = [*wrong, control("noise", [fd(0.01, 0.001)]), model("a", [fd(1.0)])]
    boards = leaderboard(records)
    assert boards[0].findings
    assert "**warning**: `fd_shapes_net`: control `noise`" in to_markdown(boards)
    assert "\\textbf{Warning}: \\texttt{fd\\_shapes\\_net}: control \\texttt{noise}" in to_latex(boards)
    assert "warning: `fd_shapes_net`: control `noise`" in terminal(boards, 120)
    assert document(boards)["leaderboards"][0]["findings"]


def test_the_frame_has_one_row_for_each_subject_seed_and_score():
    table = frame(run())
    assert tuple(table.columns) == COLUMNS
    scored = table[table.status == "ok"]
    assert not scored.duplicated(["label", "seed", "score"]).any()
    assert len(scored) == sum(len(record.scores) for record in run())
    assert set(table[table.status == "failed"].label) == {"vqvae", "realnvp"}
    assert set(table[table.status == "skipped"].score) == {"bits_per_dim"}
    assert scored.value.notna().all()


def test_the_csv_reads_back_as_the_frame():
    table, read = frame(run()), pd.read_csv(io.StringIO(to_csv(run())))
    assert list(read.columns) == list(table.columns)
    pd.testing.assert_series_equal(read.value, table.value)
    assert list(read.label) == list(table.label)
    assert NASTY in set(read.label)
    assert json.loads(read.protocol.dropna().iloc[0])["extractor"] == "shapes_net"


def test_a_frame_of_no_records_has_its_columns():
    assert tuple(frame([]).columns) == COLUMNS
    assert len(frame([])) == 0


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 250])
def test_a_terminal_table_fits_its_width_and_names_what_it_hides(width):
    boards = leaderboard(run())
    shown = terminal(boards, width)
    assert all(len(line) <= width for line in shown.splitlines())
    hidden = re.search(r"hidden at this width:(.*?)\n\(a\)", shown, re.DOTALL)
    names = " ".join(hidden[1].split()) if hidden else ""
    table = shown[: shown.index("\n\n")]
    assert all(column.label.split()[0] in table + names for column in boards[0].columns)
    assert "fd_shapes_net" in table


@pytest.mark.parametrize("width", [60, 80, 100, 120, 250])
def test_a_terminal_shows_the_footnotes_that_its_table_marks_and_no_others(width):
    shown = terminal(leaderboard(run()), width)
    _, _, rows = shown.partition("─\n")
    table, _, below = rows.partition("\n\nfd_shapes_net: ")
    marks = {mark for found in re.findall(r" \(([a-z](?:,[a-z])*)\)", table) for mark in found.split(",")}
    assert marks
    assert set(re.findall(r"^\(([a-z])\) ", below, re.MULTILINE)) == marks


def test_a_terminal_says_how_to_see_the_columns_that_it_hides():
    shown = " ".join(terminal(leaderboard(run()), 80).split())
    choice = "fd_shapes_net,bits_per_dim,num_parameters"
    assert f"`genbench leaderboard RUN --columns {choice}` some, `--format md` all" in shown
    assert leaderboard(run(), columns=choice.split(","))
    assert "--columns" not in terminal(leaderboard(run()), 250)


def test_intervals_are_shown_where_there_is_room():
    boards = leaderboard(run())
    assert "12.3 [11.3, 13.3]" in terminal(boards, 250)
    narrow = terminal(boards, 120)
    assert "12.3 [11.3, 13.3]" in narrow  # the column that sorts the table keeps its intervals
    assert "0.800 [" not in narrow


def test_the_best_is_marked_without_colour():
    assert "3.92 *" in terminal(leaderboard(run()), 120)


def test_a_name_with_markup_is_printed_as_it_is():
    assert "[bold]x[/bold]" in terminal(leaderboard([failed("vae", "[bold]x[/bold] [/]")]), 120)


def test_an_empty_terminal_prints_nothing():
    assert terminal([], 80) == ""


def test_a_terminal_too_narrow_for_anything_still_prints_every_row():
    shown = terminal(leaderboard(run()), 30)
    assert "dcgan" in shown


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=30), st.integers(40, 140))
def test_no_message_breaks_a_format(message, width):
    boards = leaderboard([failed("vae", message), model("a", [fd(1.0)])])
    assert braces_balance(to_latex(boards))
    json.loads(to_json(boards))
    lines = [line for line in to_markdown(boards).splitlines() if line.startswith("|")]
    assert len({len(cells_of(line)) for line in lines}) == 1
    console = Console(file=io.StringIO(), width=width)
    print_leaderboards(boards, console)
    assert "failed (" in console.file.getvalue()


def test_golden_files_are_all_compared():
    assert {path.name for path in GOLDEN.iterdir()} == set(golden_files.FILES)


def test_pictures_stand_below_the_tables_and_nothing_else_changes():
    boards, pictures = leaderboard(run()), {"what [z3] does": "my runs/traversals.png", "samples": "grid.png"}
    plain, shown = to_markdown(boards), to_markdown(boards, pictures=pictures)
    assert shown.startswith(plain)
    assert shown[len(plain) :].split("\n") == [
        "",
        r"![what \[z3\] does](my%20runs/traversals.png)",
        "",
        "![samples](grid.png)",
        "",
    ]
    assert json.loads(to_json(boards, pictures=pictures)) == {**document(boards), "pictures": pictures}
    assert document(boards, pictures={}) == document(boards)
