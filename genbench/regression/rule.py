"""The rule that decides, and how often it is wrong.

A change is judged by its 95 % interval against a tolerance, never by its estimate alone:

    regressed      the whole interval is worse than the tolerance
    improved       the whole interval is better than the tolerance
    unchanged      the whole interval lies within the tolerance, or is at last narrower than it on either side
    inconclusive   none of these: the noise is larger than the tolerance

**Looking more than once.** Rounds are added until the rule decides or the cap is reached, and whoever looks often
enough sees chance. So the gate looks at fixed numbers of rounds only (5, 9, 15 for the cap of 15), and each of L looks
takes 1/L of the 5 %: intervals at level 1 - 0.05/L hold the truth at all looks together 95 times in 100 (Bonferroni's
inequality), whatever the looks depend on. Without that, with a look after each of 5 .. 15 rounds, 8.2 % of true
slow-downs of exactly the tolerance raise an alarm in the simulation below, where 2.5 % are promised; with it, 2.1 %.

**Many measures.** A measure is an alarm only if its p-value, adjusted over all measures of the gate by Benjamini and
Hochberg, is at most 5 %.

**Confirmation.** An alarm is reported as a regression only if the same rule finds it again in new rounds; else it
is inconclusive.

**What this does**, simulated with 6,000 draws of two processes per round whose log-times deviate by 0.5 % between and
1 % within processes (a quiet machine) or 3 % and 2 % (a shared one), with 20 heavy-tailed readings (Student's t of
3 degrees) in each; tolerance 2 %, cap 15 rounds; the fourth column needs both the alarm and its confirmation:

    machine   true change   alarm     confirmed   unchanged   inconclusive   rounds before confirmation
    quiet     0 %           0.00 %    0.00 %      100 %       0.0 %           5.7
    quiet     +2 %          2.1 %     0.02 %      97.9 %      0.0 %          14.8
    quiet     +5 %          100 %     100 %       0.0 %       0.0 %           5.0
    quiet     +10 %         100 %     100 %       0.0 %       0.0 %           5.0
    shared    0 %           0.07 %    0.00 %      3.7 %       96.2 %         15.0
    shared    +2 %          2.2 %     0.02 %      3.9 %       93.9 %         14.9
    shared    +5 %          53 %      28 %        0.3 %       46.3 %         13.0
    shared    +10 %         99.97 %   99.97 %     0.0 %       0.0 %           6.9

Rounds whose processes take their blocks in turn (`timing/turns.py`) meet the same neighbours, so that a shared machine
comes near to a quiet one: on two busy cores the log-ratios of pairs deviated by 1 % in turns, and by 10 to 30 % one
after the other.

`tests/regression/test_rule.py` simulates the same with the functions of this package and fixed seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from genbench.core.verdict import Outcome
from genbench.prob.shift import Shift

ALPHA = 0.05
"""Chance of an interval that misses the truth, over all looks together."""
FIRST_LOOK = 5
"""The interval of three pairs is twice as wide as that of five, for the same spread."""
SKIPPED_WORK = 0.2
"""A speed-up from which on work may have been skipped rather than saved."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A tolerance and the looks at which it is applied."""

    tolerance: float = 0.02
    """A slow-down of this share passes."""
    max_rounds: int = 15

    @property
    def log_tolerance(self) -> float:
        """The tolerance on the log scale."""
        return math.log1p(self.tolerance)

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of rounds after which a decision may fall."""
        return looks(self.max_rounds)

    @property
    def level(self) -> float:
        """Of the interval at each look, such that all hold together 95 times in 100."""
        return 1.0 - ALPHA / len(self.looks)


def looks(max_rounds: int) -> tuple[int, ...]:
    """The first look, the cap, and one between that is as many times the first as the cap is times it.

    >>> looks(15), looks(5), looks(3)
    ((5, 9, 15), (5,), (3,))
    """
    if max_rounds < 2:
        raise ValueError(f"a spread needs two rounds or more, found a cap of {max_rounds}")
    middle = round(math.sqrt(FIRST_LOOK * max_rounds))
    return tuple(sorted({min(FIRST_LOOK, max_rounds), min(middle, max_rounds), max_rounds}))


def outcome(worse: Shift, tolerance: float, *, last: bool) -> Outcome | None:
    """The decision on a change for the worse with its interval; None when more rounds are needed.

    Args:
        worse: the change; positive is worse.
        tolerance: in the units of the change.
        last: there will be no more rounds.
    """
    if worse.low > tolerance:
        return "regressed"
    if worse.high < -tolerance:
        return "improved"
    if -tolerance <= worse.low and worse.high <= tolerance:
        return "unchanged"
    if not last:
        return None
    return "unchanged" if 0.5 * (worse.high - worse.low) <= tolerance else "inconclusive"
