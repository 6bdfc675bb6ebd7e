"""Every metric against closed forms, invariances, ladders and a null: synthetic evidence, no data and no networks.

- Closed forms: evidence whose score is known from a formula.
- Invariances: what may be done to the evidence without any change, for example another order of the rows.
- Ladders: Gaussian features that get worse step by step; the number of steps on which a score does not.
- Nulls: random halves of one Gaussian sample differ by noise alone, so that 95 % intervals miss in about 5 of 100.

A check passes when what it measures is within its tolerance of what is expected.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from genbench.core.errors import UnknownName
from genbench.core.features import Statistics
from genbench.core.metric import (
    METRICS,
    Evidence,
    FeatureEvidence,
    build_metric,
)
from genbench.core.record import Score
from genbench.core.spec import parse_ref
from genbench.evaluation.known_scores import EXACT, known_scores
from genbench.prob.intervals import Z95

SCHEMA = "genbench.selftest/1"
NUM_HALVES = 100
_NET = "made_up"
_DIGITS = 9
"""Decimals of a measured number that enter the digest: rounding differs between machines below them."""

Change = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What became of one check."""

    name: str
    passed: bool
    """True also where the check was skipped."""
    measured: float | None
    """None where nothing could be measured; `note` says why."""
    expected: float
    tolerance: float
    skipped: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One question to one metric, and its answer."""

    name: str
    metric: str
    """Registered name."""
    measure: Callable[[], float]
    expected: float
    tolerance: float = EXACT

    def run(self) -> CheckResult:
        """Measure; a metric that nobody registered is skipped, one that raises has failed."""
        try:
            METRICS.get(self.metric)
        except UnknownName as error:
            return self._result(None, passed=True, skipped=True, note=str(error))
        try:
            measured = float(self.measure())
        except Exception as error:  # whatever a broken metric raises is a finding, not the end of the test
            return self._result(None, passed=False, note=f"{type(error).__name__}: {error}")
        return self._result(measured, passed=abs(measured - self.expected) <= self.tolerance)

    def _result(self, measured: float | None, *, passed: bool, skipped: bool = False, note: str = "") -> CheckResult:
        name, expected, tolerance = f"{self.metric}: {self.name}", self.expected, self.tolerance
        return CheckResult(name, passed, measured, expected, tolerance, skipped, note)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTest:
    """All results, sorted by name."""

    results: tuple[CheckResult, ...]
    unchecked: tuple[str, ...]
    """Registered metrics that no check asks anything."""

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(result.passed for result in self.results)

    @property
    def sha256(self) -> str:
        """Digest of names, verdicts and numbers, the latter rounded so that machines agree; 64 hex digits."""
        lines = [
            [found.name, found.passed, found.skipped, _rounded(found.measured), found.expected, found.tolerance]
            for found in self.results
        ]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    def document(self) -> dict[str, object]:
        """The JSON that `genbench selftest --json` writes."""
        return {"schema": SCHEMA, "sha256": self.sha256, "passed": self.passed, **dataclasses.asdict(self)}


def selftest(checks: Iterable[Check] | None = None) -> SelfTest:
    """Run all checks, or those given."""
    asked = tuple(all_checks() if checks is None else checks)
    results = sorted((check.run() for check in asked), key=lambda result: result.name)
    unchecked = sorted(set(METRICS.files()) - {check.metric for check in asked})
    return SelfTest(results=tuple(results), unchecked=tuple(unchecked))


def all_checks() -> Iterator[Check]:
    """Every check, in the order of the module's docstring."""
    forms = (_moment_forms, _feature_forms, _copy_forms, _forms_without_features)
    for part in (*forms, _invariances, _ladders, _nulls):
        yield from part()


