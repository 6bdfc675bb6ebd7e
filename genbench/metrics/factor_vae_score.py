"""FactorVAE score: can the factor that a batch shares be told from the latent that varies least in it?

Batches are drawn whose examples share the value of one factor; each votes for the latent of least variance, as a share
of that latent's variance over all examples. A majority vote maps latents to factors, and the score is its accuracy on
further batches (Kim and Mnih 2018, arXiv:1802.05983, Sec. 4). Batches of 64, 10 000 votes to learn the map and 5 000
for the score are those of Locatello et al. 2019 (arXiv:1811.12359).

**Departures.** The evidence is a fixed labelled sample, not a renderer: a batch is drawn with replacement from the
examples that share the value of a random example, so values weigh as they do in the sample. A latent that is constant
casts no vote (the published code keeps it, and divides 0 by 0).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.ranges import Count, Several, Whole
from genbench.core.record import Score
from genbench.metrics._latents import Array, block_estimate, checked_latents, found_latents, latent_protocol
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, share_interval

_OWNER = "the FactorVAE score"

NUM_BLOCKS = 10
"""Disjoint parts of the examples, for the interval."""

BLOCK_VOTES = 0.5
"""Votes over all blocks, as a share of those that are scored."""

_VOTES_AT_ONCE = 512
"""Batches whose variances are computed together: 512 x 64 examples are held."""


def factor_vae_score(
    codes: Array,
    factors: Array,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int = 0,
) -> Estimate:
    """Accuracy of the majority vote, 0 .. 1; by chance about 1/K.

    Args:
        codes: (N, D) float.
        factors: (N, K) int, K at least 2.
        batch_size: examples in one batch, at least 2.
        num_train: votes that learn the map from latents to factors.
        num_test: votes that are scored.
        seed: of the draws.

    Returns:
        The estimate; its interval is Student's over ten disjoint blocks of examples that share the map, with half as
        many further votes in all as `num_test`. The noise of votes, which is
        binomial, is brought to that of `num_test` of them. Where a block holds no two examples of one value, the
        interval is Wilson's over votes and leaves out the draw of examples.

    Raises:
        ValueError: fewer than 2 factors or 4 examples, codes that are not finite, a constant factor, or a factor
            none of whose values is held by two examples.
    """
    z, values = checked_latents(codes, factors, owner=_OWNER, examples=4, num_factors=2)
    z = z.astype(np.float64)
    variances = z.var(0, ddof=1)
    if not variances.any():
        return Estimate(0.0, 0.0, share_interval(0.0, num_test), "Wilson over votes; every latent is constant")
    z = z[:, variances > 0.0] / np.sqrt(variances[variances > 0.0])
    rng = np.random.default_rng(seed)
    train = _votes(z, _groups(values), batch_size, num_train, rng)
    answer = train.argmax(0)
    value = _accuracy(_votes(z, _groups(values), batch_size, num_test, rng), answer)
    parts = np.array_split(rng.permutation(len(z)), min(NUM_BLOCKS, len(z)))
    try:
        grouped = [_groups(values[part]) for part in parts]
    except ValueError:
        stderr = float(np.sqrt(value * (1.0 - value) / num_test))
        return Estimate(value, stderr, share_interval(value, num_test), "Wilson over votes; examples held fixed")
    each = math.ceil(BLOCK_VOTES * num_test / len(parts))
    blocks = [
        _accuracy(_votes(z[part], groups, batch_size, each, rng), answer)
        for part, groups in zip(parts, grouped, strict=True)
    ]
    how = f"Student over {len(parts)} disjoint blocks of examples; majority vote held fixed"
    kept = _with_noise_of(num_test, np.array(blocks), value * (1.0 - value), each * len(parts))
    return block_estimate(value, kept.tolist(), how=how, low=0.0, high=1.0)


@register_metric("factor_vae_score")
@dataclass(frozen=True)
class FactorVAEScore(Metric):
    """Share of batches whose shared factor is told by the latent that varies least in them."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LATENTS})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("factor_vae_score", "higher", "share"),)
    source: ClassVar[str] = "Kim and Mnih 2018, arXiv:1802.05983, Sec. 4"

    batch_size: Several = 64
    """Examples that share a factor's value; 64 in Locatello et al. 2019."""
    num_train: Count = 10_000
    """Votes that learn which factor a latent stands for."""
    num_test: Count = 5_000
    """Votes that are scored."""
    seed: Whole = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.num_train < 1 or self.num_test < NUM_BLOCKS:
            raise ValueError(
                f"batch_size, num_train and num_test are {self.batch_size}, {self.num_train} and {self.num_test}, "
                f"expected at least 2, 1 and {NUM_BLOCKS}"
            )

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score.

        Raises:
            ValueError: as the function says.
        """
        found = found_latents(evidence.latents, owner=_OWNER)
        settings = {
            "batch_size": self.batch_size,
            "num_train": self.num_train,
            "num_test": self.num_test,
            "seed": self.seed,
        }
        estimate = factor_vae_score(found.codes, found.factors, **settings)
        protocol = {**latent_protocol(found), **settings}
        name, num = "factor_vae_score", len(found.codes)
        return (scored(name, estimate, better="higher", unit="share", num_samples=num, protocol=protocol),)


@dataclass(frozen=True)
class _Group:
    """Examples sorted by the value of one factor, of those values that at least two of them hold."""

    order: np.ndarray
    """(n,): examples, sorted by value."""
    start: np.ndarray
    """(n,): where the run of equal values around each place of `order` begins."""
    count: np.ndarray
    """(n,): its length."""


def _groups(factors: np.ndarray) -> list[_Group]:
    """One group a factor.

    Raises:
        ValueError: no value of some factor is held by two examples.
    """
    found = []
    for k in range(factors.shape[1]):
        _, inverse, counts = np.unique(factors[:, k], return_inverse=True, return_counts=True)
        kept = np.flatnonzero(counts[inverse] > 1)
        if not len(kept):
            raise ValueError(f"{_OWNER} needs two examples that share a value of factor {k}, found none")
        order = kept[np.argsort(inverse[kept], kind="stable")]
        count = counts[inverse[order]]
        start = np.searchsorted(inverse[order], inverse[order], side="left")
        found.append(_Group(order, start, count))
    return found


def _votes(
    z: np.ndarray, groups: Sequence[_Group], batch_size: int, num_votes: int, rng: np.random.Generator
) -> np.ndarray:
    """How often each latent varied least while each factor was shared: (K, D) int."""
    shared = np.bincount(rng.integers(len(groups), size=num_votes), minlength=len(groups))
    votes = np.zeros((len(groups), z.shape[1]), dtype=np.int64)
    for k, group in enumerate(groups):
        for begun in range(0, shared[k], _VOTES_AT_ONCE):
            size = min(_VOTES_AT_ONCE, shared[k] - begun)
            place = rng.integers(len(group.order), size=(size, 1))
            inside = (rng.random((size, batch_size)) * group.count[place]).astype(np.int64)
            least = z[group.order[group.start[place] + inside]].var(1, ddof=1).argmin(1)  # (size,)
            votes[k] += np.bincount(least, minlength=z.shape[1])
    return votes


def _with_noise_of(num_votes: int, blocks: np.ndarray, variance: float, used: int) -> np.ndarray:
    """Accuracies on blocks, drawn together or apart until they spread as if `num_votes` and not `used` had been cast.

    Args:
        num_votes: over all blocks.
        blocks: (n,) accuracies.
        variance: of a vote.
        used: votes behind them.
    """
    found = float(blocks.var(ddof=1)) / len(blocks)
    wanted = max(found - variance / used, 0.0) + variance / num_votes
    return np.asarray(blocks.mean() + (blocks - blocks.mean()) * np.sqrt(wanted / found if found > 0.0 else 1.0))


def _accuracy(votes: np.ndarray, answer: np.ndarray) -> float:
    """Share of votes that the map from latents to factors gets right."""
    return float(votes[answer, np.arange(votes.shape[1])].sum() / votes.sum())
