"""The rule on its own: where it decides, how often it is wrong, how often it finds what is there."""

import math

import numpy as np
import pytest
from scipy import stats

from genbench.core.verdict import Verdict
from genbench.prob.shift import Shift
from genbench.regression.rule import Rule, looks, outcome
from genbench.regression.speed import Series, confirmed, judge, sequential_p, slow_down


def _between(low, high):
    return Shift(estimate=(low + high) / 2, low=low, high=high, p=1.0, stderr=1.0, degrees=4)


@pytest.mark.parametrize(
    ("low", "high", "early", "late"),
    [
        (0.021, 0.3, "regressed", "regressed"),
        (-0.3, -0.021, "improved", "improved"),
        (-0.02, 0.02, "unchanged", "unchanged"),
        (0.005, 0.019, "unchanged", "unchanged"),
        (0.019, 0.021, None, "unchanged"),  # narrow, across the tolerance: no slow-down beyond it is proven
        (-0.01, 0.031, None, "inconclusive"),
        (0.0, 0.3, None, "inconclusive"),
        (-0.3, 0.0, None, "inconclusive"),
    ],
)
def test_the_interval_decides(low, high, early, late):
    assert outcome(_between(low, high), 0.02, last=False) == early
    assert outcome(_between(low, high), 0.02, last=True) == late


@pytest.mark.parametrize(
    ("cap", "expected"),
    [(15, (5, 9, 15)), (5, (5,)), (7, (5, 6, 7)), (3, (3,)), (2, (2,)), (30, (5, 12, 30)), (6, (5, 6))],
)
def test_looks_start_at_five_and_end_at_the_cap(cap, expected):
    assert looks(cap) == expected


def test_one_round_has_no_spread_and_is_refused():
    with pytest.raises(ValueError, match="two rounds"):
        looks(1)


def test_the_level_of_each_look_shares_out_five_per_cent():
    assert Rule(max_rounds=15).level == pytest.approx(1 - 0.05 / 3)
    assert Rule(max_rounds=5).level == pytest.approx(0.95)


def _series(rng, *, change, between, within, num=15):
    """Paired rounds: each a process with luck of its own and 20 heavy-tailed readings."""

    def medians():
        readings = rng.standard_t(3, (num, 20)) * (within / math.sqrt(3.0))
        return np.exp(rng.normal(0.0, between, num) + np.median(readings, axis=1))

    head = medians() * (1.0 + change)
    return Series("ddpm", "shapes", "latency_seconds", tuple(medians()), tuple(head))


def _until_decided(series, rule):
    for look in rule.looks:
        seen = Series(series.row, series.dataset, series.quantity, series.base[:look], series.head[:look])
        verdict = judge([seen], rule, {})[series.key]
        if verdict is not None:
            return verdict
    raise AssertionError("the last look decides")


def _share(draws, *, machine, change, seed, rule):
    """Shares of (alarms, confirmed alarms, unchanged)."""
    between, within = {"quiet": (0.005, 0.01), "shared": (0.03, 0.02)}[machine]
    rng = np.random.default_rng(seed)
    alarms = sure = same = 0
    for _ in range(draws):
        verdict = _until_decided(_series(rng, change=change, between=between, within=within), rule)
        same += verdict.outcome == "unchanged"
        if verdict.outcome == "regressed":
            alarms += 1
            again = _until_decided(_series(rng, change=change, between=between, within=within), rule)
            sure += confirmed(verdict, again).outcome == "regressed"
    return alarms / draws, sure / draws, same / draws


def test_a_quiet_machine_passes_what_is_equal_and_finds_five_per_cent():
    rule = Rule()
    assert _share(40, machine="quiet", change=0.0, seed=0, rule=rule) == (0.0, 0.0, 1.0)
    assert _share(40, machine="quiet", change=0.05, seed=1, rule=rule)[1] == 1.0