def _moment_forms() -> Iterator[Check]:
    a, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([[3.0, -1.0], [-1.0, 1.0]])
    root = math.sqrt(np.trace(a @ b) + 2.0 * math.sqrt(np.linalg.det(a @ b)))  # tr sqrt(AB) of 2 x 2 matrices
    line, other = np.outer([1.0, 2.0], [1.0, 2.0]), np.outer([3.0, -1.0], [3.0, -1.0])
    zero, x = np.zeros(2), _normal(300, 8)
    moved = _features(_moments(np.full(4, 1.5), 4.0 * np.eye(4)), _moments(np.zeros(4), np.eye(4)))
    turned = _features(_moments(zero, a), _moments(zero, b))
    flat = _features(_moments(zero, line), _moments(zero, other))
    for metric in ("frechet_distance", "spatial_frechet_distance"):
        yield _known(metric, "|dmu|^2 + F (s - 1)^2 of a shift and a scale", moved, 13.0)
        yield _known(metric, "covariances that do not commute", turned, np.trace(a + b) - 2.0 * root)
        yield _known(metric, "covariances of rank 1", flat, 13.0, tolerance=1e-6)  # errs by roots of rounding
        yield _known(metric, "a set and itself, 0 .. 1e-9", _features(x, x), EXACT / 2, tolerance=EXACT / 2)
    away = _features(_normal(4000, 8), _moments(np.full(8, 0.5), np.eye(8)))
    yield _known("frechet_infinity[preset=dgm-eval]", "a shift, without bias", away, 2.0, tolerance=0.2)


def _feature_forms() -> Iterator[Check]:
    axes, x = torch.eye(6, dtype=torch.float64), _normal(200, 4)
    yield _known("kernel_distance", "two points each", _features(_column(0.0, 2.0), _column(1.0, 1.0)), -19.0)
    gap = _features(axes[:1].repeat(2, 1), axes[1:2].repeat(2, 1))
    yield _known("cmmd", "two directions", gap, 2000.0 * (1.0 - math.exp(-0.01)))
    moved = _features(x[:, :1], x[:, :1] + 3.0)
    yield _known("mind", "a shift by 3 on a line", moved, 27.0)
    yield _known("sliced_wasserstein", "a shift by 3 on a line", moved, 3.0)
    yield _known("vendi_score", "orthogonal vectors", _features(axes, axes), 6.0)
    same, apart = _features(x, x), _features(x, x + 1000.0)
    for name in ("precision", "recall", "density", "coverage"):
        yield _known("precision_recall", "equal sets", same, 1.0, score=name)
        yield _known("precision_recall", "disjoint sets", apart, 0.0, score=name)
    levels = np.linspace(0.0, 1.0, 30)
    within = (np.floor(levels * (len(x) - 1)) + 1.0) / len(x)  # a sample on the edge counts
    alpha = 1.0 - 2.0 / 29.0 * float(np.abs(levels - within).sum())
    yield _known("alpha_precision", "equal sets", same, alpha, score="alpha_precision")
    yield _known("alpha_precision[preset=synthcity]", "disjoint sets", apart, 0.0, score="beta_recall")
    off = _features(_column(*[14.0] * 5), _column(*range(10)))  # 5 from 9, whose ball reaches to 6
    yield _known("realism[preset=kynkaat]", "a point off a line", off, 0.36, tolerance=1e-5)


def _copy_forms() -> Iterator[Check]:
    train, unseen, fresh = _normal(300, 6, seed=1), _normal(300, 6, seed=2), _normal(300, 6, seed=3)
    copies, clean = _features(train, train, unseen), _features(fresh, train, unseen)
    quarter = _features(torch.cat([train[:75], fresh[75:]]), train, unseen)
    yield _known("authenticity", "copies", copies, 0.0)
    yield _known("mifid", "copies", copies, 0.0, score="memorisation_distance")
    yield _known("duplicates", "a quarter of copies", quarter, 0.25, score="exact_duplicates")
    yield _known("neighbour_ratio", "copies", copies, 1.0, score="closer_to_train")
    yield _known("copying_test", "copies, below 0.001", copies, 5e-4, score="copying_p", tolerance=5e-4)
    fld = "feature_likelihood_divergence"
    yield _check(fld, "steps to copies that do not make it worse", lambda: _wrong_steps(fld, "fld", [clean, copies]), 0)


