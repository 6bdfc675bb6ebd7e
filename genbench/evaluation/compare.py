"""Is one set of samples better than another? Paired differences on a shared reference, with intervals and p-values.

Rows fall into `GROUPS` random groups. Leaving out group g of both sample sets and of the reference at once gives the
difference d_g of every metric; their spread is the delete-a-group jackknife's

    SE^2 = (G - 1)/G sum_g (d_g - mean d)^2

(Shao and Wu 1989, Annals of Statistics 17(3)), in which whatever both sides share, the reference and row-by-row pairs,
cancels as it should. The interval and the p-value are Student's with G - 1 degrees of freedom; p-values are adjusted
over metrics by Holm's rule.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from genbench.core.errors import SampleError
from genbench.core.metric import Evidence, Metric, Need, scores_or_reason
from genbench.core.record import Better
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation.evaluate import (
    DEFAULT_FEATURES,
    DEFAULT_METRICS,
    chosen_metrics,
    inapplicable,
    nothing_applies,
    shared_prefix,
)
from genbench.evaluation.extraction import Tell, silent
from genbench.evaluation.gathering import Gathering
from genbench.evaluation.networks import Networks, chosen_roles
from genbench.evaluation.options import Options
from genbench.evaluation.prompts import Captions, ReferenceCaptions
from genbench.evaluation.sides import FEATURES_GIVEN, Given, Side, read_reference, read_side
from genbench.prob.multiple_tests import holm

SCHEMA = "genbench.compare/1"
GROUPS = 20
_GROUP_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """One score of both sets, and what can be said of the difference."""

    name: str
    better: Better
    first: float
    second: float
    difference: float
    """First minus second."""
    stderr: float
    ci95: tuple[float, float]
    p_value: float
    """Of no difference, two-sided."""
    p_adjusted: float
    """The same after Holm's adjustment over all scores of the comparison."""

    @property
    def winner(self) -> str:
        """`first`, `second` or `tie`: at 5 % after adjustment."""
        if self.p_adjusted >= 0.05:
            return "tie"
        return "first" if (self.difference > 0) == (self.better == "higher") else "second"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Differences, and the metrics that do not apply with their reasons."""

    differences: tuple[Difference, ...]
    skipped: dict[str, str]
    num_samples: int
    how: str
    warnings: tuple[str, ...] = ()
    """What is odd about either set."""

    def document(self) -> dict[str, object]:
        """The JSON that `genbench compare --json` writes."""
        rows = {d.name: {**dataclasses.asdict(d), "winner": d.winner} for d in self.differences}
        return {
            "schema": SCHEMA,
            "scores": rows,
            "skipped": self.skipped,
            "num_samples": self.num_samples,
            "how": self.how,
            "warnings": list(self.warnings),
        }


def compare_samples(
    first: Given,
    second: Given,
    reference: Given,
    *,
    metrics: Sequence[str | Ref] = DEFAULT_METRICS,
    features: str | Ref = DEFAULT_FEATURES,
    perceptual: str | Ref | None = None,
    text_encoder: str | Ref | None = None,
    held_out: Given | None = None,
    originals: Given | None = None,
    captions: Captions | None = None,
    reference_captions: ReferenceCaptions | None = None,
    num_reference: int = 10_000,
    groups: int = GROUPS,
    device: str = "cpu",
    caching: bool = True,
    tell: Tell = silent,
) -> Comparison:
    """Compare two sets of samples on one reference; the larger set is cut to the size of the smaller.

    Args:
        first: samples, in any form that `evaluate` takes.
        second: other samples; row i is taken as paired with row i of the first.
        reference: real training data.
        metrics: names with settings.
        features: the extractor, or `given`.
        perceptual: as in `evaluate`.
        text_encoder: as in `evaluate`.
        held_out: as in `evaluate`.
        originals: as in `evaluate`.
        captions: as in `evaluate`, shared by both; None: what each of the two carries.
        reference_captions: as in `evaluate`, shared by both.
        num_reference: as in `evaluate`.
        groups: of the jackknife; at least 2 rows must fall into each.
        device: where the extractors live.
        caching: whether features are looked up and kept.
        tell: told of progress.

    Raises:
        SampleError: the sides do not fit, too few samples for the groups, or no metric applies.
    """
    ref = features if isinstance(features, Ref) else parse_ref(features)
    given = ref.name == FEATURES_GIVEN
    chosen = chosen_metrics(metrics)

    def read(side: Given) -> Side:
        return read_side(side, split=None, features_given=given, assumed=ref.name)

    real = read_reference(reference, split=None, features_given=given, assumed=ref.name)
    others = [None if side is None else read(side) for side in (held_out, originals)]
    roles = chosen_roles(ref, perceptual=perceptual, text_encoder=text_encoder)
    networks = Networks(roles, torch.device(device))
    options = Options(
        num_reference=num_reference,
        captions=captions,
        reference_captions=reference_captions,
        caption_prefix=shared_prefix(chosen),
        caching=caching,
        tell=tell,
    )
    gatherings = [
        Gathering(side, real, held_out=others[0], originals=others[1], networks=networks, options=options)
        for side in (read(first), read(second))
    ]
    for gathering in gatherings:
        if gathering.samples.dataset is None and gathering.samples.features is None:
            raise SampleError("only moments of the samples are known; a difference needs pictures or features")
    skipped = inapplicable(chosen, gatherings)
    applied = {name: metric for name, metric in chosen.items() if name not in skipped}
    needs: frozenset[Need] = frozenset().union(*(metric.needs for metric in applied.values()))
    whole = [_in_file_order(gathering.evidence(needs), gathering.samples) for gathering in gatherings]
    both = _cut(whole)
    done = _compared(applied, both, skipped, groups)
    odd = [f"{gathering.samples.label}: {said}" for gathering in gatherings for said in gathering.warnings()]
    for gathering, evidence in zip(gatherings, whole, strict=True):
        if _num_samples(evidence) > done.num_samples:
            rest = f"{_num_samples(evidence) - done.num_samples} of {_num_samples(evidence)} samples"
            odd.append(f"{gathering.samples.label}: the last {rest} are left out, so that both sides have as many")
    return dataclasses.replace(done, warnings=tuple(dict.fromkeys(odd)))


def _compared(applied: dict[str, Metric], both: list[Evidence], skipped: dict[str, str], groups: int) -> Comparison:
    count = min(_num_samples(evidence) for evidence in both)
    if count < 2 * groups:
        raise SampleError(f"{count} samples are too few for {groups} groups of at least 2, expected {2 * groups}")
    whole = _values(applied, both, skipped)
    if not whole:
        raise nothing_applies(skipped)
    still = {name: metric for name, metric in applied.items() if name not in skipped}
    left_out: list[dict[str, tuple[float, float, Better]]] = []
    for group in range(groups):
        lost: dict[str, str] = {}
        left_out.append(_values(still, [_without(evidence, group, groups) for evidence in both], lost))
        skipped |= {name: f"with one of {groups} groups left out: {reason}" for name, reason in lost.items()}
    names = [name for name in whole if all(name in values for values in left_out)]
    found = [_difference(name, whole[name], [values[name] for values in left_out]) for name in names]
    adjusted = holm(np.array([d.p_value for d in found]))
    kept = tuple(dataclasses.replace(d, p_adjusted=float(p)) for d, p in zip(found, adjusted, strict=True))
    how = f"jackknife over {groups} groups of samples and reference, Student's law; p-values by Holm's rule"
    return Comparison(kept, skipped, count, how)


def _values(
    metrics: dict[str, Metric], both: list[Evidence], skipped: dict[str, str]
) -> dict[str, tuple[float, float, Better]]:
    found: dict[str, tuple[float, float, Better]] = {}
    for name, metric in metrics.items():
        first, second = (scores_or_reason(metric, evidence) for evidence in both)
        if isinstance(first, str) or isinstance(second, str):
            skipped[name] = first if isinstance(first, str) else str(second)
            continue
        for mine, theirs in zip(first, second, strict=True):
            found[mine.name] = (mine.value, theirs.value, mine.better)
    return found


def _difference(
    name: str, whole: tuple[float, float, Better], left_out: list[tuple[float, float, Better]]
) -> Difference:
    first, second, better = whole
    differences = np.array([a - b for a, b, _ in left_out])
    groups = len(differences)
    stderr = math.sqrt((groups - 1) / groups * float(((differences - differences.mean()) ** 2).sum()))
    value = first - second
    half = float(stats.t.ppf(0.975, groups - 1)) * stderr
    ratio = abs(value) / stderr if stderr > 0.0 else 0.0 if value == 0.0 else math.inf
    p_value = 2.0 * float(stats.t.sf(ratio, groups - 1))
    return Difference(
        name=name,
        better=better,
        first=first,
        second=second,
        difference=value,
        stderr=stderr,
        ci95=(value - half, value + half),
        p_value=p_value,
        p_adjusted=p_value,
    )


def _num_samples(evidence: Evidence) -> int:
    """Rows of the samples, by the first kind of evidence that is there."""
    parts = [
        evidence.features.samples if evidence.features else None,
        evidence.logits.samples if evidence.logits else None,
        evidence.factors.samples.values if evidence.factors else None,
        evidence.captions.images if evidence.captions else None,
        evidence.pairs.distances if evidence.pairs else None,
        evidence.reconstructions.originals if evidence.reconstructions else None,
        evidence.reconstruction_features.originals if evidence.reconstruction_features else None,
        evidence.vectors.samples if evidence.vectors else None,
    ]
    return next((len(part) for part in parts if part is not None), 0)


def _in_file_order(evidence: Evidence, side: Side) -> Evidence:
    """Rows of samples as they stand in their file or folder, which splits may have taken apart."""
    if side.dataset is None:
        return evidence
    order = torch.from_numpy(np.argsort(side.pictures().file_order()))
    return _changed(evidence, lambda rows: rows[order], apart=_NOT_BY_PICTURE)


def _cut(both: list[Evidence]) -> list[Evidence]:
    """Both with as many samples as the smaller has: biases that depend on the count are then the same."""
    count = min(_num_samples(evidence) for evidence in both)
    return [_changed(evidence, lambda rows: rows[:count]) for evidence in both]


def _without(evidence: Evidence, group: int, groups: int) -> Evidence:
    """Evidence without the rows of one group, of samples and of reference alike."""

    def kept(rows: Tensor) -> Tensor:
        return rows[_outside(len(rows), group, groups)]

    return _changed(evidence, kept, real=kept)


def _changed(
    evidence: Evidence,
    sample: Callable[[Tensor], Tensor],
    *,
    real: Callable[[Tensor], Tensor] | None = None,
    apart: frozenset[str] = frozenset(),
) -> Evidence:
    """Evidence with its rows of samples, and of the reference where `real` is given, put through a function.

    Args:
        evidence: to be changed.
        sample: of rows of samples.
        real: of rows of the reference; None leaves them.
        apart: kinds of evidence that are left as they are.
    """
    changes: dict[str, object] = {}
    for name, cuts in {**_SAMPLES, **_REFERENCES}.items():
        part = vars(evidence)[name]
        if part is None or name in apart:
            continue
        rows = {field: vars(part)[field] for field in cuts if vars(part)[field] is not None}
        kept = {field: sample(value) for field, value in rows.items() if field != "reference"}
        if "reference" in rows and real is not None:
            kept["reference"] = real(rows["reference"])
        changes[name] = dataclasses.replace(part, **kept)
    if evidence.factors is not None:
        read, asked = evidence.factors.samples, evidence.factors.asked
        changes["factors"] = dataclasses.replace(
            evidence.factors,
            samples=dataclasses.replace(read, values=sample(read.values), confidence=sample(read.confidence)),
            asked=None if asked is None else sample(asked),
        )
    return dataclasses.replace(evidence, **changes)  # type: ignore[arg-type]


_REFERENCES = {
    "features": ("samples", "reference"),
    "spatial": ("samples", "reference"),
    "vectors": ("samples", "reference"),
}
_SAMPLES = {
    "logits": ("samples",),
    "pairs": ("distances",),
    "class_pairs": ("distances", "classes"),
    "reconstructions": ("originals", "reconstructions", "distances"),
    "reconstruction_features": ("originals", "reconstructions"),
    "captions": ("images", "texts", "references"),
    "labels": ("asked", "logits"),
}


_NOT_BY_PICTURE = frozenset({"pairs", "class_pairs", "reconstructions", "reconstruction_features", "vectors"})
"""Rows that are pairs of pictures, stand in file order already, or are no pictures."""


def _outside(count: int, group: int, groups: int) -> Tensor:
    """Whether each row is outside the group: (count,) bool; groups are equal in size, up to one row, and random."""
    return torch.from_numpy(np.random.default_rng(_GROUP_SEED).permutation(count) % groups != group)