def test_a_shared_machine_raises_no_alarm_on_equals_and_finds_ten_per_cent():
    rule = Rule()
    alarms, sure, _ = _share(60, machine="shared", change=0.0, seed=2, rule=rule)
    assert alarms <= 1 / 60
    assert sure == 0.0
    assert _share(40, machine="shared", change=0.1, seed=3, rule=rule)[1] >= 39 / 40


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["quiet", "shared"])
def test_a_change_of_exactly_the_tolerance_raises_an_alarm_at_most_25_times_in_1000(machine):
    """The worst case that still passes: one-sided 2.5 % over all looks together, within three deviations."""
    draws = 800
    alarms, sure, _ = _share(draws, machine=machine, change=0.02, seed=4, rule=Rule())
    assert alarms <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / draws)
    assert sure <= 0.005


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "change", "alarm", "sure", "same"),
    [
        ("quiet", 0.0, 0.0, 0.0, 1.0),
        ("quiet", 0.05, 1.0, 1.0, 0.0),
        ("quiet", 0.1, 1.0, 1.0, 0.0),
        ("shared", 0.0, 0.0007, 0.0, 0.037),
        ("shared", 0.05, 0.53, 0.28, 0.003),
        ("shared", 0.1, 0.9997, 0.9997, 0.0),
    ],
)
def test_the_numbers_in_the_documentation_are_what_the_rule_does(machine, change, alarm, sure, same):
    """300 draws against the 6,000 of the table, within four deviations of a binomial count."""
    draws = 300
    found = _share(draws, machine=machine, change=change, seed=5, rule=Rule())
    for share, expected in zip(found, (alarm, sure, same), strict=True):
        assert abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / draws) + 0.003


def test_looking_after_every_round_without_paying_for_it_would_break_the_promise():
    """Why the level is shared out: 95 % intervals at each of 5 .. 15 rounds, true change at the tolerance."""
    rng, rule, alarms = np.random.default_rng(6), Rule(), 0
    widths = {n: stats.t.ppf(0.975, n - 1) / math.sqrt(n) for n in range(5, 16)}
    for _ in range(600):
        series = _series(rng, change=0.02, between=0.03, within=0.02)
        logs = np.log(series.head) - np.log(series.base)
        bounds = [logs[:n].mean() - width * logs[:n].std(ddof=1) for n, width in widths.items()]
        alarms += max(bounds) > rule.log_tolerance
    assert alarms / 600 > 0.05


def test_the_sequential_chance_is_at_most_five_per_cent_exactly_where_a_look_has_raised_an_alarm():
    rng, rule = np.random.default_rng(7), Rule()
    seen = {True: 0, False: 0}
    for _ in range(60):
        series = _series(rng, change=0.06, between=0.03, within=0.02)
        at_looks = []
        for look in rule.looks:
            worse = slow_down(series, rule, look)
            at_looks.append(worse.low > rule.log_tolerance or worse.high < -rule.log_tolerance)
        assert (sequential_p(series, rule) <= 0.05) == any(at_looks)
        seen[any(at_looks)] += 1
    assert min(seen.values()) > 5


def test_an_alarm_that_new_rounds_do_not_confirm_is_inconclusive_and_says_so():
    alarm = Verdict(
        gate="speed", row="a", dataset="d", measure="latency_seconds", outcome="regressed", change=0.08, num_rounds=5
    )
    again = alarm.model_copy(update={"outcome": "unchanged", "change": 0.001, "num_rounds": 9})
    found = confirmed(alarm, again)
    assert found.outcome == "inconclusive"
    assert found.note == "not confirmed: +8.0% in the first 5 rounds; new ones gave +0.1% in 9 rounds"
    assert confirmed(alarm, None).note.endswith("new ones failed")


def test_a_confirmed_alarm_reports_the_new_numbers():
    alarm = Verdict(
        gate="speed", row="a", dataset="d", measure="latency_seconds", outcome="regressed", change=0.2, num_rounds=5
    )
    again = alarm.model_copy(update={"change": 0.1, "num_rounds": 9})
    found = confirmed(alarm, again)
    assert (found.outcome, found.change, found.num_rounds, found.confirmed) == ("regressed", 0.1, 9, True)