def _forms_without_features() -> Iterator[Check]:
    for known in known_scores():
        yield _known(
            known.metric, known.what, known.evidence, known.value, score=known.score, tolerance=known.tolerance
        )


_BY_DISTANCES = ("alpha_precision", "authenticity", "duplicates", "neighbour_ratio", "precision_recall", "realism")
_BY_PRODUCTS = ("kernel_distance", "cmmd", "mifid", "vendi_score")
_RIGID = ("frechet_distance", "spatial_frechet_distance", *_BY_DISTANCES)
_BY_ROWS = (*_RIGID, *_BY_PRODUCTS, "mind", "sliced_wasserstein")
"""Metrics of features that draw none of them at random, at least from sets of one size."""
_REPEATABLE = ("cmmd", "frechet_distance[ddof=0]", "mind", "sliced_wasserstein", "vendi_score")
_DISTANCES = {"frechet_distance": "fd", "kernel_distance": "kd", "mind": "mind", "sliced_wasserstein": "sw"}
"""And what their scores are called."""


def _invariances() -> Iterator[Check]:
    rotation = torch.linalg.qr(_normal(6, 6, seed=9)).Q
    plans: tuple[tuple[str, Change, Sequence[str]], ...] = (
        ("another order of the rows", _shuffled, _BY_ROWS),
        ("rotated and shifted features", lambda rows: rows @ rotation + 3.0, _RIGID),
        ("rotated features", lambda rows: rows @ rotation, _BY_PRODUCTS),
        ("every row twice", lambda rows: torch.cat([rows, rows]), _REPEATABLE),
    )
    for what, change, metrics in plans:
        for metric in metrics:
            yield _check(metric, f"unchanged by {what}", partial(_largest_change, metric, change), 0.0)


def _shuffled(rows: Tensor) -> Tensor:
    """In an order of its own for each set: rows of two sets must not stay side by side."""
    seed = int(1e6 * float(rows[0, 0].abs()))
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]


def _largest_change(metric: str, change: Change) -> float:
    """Of all scores of a metric, relative to those above 1."""
    sets = _normal(120, 6, seed=1) + 0.3, _normal(120, 6, seed=2), _normal(120, 6, seed=3)
    before = _scores(metric, _features(*sets))
    after = _scores(metric, _features(*(change(part) for part in sets)))
    return max(abs(a.value - b.value) / max(1.0, abs(b.value)) for a, b in zip(after, before, strict=True))


def _ladders() -> Iterator[Check]:
    base, real = _normal(600, 6, seed=4), _normal(600, 6, seed=5)
    centres, modes = 6.0 * torch.eye(6, dtype=torch.float64), torch.arange(600) % 6
    mixture = real + centres[modes]
    rungs = {
        "a shift": [_features(base + step, real) for step in (0.0, 0.5, 1.0, 1.5, 2.0)],
        "a scale": [_features(base * step, real) for step in (1.0, 1.3, 1.7, 2.5, 4.0)],
        "dropped clusters": [_features(base + centres[modes % kept], mixture) for kept in (6, 4, 3, 2, 1)],
    }
    climbs = [(metric, f"{short}_{_NET}", what) for metric, short in _DISTANCES.items() for what in rungs]
    climbs += [("cmmd", f"cmmd_{_NET}", "dropped clusters")]  # it sees directions only
    climbs += [("precision_recall", name, "a shift") for name in ("precision", "density", "coverage")]
    climbs += [("precision_recall", name, "dropped clusters") for name in ("recall", "coverage")]
    climbs += [("alpha_precision", "alpha_precision", "a scale"), ("realism", "realism", "a shift")]
    climbs += [("vendi_score", f"vendi_{_NET}", "dropped clusters")]
    for metric, name, what in climbs:
        told = f"{name}: steps of {what} that do not make it worse"
        yield _check(metric, told, partial(_wrong_steps, metric, name, rungs[what]), 0.0)


def _wrong_steps(metric: str, name: str, rungs: Sequence[Evidence]) -> int:
    """Steps on which a score stays or gets better."""
    found = [_score(metric, name, rung) for rung in rungs]
    badness = [score.value if score.better == "lower" else -score.value for score in found]
    return sum(after <= before for before, after in pairwise(badness))


