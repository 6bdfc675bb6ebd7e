"""Score samples that were made elsewhere: no model, no training, the same metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Split
from genbench.core.errors import SampleError, SettingError
from genbench.core.features import Statistics
from genbench.core.metric import METRICS, Metric, Need, build_metric, scores_or_reason
from genbench.core.record import Score
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation.extraction import Tell, silent
from genbench.evaluation.gathering import Gathering
from genbench.evaluation.nearest import NearestSamples
from genbench.evaluation.networks import Networks, chosen_roles
from genbench.evaluation.options import Options
from genbench.evaluation.prompt_scores import PromptScores
from genbench.evaluation.prompts import Captions, ReferenceCaptions
from genbench.evaluation.sides import FEATURES_GIVEN, Given, Side, read_reference, read_side

SCHEMA = "genbench.evaluate/1"
DEFAULT_METRICS = ("frechet_distance", "kernel_distance", "precision_recall", "inception_score", "mode_coverage")
DEFAULT_FEATURES = "shapes_net"
_SHOWN = frozenset(
    {"value", "ci95", "kind", "better", "num_samples", "num_reference", "protocol", "unit", "stderr", "interval"}
)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores, the metrics that do not apply with their reasons, and what is odd about the samples."""

    scores: tuple[Score, ...]
    skipped: dict[str, str]
    warnings: tuple[str, ...] = ()
    nearest: NearestSamples | None = None
    """The samples nearest to the reference, where they were asked for."""
    prompt_scores: PromptScores | None = None
    """How well each sample shows its own words, where that was asked for."""

    def document(self) -> dict[str, object]:
        """The JSON that `genbench evaluate --json` writes."""
        scores = {score.name: score.model_dump(mode="json", include=set(_SHOWN)) for score in self.scores}
        return {"schema": SCHEMA, "scores": scores, "skipped": self.skipped, "warnings": list(self.warnings)}

    def score(self, name: str) -> Score:
        """The score of that name.

        Raises:
            KeyError: there is none; the message says why if its metric was skipped.
        """
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(f"no score `{name}`; skipped: {self.skipped}")


