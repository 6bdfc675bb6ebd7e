"""Verdicts on paired rounds that are made up: no process runs."""

import math

import pytest
from made_up import BROKEN, CPU, NOT_FOR_IT, cell, outcomes, round_

from genbench.core.baseline import Entry
from genbench.harness.round_job import NOT_APPLICABLE as OF_THE_WORKER
from genbench.prob.rounds import summarise
from genbench.regression.rule import Rule
from genbench.regression.speed import NOT_APPLICABLE, Pair, applies, failure, judge, lost, series_of
from genbench.regression.speed_apart import compare_speeds

NOISE = (0.0, 0.004, -0.003, 0.002, -0.001)


def _pairs(factor, *, quantity="train_images_per_second", noise=NOISE, flags=()):
    """Head takes `factor` times as long."""
    speed = 1 / factor if quantity != "latency_seconds" else factor
    return [
        Pair(
            round_(100.0, quantity=quantity, index=index),
            round_(100.0 * speed * math.exp(x), quantity=quantity, index=index, flags=flags),
        )
        for index, x in enumerate(noise)
    ]


def _verdict(pairs, **rule):
    (series,) = series_of("ddpm", "shapes", pairs)
    return judge([series], Rule(**rule), {})[series.key]


@pytest.mark.parametrize("quantity", ["train_images_per_second", "latency_seconds", "sample_images_per_second"])
def test_a_slow_down_of_ten_per_cent_regresses_whatever_the_direction_of_the_quantity(quantity):
    verdict = _verdict(_pairs(1.1, quantity=quantity))
    assert verdict.outcome == "regressed"
    expected = 0.1 if quantity == "latency_seconds" else 1 / 1.1 - 1
    assert verdict.change == pytest.approx(expected, abs=0.003)
    assert verdict.ci95[0] < verdict.change < verdict.ci95[1]
    assert verdict.num_rounds == 5


def test_a_speed_up_improves_and_one_beyond_twenty_per_cent_asks_for_a_check():
    assert _verdict(_pairs(0.9)).outcome == "improved"
    assert _verdict(_pairs(0.9)).note == ""
    assert _verdict(_pairs(0.7)).note == "check for skipped work"


def test_equal_sides_are_unchanged_at_the_first_look():
    assert _verdict(_pairs(1.0)).outcome == "unchanged"


def test_noise_asks_for_more_rounds_and_is_inconclusive_at_the_cap():
    loud = (0.05, -0.06, 0.04, -0.05, 0.03)
    assert _verdict(_pairs(1.0, noise=loud)) is None
    last = _verdict(_pairs(1.0, noise=loud * 3))
    assert last.outcome == "inconclusive"
    assert last.num_rounds == 15


def test_a_slow_down_within_the_tolerance_passes():
    assert _verdict(_pairs(1.1), tolerance=0.15).outcome == "unchanged"


def test_flags_of_rounds_are_told_and_decide_nothing():
    verdict = _verdict(_pairs(1.1, flags=("canary_drift",)))
    assert (verdict.outcome, verdict.note) == ("regressed", "canary_drift in 5 of 10 rounds")


def test_chance_is_shared_out_among_all_measures():
    """An interval that alone would just alarm does not among forty measures that are unchanged."""
    noise = (0.03, -0.03, 0.028, -0.02, 0.01)
    pairs = _pairs(1.09, noise=noise)
    (alone,) = series_of("a", "shapes", pairs)
    rule = Rule(max_rounds=5)
    assert judge([alone], rule, {})[alone.key].outcome == "regressed"
    others = [series_of(f"m{i}", "shapes", _pairs(1.0))[0] for i in range(40)]
    found = judge([alone, *others], rule, {})
    assert found[alone.key].outcome == "inconclusive"
    assert "not among all measures" in found[alone.key].note
    assert {found[one.key].outcome for one in others} == {"unchanged"}


def test_before_the_cap_an_alarm_that_is_none_among_all_asks_for_more_rounds():
    noise = (0.02, -0.02, 0.018, -0.012, 0.006)
    (alone,) = series_of("a", "shapes", _pairs(1.09, noise=noise))
    others = [series_of(f"m{i}", "shapes", _pairs(1.0))[0] for i in range(150)]
    assert judge([alone], Rule(), {})[alone.key].outcome == "regressed"
    assert judge([alone, *others], Rule(), {})[alone.key] is None


