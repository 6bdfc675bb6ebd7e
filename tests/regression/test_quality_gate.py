"""Verdicts on scores, paired over seeds, and the noise floor that runs of the same code show."""

import math

import numpy as np
import pytest
from made_up import BROKEN, TIER, outcomes, score, scored

from genbench.core.baseline import NoiseFloor
from genbench.regression.calibration import noise_floors
from genbench.regression.quality import compare_quality, noise_floor

SEEDS = (0, 1, 2)


def _run(*values, **changed):
    return [scored(score(value, **changed), seed=seed) for seed, value in enumerate(values)]


def test_the_same_numbers_are_unchanged():
    (verdict,) = compare_quality(_run(60.0, 61.0), _run(60.0, 61.0))
    assert (verdict.outcome, verdict.note) == ("unchanged", "the same to the last digit")


def test_a_loss_that_every_seed_shows_is_a_regression_though_seeds_differ_by_more():
    (verdict,) = compare_quality(_run(50.0, 60.0, 70.0), _run(54.9, 65.2, 75.0))
    assert verdict.outcome == "regressed"
    assert verdict.change == pytest.approx(5.0333, abs=1e-3)
    assert verdict.num_rounds == 3
    assert not verdict.relative


def test_the_direction_of_a_score_decides_what_is_worse():
    base, head = _run(0.5, 0.5, 0.5, better="higher"), _run(0.6, 0.61, 0.6, better="higher")
    assert outcomes(compare_quality(base, head)) == {"fd_shapes_net": "improved"}
    assert outcomes(compare_quality(head, base)) == {"fd_shapes_net": "regressed"}


def test_a_loss_that_only_some_seeds_show_is_inconclusive():
    assert outcomes(compare_quality(_run(60.0, 60.0, 60.0), _run(70.0, 58.0, 61.0))) == {
        "fd_shapes_net": "inconclusive"
    }


def test_a_single_seed_is_judged_by_the_standard_errors_of_its_scores():
    assert outcomes(compare_quality(_run(60.0), _run(63.0), tolerance=0.0)) == {"fd_shapes_net": "regressed"}
    assert outcomes(compare_quality(_run(60.0), _run(61.0), tolerance=0.0)) == {"fd_shapes_net": "inconclusive"}
    assert outcomes(compare_quality(_run(60.0), _run(60.2), tolerance=0.05)) == {"fd_shapes_net": "unchanged"}


def test_a_score_without_any_error_needs_a_calibrated_floor():
    base, head = _run(60.0, stderr=None), _run(65.0, stderr=None)
    (verdict,) = compare_quality(base, head)
    assert (verdict.outcome, verdict.ci95) == ("inconclusive", None)
    assert "calibrate" in verdict.note
    assert outcomes(compare_quality(base, head, noise=[_floor(0.5)])) == {"fd_shapes_net": "regressed"}
    assert outcomes(compare_quality(base, head, noise=[_floor(5.0)])) == {"fd_shapes_net": "unchanged"}


def _floor(deviation, degrees=10):
    return NoiseFloor(
        label="ddpm",
        dataset=TIER.dataset.label,
        score="fd_shapes_net",
        deviation=deviation,
        degrees=degrees,
        num_runs=11,
        across_seeds=True,
    )


def test_the_noise_floor_widens_the_tolerance_and_never_narrows_it():
    base, head = _run(50.0, 60.0, 70.0), _run(54.9, 65.2, 75.0)
    (wide,) = compare_quality(base, head, noise=[_floor(4.0)])
    assert wide.outcome == "unchanged"
    assert wide.tolerance == pytest.approx(2.228 * math.sqrt(2 / 3) * 4.0, rel=1e-3)
    (narrow,) = compare_quality(base, head, noise=[_floor(0.001)])
    assert (narrow.outcome, narrow.tolerance) == ("regressed", pytest.approx(0.02 * 60.0))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"protocol": {"extractor": "inception_v3"}}, "extractor shapes_net in base, inception_v3 in head"),
        ({"num_samples": 512}, "num_samples 256 in base, 512 in head"),
        ({"kind": "bound"}, "kind exact in base, bound in head"),
    ],
)
def test_scores_of_two_protocols_are_not_comparable(changed, reason):
    (verdict,) = compare_quality(_run(60.0), _run(60.0, **changed))
    assert verdict.outcome == "not_comparable"
    assert reason in verdict.note