def evaluate(
    samples: Given,
    reference: Given,
    *,
    metrics: str | Sequence[str | Ref] = DEFAULT_METRICS,
    features: str | Ref = DEFAULT_FEATURES,
    perceptual: str | Ref | None = None,
    text_encoder: str | Ref | None = None,
    split: Split | None = None,
    held_out: Given | None = None,
    originals: Given | None = None,
    captions: Captions | None = None,
    reference_captions: ReferenceCaptions | None = None,
    num_reference: int = 10_000,
    num_nearest: int = 0,
    each_prompt: bool = False,
    device: str = "cpu",
    caching: bool = True,
    tell: Tell = silent,
) -> Evaluation:
    """Score samples against a reference with every metric that applies.

    Args:
        samples: a folder, zip, tar, npz, npy or pt file of images, a data set's name, a statistics file, images
            (N, C, H, W) or (N, H, W, C) uint8, or features (N, F) float with `features="given"`.
        reference: real training data, in any of the same forms.
        metrics: names with settings, such as `precision_recall[k=5]`, in a list or one text with commas; `all` for
            every metric.
        features: the extractor, with settings, or `given`.
        perceptual: the extractor of perceptual distances; None: `lpips`. Metrics that need a network which nobody named
            are skipped where it cannot be had; a mistake in one that was named is an error.
        text_encoder: the extractor that compares pictures and captions; None: `clip`.
        split: of the reference; None: `train` of a data set known by name and of a folder or file that holds `train`
            and `test`, everything of any other.
        held_out: real data that no model has been trained on; None: the split `test` of such a reference.
        originals: the pictures that the samples reconstruct, in the same order.
        captions: what each sample was asked to show, in the order of the samples or by the name of its file; None: what
            the samples carry, in a tar or in files beside the pictures of a folder.
        reference_captions: other captions of the same, one or several for each sample, in the same forms.
        num_reference: reference examples behind the metrics that compare features one by one, at most; moments use
            up to 50,000.
        num_nearest: how many of the samples nearest to the reference to list, with the pictures of the first, looked
            for among up to 50,000 reference examples; 0 for none.
        each_prompt: whether to say how well each sample shows its own words, beside the metrics.
        device: where the extractors live.
        caching: whether features are looked up and kept, by content, under `GENBENCH_CACHE`.
        tell: told of progress.

    Returns:
        Scores in the order of the metrics. A metric that cannot apply stands in `skipped` with its reason.

    Raises:
        SampleError: samples or a reference of another type, samples and reference do not fit each other, no metric
            applies, or what is nearest, or each prompt, was asked for and there are no features, or captions, to tell.
        DataError: one of them cannot be read.
        UnknownName, SettingError: a metric or an extractor is not known, or not so, or there is no such device.
    """
    _check_types({"samples": samples, "reference": reference}, held_out=held_out, originals=originals)
    chosen = chosen_metrics(metrics)
    extractor = _ref(features)
    roles = chosen_roles(extractor, perceptual=perceptual, text_encoder=text_encoder)
    given = extractor.name == FEATURES_GIVEN
    drawn = read_side(samples, split=None, features_given=given, assumed=extractor.name)
    real = read_reference(reference, split=split, features_given=given, assumed=extractor.name)
    others = [
        None if side is None else read_side(side, split=None, features_given=given, assumed=extractor.name)
        for side in (held_out, originals)
    ]
    _check_shapes(drawn, real)
    gathering = Gathering(
        drawn,
        real,
        held_out=others[0],
        originals=others[1],
        networks=Networks(roles, torch.device(device)),
        options=Options(
            num_reference=num_reference,
            captions=captions,
            reference_captions=reference_captions,
            caption_prefix=shared_prefix(chosen),
            caching=caching,
            tell=tell,
        ),
    )
    return _evaluated(chosen, gathering, num_nearest, each_prompt=each_prompt)


def chosen_metrics(metrics: str | Sequence[str | Ref]) -> dict[str, Metric]:
    """Metrics by label; `all` stands for every one that is registered.

    Raises:
        SettingError: none was named.
    """
    refs = [_ref(metric) for metric in (names_in(metrics) if isinstance(metrics, str) else metrics)]
    if not refs:
        raise SettingError("no metric was named", hint=f"`all`, or some of {', '.join(METRICS.names())}")
    if any(ref.name == "all" for ref in refs):
        refs = [Ref(name=name) for name in METRICS.names()]
    return {ref.label: build_metric(ref) for ref in refs}