def test_an_earlier_decision_stands():
    (series,) = series_of("a", "shapes", _pairs(1.1))
    first = judge([series], Rule(), {})[series.key]
    (later,) = series_of("a", "shapes", _pairs(1.0, noise=NOISE * 3))
    assert judge([later], Rule(), {series.key: first})[series.key] is first


def test_one_failed_round_of_head_is_a_failure():
    pairs = [*_pairs(1.0)[:4], Pair(round_(100.0, index=4), round_(0, index=4, error=BROKEN))]
    verdict = failure("ddpm", "shapes", pairs)
    assert (verdict.outcome, verdict.measure) == ("failed", "train")
    assert verdict.note == "train: RuntimeError: out of ideas"


@pytest.mark.parametrize(
    ("base", "head", "expected"), [(BROKEN, None, "fixed"), (BROKEN, BROKEN, "still_failing"), (None, BROKEN, "failed")]
)
def test_who_failed_decides_what_a_failure_is_called(base, head, expected):
    assert failure("a", "d", [Pair(round_(1.0, error=base), round_(1.0, error=head))]).outcome == expected


def test_a_phase_that_does_not_apply_to_a_subject_is_no_failure():
    assert NOT_APPLICABLE == OF_THE_WORKER
    pairs = [Pair(round_(0, error=NOT_FOR_IT), round_(0, error=NOT_FOR_IT))]
    assert failure("a", "d", pairs) is None
    assert not applies(pairs)
    assert applies(_pairs(1.0))


def test_a_phase_that_no_longer_applies_is_a_failure():
    assert failure("a", "d", [Pair(round_(1.0), round_(0, error=NOT_FOR_IT))]).outcome == "failed"


def test_a_quantity_that_head_no_longer_reads_has_vanished():
    pairs = [Pair(round_(1.0), round_(1.0, quantity="latency_seconds"))]
    assert outcomes(lost("a", "d", pairs)) == {"train_images_per_second": "vanished"}
    assert series_of("a", "d", pairs) == []


def _benched(*medians, environment=CPU, canary=1.0, name="latency_seconds", **changed):
    measure = summarise([[m] for m in medians], name=name, unit="s", better="lower")
    return Entry(
        gate="speed", cell=cell(), measures={name: measure}, environment=environment, canary_seconds=canary, **changed
    )


def test_rounds_of_two_files_are_compared_by_their_spreads():
    base = _benched(1.0, 1.01, 0.99, 1.0, 1.005)
    slower = _benched(1.1, 1.11, 1.09, 1.1, 1.105)
    assert outcomes(compare_speeds([base], [slower])) == {"latency_seconds": "regressed"}
    assert outcomes(compare_speeds([slower], [base])) == {"latency_seconds": "improved"}
    (verdict,) = compare_speeds([base], [base])
    assert (verdict.outcome, verdict.change) == ("unchanged", 0.0)


def test_a_canary_that_changed_makes_two_files_inconclusive():
    (verdict,) = compare_speeds([_benched(1.0, 1.01, 0.99)], [_benched(1.5, 1.51, 1.49, canary=1.04)])
    assert verdict.outcome == "inconclusive"
    assert "the machine itself changed" in verdict.note


def test_files_of_two_machines_are_not_comparable_unless_asked_for():
    here = _benched(1.0, 1.002, 0.998)
    other = _benched(1.0, 1.002, 0.998, environment=CPU.model_copy(update={"threads": 8}))
    assert outcomes(compare_speeds([here], [other])) == {"cell": "not_comparable"}
    found = compare_speeds([here], [other], any_version=True)
    assert outcomes(found) == {"latency_seconds": "unchanged"}


def test_a_single_round_decides_nothing():
    assert outcomes(compare_speeds([_benched(1.0)], [_benched(2.0)])) == {"latency_seconds": "inconclusive"}


def test_a_quantity_that_a_file_no_longer_has_has_vanished():
    gone = _benched(1.0, 1.0, name="sample_images_per_second")
    assert outcomes(compare_speeds([_benched(1.0, 1.0)], [gone])) == {"latency_seconds": "vanished"}


def test_another_best_batch_size_is_told():
    before = _benched(1.0, 1.01, name="sample_images_per_second", batch_size=32)
    after = _benched(1.0, 1.01, name="sample_images_per_second", batch_size=16)
    assert "batch size 32 in base, 16 in head" in compare_speeds([before], [after])[0].note
