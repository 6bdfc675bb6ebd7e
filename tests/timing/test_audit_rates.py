"""How often the audit is wrong, by simulation: false alarms under any noise, and memories that it finds."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from genbench.harness.timed_audit import scores_agree
from genbench.timing.audit import FAST_PAIRS, PAIRS, remembers

AUDITS = 2000
MOST_ALARMS = 1
"""Of 2000 audits, 0.06 raise an alarm at the stated rate; two or more do so once in 590 draws of them."""


class Simulated:
    """A sampler and its clock: `seconds(seed)` is what a request takes that is not answered from memory."""

    def __init__(self, seconds, *, kept=0, kept_seconds=0.0):
        self._seconds, self._kept, self._kept_seconds = seconds, kept, kept_seconds
        self._memory = []
        self.time, self.calls = 0.0, 0

    def __call__(self, seed):
        self.calls += 1
        taken = self._seconds(seed)
        if seed in self._memory:
            taken += self._kept_seconds - BASE
        self.time += taken
        self._memory = [*self._memory, seed][-self._kept :] if self._kept else []

    def synchronise(self):
        pass

    def now(self):
        return self.time


BASE = 0.01


def _lognormal(chance, deviation):
    return lambda seed: BASE * chance.lognormvariate(0.0, deviation)


def _spikes(chance, share, length):
    """A neighbour that takes the processor now and then, for a time that has no upper bound."""
    return lambda seed: BASE + (length * chance.paretovariate(1.2) if chance.random() < share else 0.0)


def _drifting(chance):
    """Noise in which neighbours are alike: log-time is autoregressive, with 0.9 from call to call."""
    state = itertools.accumulate(itertools.repeat(0.0), lambda x, _: 0.9 * x + chance.gauss(0.0, 0.5))
    return lambda seed: BASE * math.exp(next(state))


def _periodic(period):
    """Every so many calls something is tidied up, which takes as long again."""
    calls = itertools.count(1)
    return lambda seed: BASE * (2.0 if next(calls) % period == 0 else 1.0)


def _adaptive(chance):
    """As many steps as the seed needs, which is anything from 10 to 100."""
    return lambda seed: BASE * random.Random(seed).randint(10, 100) / 55 * chance.lognormvariate(0.0, 0.02)


NOISES = {
    "quiet": lambda chance: _lognormal(chance, 0.01),
    "loud": lambda chance: _lognormal(chance, 1.5),
    "spikes": lambda chance: _spikes(chance, 0.3, BASE),
    "drifting": _drifting,
    "every second call": lambda chance: _periodic(2),
    "every third call": lambda chance: _periodic(3),
    "as the seed needs": _adaptive,
}


def _alarms(make, chance, audits):
    found = 0
    for _ in range(audits):
        sampler = make()
        found += remembers(sampler, sampler, chance)
    return found


@pytest.mark.parametrize("name", NOISES)
def test_an_honest_sampler_raises_no_alarm_whatever_the_noise(name):
    chance = random.Random(0)
    assert _alarms(lambda: Simulated(NOISES[name](chance)), chance, AUDITS) <= MOST_ALARMS


def test_the_stated_rate_is_that_of_pairs_which_are_fast_half_the_time():
    """With pure chance an audit is a fixed test of 30 pairs that stops early: both decide alike, draw by draw."""
    stated = sum(math.comb(PAIRS, slow) for slow in range(PAIRS - FAST_PAIRS + 1)) / 2**PAIRS
    assert stated == pytest.approx(3.0e-5, rel=0.01)
    coin = random.Random(0)
    for bias in (0.5, 0.8, 0.9, 0.95):
        for _ in range(200):
            tosses = [coin.random() < bias for _ in range(PAIRS)]
            sampler = Tossed(tosses)
            assert remembers(sampler, sampler, random.Random(1)) == (sum(tosses) >= FAST_PAIRS)


class Tossed:
    """Repeats a seed fast where a toss says so."""

    def __init__(self, tosses):
        self._tosses, self._last, self.time = iter(tosses), None, 0.0

    def __call__(self, seed):
        repeated, self._last = seed == self._last, seed
        self.time += 0.5 if repeated and next(self._tosses) else 1.0

    def synchronise(self):
        pass

    def now(self):
        return self.time


MEMORIES = {
    "of the last sample": {"kept": 1, "kept_seconds": BASE / 10},
    "of all samples": {"kept": 100, "kept_seconds": BASE / 10},
    "that saves a third": {"kept": 1, "kept_seconds": BASE * 2 / 3},
}


@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_is_found_at_least_99_times_in_100_on_a_busy_machine(name):
    """Three calls in a hundred are interrupted, for as long as a call takes or longer."""
    chance = random.Random(0)
    found = _alarms(lambda: Simulated(_spikes(chance, 0.03, BASE), **MEMORIES[name]), chance, 500)
    assert found >= 495


def test_an_honest_sampler_on_a_quiet_machine_is_let_go_after_five_pairs():
    chance = random.Random(0)
    sampler = Simulated(_lognormal(chance, 0.01))
    assert not remembers(sampler, sampler, chance)
    assert 10 <= sampler.calls <= 14


def test_samples_of_one_law_disagree_once_in_thousands_of_audits_at_most():
    generator = torch.Generator().manual_seed(0)
    laws = (
        lambda: torch.randint(256, (64, 3, 4, 4), generator=generator, dtype=torch.uint8),
        lambda: (torch.rand(64, 1, 1, 1, generator=generator) * 256).to(torch.uint8).expand(64, 1, 4, 4),
        lambda: (torch.rand(64, 1, 4, 4, generator=generator) < 0.01).to(torch.uint8),
    )
    for law in laws:
        assert all(scores_agree(law(), law()) for _ in range(100))  # 0.01 of them at the stated rate