def test_cells_of_two_budgets_or_of_other_seeds_are_not_comparable():
    (verdict,) = compare_quality(_run(60.0), [scored(score(60.0), samples_seen=8192)])
    assert (verdict.outcome, verdict.measure) == ("not_comparable", "cell")
    assert "samples_seen 4096 in base, 8192 in head" in verdict.note
    found = compare_quality(_run(60.0), [scored(score(60.0), seed=7)])
    assert "not_comparable" in outcomes(found).values()


def test_deadlines_and_timing_do_not_change_a_score():
    slower = TIER.model_copy(update={"deadline_seconds": 9.0, "seeds": (0, 1)})
    assert outcomes(compare_quality(_run(60.0), [scored(score(60.0), protocol=slower)])) == {
        "fd_shapes_net": "unchanged"
    }


def test_a_score_that_is_no_longer_given_has_vanished():
    both = [scored(score(60.0), score(0.5, name="precision"))]
    assert outcomes(compare_quality(both, _run(60.0)))["precision"] == "vanished"
    assert outcomes(compare_quality(_run(60.0), both))["precision"] == "new"


def test_a_seed_that_fails_is_told_and_the_others_are_compared():
    head = [*_run(60.0, 61.0), scored(seed=2, error=BROKEN)]
    found = compare_quality(_run(60.0, 61.0, 62.0), head)
    assert outcomes(found) == {"cell": "failed", "fd_shapes_net": "unchanged"}
    assert found[0].note == "seed 2: train: RuntimeError: out of ideas"


def test_chance_is_shared_out_among_all_scores():
    """20 scores of equal code at tolerance 0: with single tests, about one would be an alarm in each of 30 runs."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(30):
        base = [scored(*(score(float(x), name=f"s{i}", stderr=1.0) for i, x in enumerate(rng.normal(50, 1, 20))))]
        head = [scored(*(score(float(x), name=f"s{i}", stderr=1.0) for i, x in enumerate(rng.normal(50, 1, 20))))]
        alarms += "regressed" in outcomes(compare_quality(base, head, tolerance=0.0)).values()
    assert alarms <= 3


def test_runs_that_share_seeds_give_the_deviation_within_seeds():
    (floor,) = noise_floors([_run(50.0, 70.0), _run(52.0, 74.0)])
    assert floor.deviation == pytest.approx(math.sqrt((2.0 + 8.0) / 2))
    assert (floor.degrees, floor.num_runs, floor.across_seeds) == (2, 2, False)


def test_runs_of_different_seeds_give_the_deviation_over_seeds():
    runs = [[scored(score(value), seed=seed)] for seed, value in enumerate((50.0, 52.0, 54.0))]
    (floor,) = noise_floors(runs)
    assert floor.deviation == pytest.approx(2.0)
    assert (floor.degrees, floor.num_runs, floor.across_seeds) == (2, 3, True)


def test_one_value_has_no_floor_and_failed_cells_are_left_out():
    assert noise_floors([_run(50.0), [scored(error=BROKEN)]]) == []


def test_equal_code_stays_below_its_floor_95_times_in_100():
    """Floors from six runs of deviation 1, then the change between two more: the t-quantile pays for six."""
    rng, beyond = np.random.default_rng(1), 0
    for _ in range(2000):
        values = rng.normal(size=8)
        floor = _floor(float(values[:6].std(ddof=1)), degrees=5)
        beyond += abs(values[6] - values[7]) > noise_floor(floor, num_seeds=1)
    assert beyond / 2000 == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))