def names_in(text: str) -> list[str]:
    """Names at top-level commas: settings in brackets hold commas of their own."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
    """Each reason once, with the metrics that it skips, in the order in which they were first told."""
    told: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        told.setdefault(reason, []).append(name)
    return told


def nothing_applies(skipped: Mapping[str, str]) -> SampleError:
    """The error of an evaluation of which no metric is left."""
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason(skipped).items())
    return SampleError(f"no metric applies: {reasons}")


def shared_prefix(chosen: dict[str, Metric]) -> str:
    """The words that all metrics of captions put before them.

    Raises:
        SettingError: they ask for different ones, and captions are embedded once.
    """
    prefixes = {name: metric.caption_prefix for name, metric in chosen.items() if Need.CAPTIONS in metric.needs}
    if len(set(prefixes.values())) > 1:
        raise SettingError(f"{', '.join(prefixes)} put different words before a caption", hint="run them one by one")
    return next(iter(prefixes.values()), "")


def _evaluated(chosen: dict[str, Metric], gathering: Gathering, num_nearest: int, *, each_prompt: bool) -> Evaluation:
    also = _needed_for_nearest(gathering) if num_nearest else frozenset()
    reason = gathering.why_not(Need.CAPTIONS) if each_prompt else None
    if reason is not None:
        raise SampleError(f"prompts cannot be scored one by one: {reason}")
    scores, skipped = score_all(chosen, gathering, also=also)
    if not scores:
        raise nothing_applies(skipped)
    nearest = gathering.nearest(num_nearest) if num_nearest else None
    each = gathering.prompt_scores() if each_prompt else None
    return Evaluation(scores, skipped, gathering.warnings(), nearest, each)


def _needed_for_nearest(gathering: Gathering) -> frozenset[Need]:
    """Features of both sides, and of held-out data where there are any.

    Raises:
        SampleError: there are no features.
    """
    reason = gathering.why_not(Need.FEATURES)
    if reason is not None:
        raise SampleError(f"samples near to the reference cannot be listed: {reason}")
    return frozenset(need for need in (Need.FEATURES, Need.HELD_OUT) if gathering.why_not(need) is None)


def score_all(
    chosen: dict[str, Metric], gathering: Gathering, *, also: frozenset[Need] = frozenset()
) -> tuple[tuple[Score, ...], dict[str, str]]:
    """Scores of every metric that applies, and why the others do not.

    Args:
        chosen: metrics by label.
        gathering: of the samples.
        also: what is needed for something else, to be gathered in the same pass.
    """
    skipped = inapplicable(chosen, [gathering])
    applied = {name: metric for name, metric in chosen.items() if name not in skipped}
    evidence = gathering.evidence(also.union(*(metric.needs for metric in applied.values())))
    scores: list[Score] = []
    for name, metric in applied.items():
        found = scores_or_reason(metric, evidence)
        if isinstance(found, str):
            skipped[name] = found
        else:
            scores += found
    return tuple(scores), skipped


def inapplicable(chosen: dict[str, Metric], gatherings: Sequence[Gathering]) -> dict[str, str]:
    """Why metrics do not apply to all of the gatherings; those that do are left out."""
    skipped: dict[str, str] = {}
    for name, metric in chosen.items():
        reasons = (gathering.why_not(need) for need in sorted(metric.needs) for gathering in gatherings)
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is not None:
            skipped[name] = reason
    return skipped


def _check_types(needed: Mapping[str, object], **others: object) -> None:
    """Refuse what is of no type that a side may have, without printing its values."""
    for name, given in {**needed, **{name: given for name, given in others.items() if given is not None}}.items():
        if isinstance(given, str | Path | Ref | Tensor | np.ndarray | Statistics):
            continue
        count = f" of {len(given)}" if isinstance(given, list | tuple) else ""
        raise SampleError(
            f"`{name}` is a {type(given).__name__}{count}, expected a path, a data set's name, an array, a tensor or "
            "statistics",
            hint="put arrays of one shape together with `np.stack` or, along their first axis, `np.concatenate`",
        )


def _check_shapes(drawn: Side, real: Side) -> None:
    """Refuse sides that cannot be compared at all."""
    if drawn.dataset is not None and real.dataset is not None:
        mine, theirs = drawn.dataset.spec.shape, real.dataset.spec.shape
        if mine[-2:] != theirs[-2:]:
            raise SampleError(
                f"samples have shape {mine}, the reference {theirs}",
                hint=f"give both one size, for example `folder:PATH[resolution={theirs[-1]}]`",
            )
    widths = [_width(side) for side in (drawn, real)]
    if None not in widths and widths[0] != widths[1]:
        raise SampleError(f"features of the samples have length {widths[0]}, those of the reference {widths[1]}")


def _width(side: Side) -> int | None:
    if side.features is not None:
        return side.features.shape[1]
    return None if side.statistics is None or side.dataset is not None else len(side.statistics.mean)


def _ref(given: str | Ref) -> Ref:
    return given if isinstance(given, Ref) else parse_ref(given)
