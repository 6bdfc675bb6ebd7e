"""Verdicts in every output: golden files, escaping, and what other programs read."""

import json
import re
import xml.etree.ElementTree as ET

import gate_reports
import pytest
from gate_reports import FILES, GOLDEN, NASTY, report, terminal, timed, verdict

from genbench.core.verdict import OUTCOMES, GateReport
from genbench.report._changes import MARKS, WORDS, sentence
from genbench.report.github import MAX_ANNOTATIONS, summary, workflow_commands
from genbench.report.junit import to_junit


@pytest.mark.parametrize("name", FILES)
def test_output_equals_the_golden_file(name):
    """Made by `python tests/report/gate_reports.py`; exact, since every line is what users see."""
    assert FILES[name](report()) == (GOLDEN / name).read_text(encoding="utf-8")


def test_golden_files_are_all_compared():
    assert {path.name for path in GOLDEN.iterdir()} == set(gate_reports.FILES)


def test_every_outcome_has_a_word_and_a_sign_and_stands_in_the_sample():
    assert set(WORDS) == set(MARKS) == set(OUTCOMES)
    assert {one.outcome for one in report().verdicts} == set(OUTCOMES)


def test_the_worst_comes_first_and_unchanged_counters_are_only_counted():
    shown = terminal(report(), 200)
    assert shown.index("regressed") < shown.index("inconclusive;") < shown.index("improved")
    assert "train.flops" not in shown
    assert "4 unchanged" in shown


def test_what_did_not_change_has_a_row_and_no_line_below_the_table():
    same = verdict("unchanged", "recall", gate="quality", base=0.5, head=0.5, change=0.0, note="the same, all of it")
    worse = verdict("regressed", "precision", gate="quality", base=0.5, head=0.4, change=-0.2, note="five seeds")
    shown = terminal(report([same, worse]), 200)
    assert "the same, all of it" not in shown
    assert "recall" in shown
    assert "ddpm: precision: five seeds" in shown


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_every_row_its_verdict_and_its_conclusion_fit_any_terminal(width):
    shown = terminal(report(), width)
    assert all(len(line) <= width for line in shown.splitlines())
    assert "exit code 1" in shown
    assert "check for skipped work" in re.sub(r"\s+", " ", shown)


def test_a_report_without_verdicts_says_that_nothing_was_compared():
    assert "nothing compared (exit code 6): nothing was compared" in terminal(report([], code=6), 100)


def test_a_change_too_small_for_two_decimals_is_not_shown_as_zero():
    one = verdict("regressed", base=123_456_789, head=123_456_790, change=1 / 123_456_789, tolerance=0.0)
    assert "+8.1e-07 %" in sentence(one)
    assert "123,456,789 -> 123,456,790" in sentence(one)


def test_junit_is_what_the_usual_schema_allows():
    """The elements, attributes and order of jenkins-junit.xsd."""
    root = ET.fromstring(to_junit(report()))
    assert root.tag == "testsuites"
    assert set(root.attrib) <= {"name", "time", "tests", "failures", "disabled", "errors"}
    for suite in root:
        assert suite.tag == "testsuite"
        assert set(suite.attrib) == {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
        for case in suite:
            assert case.tag == "testcase"
            assert set(case.attrib) == {"classname", "name", "time"}
            assert len(case) == 1
            assert case[0].tag in {"skipped", "error", "failure", "system-out"}
            assert set(case[0].attrib) <= {"message", "type"}


def test_junit_has_a_case_for_every_measure_and_counts_them():
    given = report()
    root = ET.fromstring(to_junit(given))
    cases = root.findall(".//testcase")
    assert len(cases) == len(given.verdicts) == int(root.attrib["tests"])
    assert len(root.findall(".//failure")) == int(root.attrib["failures"]) == 4
    assert len(root.findall(".//error")) == int(root.attrib["errors"]) == 2
    skipped = sum(int(suite.attrib["skipped"]) for suite in root)
    assert len(root.findall(".//skipped")) == skipped
    assert len({(case.attrib["classname"], case.attrib["name"]) for case in cases}) == len(cases)


def test_junit_keeps_hostile_names_and_drops_what_xml_cannot_hold():
    shown = to_junit(report())
    (case,) = (case for case in ET.fromstring(shown).iter("testcase") if "script" in case.attrib["name"])
    assert case.attrib["name"].startswith(NASTY.replace("\x07", "\ufffd"))
    assert "\x07" not in shown


def test_what_is_inconclusive_fails_in_junit_only_when_the_gate_is_strict():
    one = [timed("inconclusive", 0.0, -0.1, 0.1)]
    assert "<failure" not in to_junit(report(one, code=0))
    assert "<failure" in to_junit(report(one, code=4, strict=True))


def test_a_message_cannot_start_a_workflow_command_of_its_own():
    lines = workflow_commands(report([verdict("failed", "cell", row=NASTY, note="50%\r\n::error::x")], code=3))
    assert len(lines) == 2
    assert all(re.fullmatch(r"::(error|notice) title=genbench::[^\r\n]*", line) for line in lines)
    assert "50%25%0D%0A::error::x" in lines[0]


def test_annotations_stop_where_github_drops_them_and_say_how_many_are_left():
    lines = workflow_commands(report([verdict("regressed", f"m{i}") for i in range(25)]))
    errors = [line for line in lines if line.startswith("::error")]
    assert len(errors) == MAX_ANNOTATIONS
    assert "and 16 more" in errors[-1]


def test_a_summary_has_one_line_for_each_row_whatever_its_name():
    shown = summary(report([verdict("failed", "cell", row=NASTY, note="a | b\nc")], code=3))
    rows = [line for line in shown.splitlines() if line.startswith("| 🔴")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 10
    assert "<script>" not in shown


def test_a_summary_of_thousands_of_rows_stays_below_what_github_takes():
    many = [timed("regressed", -0.1, -0.2, -0.05, row=f"model_{i}", note="x" * 200) for i in range(5000)]
    shown = summary(report([*many, *(one.model_copy(update={"outcome": "unchanged"}) for one in many)]))
    assert len(shown.encode()) < 2**20
    assert "and 4800 more" in shown


def test_the_json_reads_back_and_names_its_schema():
    given = report()
    text = given.model_dump_json(indent=1)
    assert json.loads(text)["schema"] == "genbench.gate/1"
    assert GateReport.model_validate_json(text) == given
