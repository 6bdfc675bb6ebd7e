"""Verdicts on counts, on rows that come and go, and the exit code."""

import pytest
from made_up import BROKEN, CPU, NOT_FOR_IT, cell, counted, counters, outcomes

from genbench.core.bench import Round
from genbench.core.verdict import OUTCOMES, Verdict
from genbench.regression.counters import COUNTED, compare_counters
from genbench.regression.entries import counted as entries_of
from genbench.regression.exit_code import exit_code


def _changed(verdicts):
    return {name: outcome for name, outcome in outcomes(verdicts).items() if outcome != "unchanged"}


def test_equal_counts_are_unchanged_in_every_measure():
    found = outcomes(compare_counters([counted()], [counted()]))
    assert set(found.values()) == {"unchanged"}
    assert set(found) == {f"sample.{name}" for name in COUNTED} | {
        f"train.{name}" for name in COUNTED if name != "network_evaluations"
    }


@pytest.mark.parametrize("name", ["flops", "operators", "bytes_allocated", "parameters", "network_evaluations"])
def test_one_more_of_anything_is_a_regression_and_one_less_an_improvement(name):
    count = counters().model_dump()[name]
    more, less = counted(**{name: count + 1}), counted(**{name: count - 1})
    assert _changed(compare_counters([counted()], [more])) == {f"sample.{name}": "regressed"}
    assert _changed(compare_counters([counted()], [less])) == {f"sample.{name}": "improved"}


def test_a_declared_tolerance_lets_small_growth_pass():
    head = counted(operators=504)
    assert _changed(compare_counters([counted()], [head], tolerance=0.01)) == {}
    assert _changed(compare_counters([counted()], [head], tolerance=0.007)) == {"sample.operators": "regressed"}


def test_work_that_falls_by_more_than_a_fifth_asks_for_a_check():
    notes = {v.measure: v.note for v in compare_counters([counted()], [counted(flops=790_000, operators=480)])}
    assert notes["sample.flops"] == "check for skipped work"
    assert notes["sample.operators"] == ""


def test_operations_that_escape_the_count_are_no_improvement():
    (verdict,) = [
        v
        for v in compare_counters([counted()], [counted(flops=10, uncounted=("mine::conv",))])
        if v.measure == "sample.flops"
    ]
    assert verdict.outcome == "inconclusive"
    assert "mine::conv" in verdict.note


def test_evaluations_that_appear_are_a_regression():
    base = counted(network_evaluations=None)
    (verdict,) = [v for v in compare_counters([base], [counted()]) if v.measure == "sample.network_evaluations"]
    assert (verdict.outcome, verdict.base, verdict.head, verdict.change) == ("regressed", None, 25, None)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (counted(environment=CPU.model_copy(update={"torch": "2.7.0"})), "torch 2.6.0 in base, 2.7.0 in head"),
        (counted(cell_changes={"device": "cuda"}), "device cpu in base, cuda in head"),
        (
            counted(cell_changes={"protocol": cell().protocol.model_copy(update={"preset": "small"})}),
            "preset smoke in base, small in head",
        ),
    ],
)
def test_other_versions_devices_and_presets_are_not_comparable_unless_asked_for(head, reason):
    (verdict,) = compare_counters([counted()], [head])
    assert (verdict.outcome, verdict.measure) == ("not_comparable", "cell")
    assert reason in verdict.note
    assert _changed(compare_counters([counted()], [head], any_version=True)) == {}


def test_another_seed_counts_the_same():
    assert _changed(compare_counters([counted()], [counted(cell_changes={"seed": 3})])) == {}


def test_rows_that_come_go_break_and_mend_are_told_apart():
    base = [counted("vae"), counted("gone"), counted("breaks"), counted("mends", error=BROKEN)]
    base += [counted("broken", error=BROKEN), counted("broken_and_gone", error=BROKEN)]
    head = [counted("vae"), counted("breaks", error=BROKEN), counted("mends"), counted("broken", error=BROKEN)]
    head += [counted("comes"), counted("comes_broken", error=BROKEN)]
    found = {v.row: v.outcome for v in compare_counters(base, head) if v.measure == "cell"}
    assert found == {
        "gone": "vanished",
        "breaks": "failed",
        "mends": "fixed",
        "broken": "still_failing",
        "comes": "new",
        "comes_broken": "failed",
    }


def test_a_call_that_is_no_longer_counted_has_vanished():
    entry = counted()
    less = entry.model_copy(update={"counters": {"sample": entry.counters["sample"]}})
    assert _changed(compare_counters([entry], [less])) == {"train": "vanished"}
    assert _changed(compare_counters([less], [entry])) == {"train": "new"}


def test_a_subject_that_cannot_be_counted_makes_no_entry():
    def done(error):
        return Round(label="ddpm", phase="counters", index=0, error=error)

    assert entries_of([cell()], [done(NOT_FOR_IT)]) == []
    assert entries_of([cell()], [done(BROKEN)])[0].error == BROKEN


def _verdict(outcome):
    return Verdict(gate="counters", row="ddpm", dataset="shapes", measure="train.flops", outcome=outcome)


@pytest.mark.parametrize(
    ("found", "code", "strict"),
    [
        (["unchanged"], 0, 0),
        (["unchanged", "improved", "new", "fixed", "still_failing"], 0, 0),
        (["unchanged", "inconclusive"], 0, 4),
        (["regressed", "failed", "not_comparable", "inconclusive"], 1, 1),
        (["vanished", "unchanged"], 1, 1),
        (["failed", "not_comparable", "unchanged"], 3, 3),
        (["not_comparable", "unchanged", "inconclusive"], 5, 5),
        ([], 6, 6),
        (["new", "still_failing", "fixed"], 6, 6),
    ],
)
def test_the_exit_code_follows_from_the_verdicts(found, code, strict):
    verdicts = [_verdict(one) for one in found]
    assert (exit_code(verdicts), exit_code(verdicts, strict=True)) == (code, strict)


def test_every_outcome_has_an_exit_code_of_its_own():
    codes = {one: exit_code([_verdict(one)], strict=True) for one in OUTCOMES}
    assert codes == {
        "regressed": 1,
        "vanished": 1,
        "failed": 3,
        "not_comparable": 5,
        "inconclusive": 4,
        "improved": 0,
        "unchanged": 0,
        "fixed": 6,
        "new": 6,
        "still_failing": 6,
    }