def _nulls() -> Iterator[Check]:
    kernel, frechet = "kernel_distance", "frechet_distance"
    yield _check(kernel, "percent of half splits whose interval misses 0, 1 .. 10", _kernel_misses, 5.5, 4.5)
    yield _check(kernel, "percent of half splits with |z| > 1.96, 0 .. 10", _kernel_alarms, 5.0, 5.0)
    yield _check(frechet, "percent of half splits whose difference has |z| > 1.96, 1 .. 10", _frechet_alarms, 5.5, 4.5)


def _halves() -> Iterator[tuple[Tensor, Tensor]]:
    pool, generator = _normal(400, 8, seed=6), torch.Generator().manual_seed(8)
    for _ in range(NUM_HALVES):
        order = torch.randperm(len(pool), generator=generator)
        yield pool[order[:200]], pool[order[200:]]


def _kernel_misses() -> float:
    found = [_score("kernel_distance", "", _features(*pair)).ci95 for pair in _halves()]
    return 100.0 * float(np.mean([ci95 is None or not ci95[0] <= 0.0 <= ci95[1] for ci95 in found]))


def _kernel_alarms() -> float:
    """Of z, the score over its standard error, whose law is skewed where the sets agree: seldom beyond 1.96."""
    found = [_score("kernel_distance", "", _features(*pair)) for pair in _halves()]
    return 100.0 * float(np.mean([abs(score.value) > Z95 * (score.stderr or 0.0) for score in found]))


def _frechet_alarms() -> float:
    """Of the difference of two halves' distances to a third, shifted set."""
    real = _normal(2000, 8, seed=7) + 0.5
    found = [[_score("frechet_distance", "", _features(half, real)) for half in pair] for pair in _halves()]
    alarms = [abs(a.value - b.value) > Z95 * math.hypot(a.stderr or 0.0, b.stderr or 0.0) for a, b in found]
    return 100.0 * float(np.mean(alarms))


def _check(metric: str, name: str, measure: Callable[[], float], expected: float, tolerance: float = EXACT) -> Check:
    """A check, with the settings of the metric moved into its name."""
    ref = parse_ref(metric)
    what = f"{name} {metric.removeprefix(ref.name)}".rstrip()
    return Check(name=what, metric=ref.name, measure=measure, expected=float(expected), tolerance=tolerance)


def _known(
    metric: str, what: str, evidence: Evidence, expected: float, *, score: str = "", tolerance: float = EXACT
) -> Check:
    """A score (the first one unless named) of evidence whose score is known."""
    name = f"{score} of {what}" if score else what
    return _check(metric, name, lambda: _score(metric, score, evidence).value, expected, tolerance)


def _score(metric: str, name: str, evidence: Evidence) -> Score:
    """The score of that name; the first one if that is empty."""
    found = _scores(metric, evidence)
    return {score.name: score for score in found}[name] if name else found[0]


def _scores(metric: str, evidence: Evidence) -> tuple[Score, ...]:
    return build_metric(parse_ref(metric)).compute(evidence)


def _features(samples: Tensor | Statistics, reference: Tensor | Statistics, held_out: Tensor | None = None) -> Evidence:
    """Both layers hold the same, as features or as moments."""
    found = FeatureEvidence(
        samples=samples if isinstance(samples, Tensor) else None,
        sample_statistics=None if isinstance(samples, Tensor) else samples,
        reference=reference if isinstance(reference, Tensor) else None,
        statistics=None if isinstance(reference, Tensor) else reference,
        held_out=held_out,
        extractor=_NET,
        protocol={},
    )
    return Evidence(features=found, spatial=found)


def _moments(mean: np.ndarray, covariance: np.ndarray) -> Statistics:
    return Statistics(mean, covariance, 10_000, {}, "none", "none", "none")


def _normal(num: int, size: int, *, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((num, size)))


def _column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def _rounded(measured: float | None) -> str:
    return "none" if measured is None else f"{round(measured, _DIGITS) + 0.0:.6g}"
