"""Score samples that were made elsewhere: no model, no training, the same metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch

from genbench.core.dataset import Split
from genbench.core.errors import SampleError, SettingError
from genbench.core.metric import METRICS, Metric, Need, build_metric
from genbench.core.record import Score
from genbench.core.spec import Ref, parse_ref
from genbench.harness.extraction import Tell, silent
from genbench.harness.gathering import Gathering
from genbench.harness.networks import Networks, Roles
from genbench.harness.options import Options
from genbench.harness.sides import FEATURES_GIVEN, Given, Side, read_side

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
    metrics: Sequence[str | Ref] = DEFAULT_METRICS,
    features: str | Ref = DEFAULT_FEATURES,
    perceptual: str | Ref = "lpips",
    text_encoder: str | Ref = "clip",
    split: Split | None = None,
    held_out: Given | None = None,
    originals: Given | None = None,
    captions: Sequence[str] | Mapping[str, str] | None = None,
    num_reference: int = 10_000,
    device: str = "cpu",
    caching: bool = True,
    tell: Tell = silent,
) -> Evaluation:
    """Score samples against a reference with every metric that applies.

    Args:
        samples: a folder, zip, tar, npz, npy or pt file of images, a data set's name, a statistics file, images
            (N, C, H, W) or (N, H, W, C) uint8, or features (N, F) float with `features="given"`.
        reference: real training data, in any of the same forms.
        metrics: names with settings, such as `precision_recall[k=5]`; `("all",)` for every metric.
        features: the extractor, with settings, or `given`.
        perceptual: the extractor of perceptual distances.
        text_encoder: the extractor that compares pictures and captions.
        split: of the reference; None: `train` of a data set known by name, everything of a file or folder.
        held_out: real data that no model has been trained on; None: the split `test` of a reference by name.
        originals: the pictures that the samples reconstruct, in the same order.
        captions: what each sample was asked to show, in the order of the samples or by the name of its file.
        num_reference: reference examples behind the metrics that compare features one by one, at most; moments use
            up to 50,000.
        device: where the extractors live.
        caching: whether features are looked up and kept, by content, under `GENBENCH_CACHE`.
        tell: told of progress.

    Returns:
        Scores in the order of the metrics. A metric that cannot apply stands in `skipped` with its reason.

    Raises:
        SampleError: samples and reference do not fit each other, or no metric applies.
        DataError: one of them cannot be read.
        UnknownName, SettingError: a metric or an extractor is not known, or not so.
    """
    chosen = chosen_metrics(metrics)
    extractor = _ref(features)
    given = extractor.name == FEATURES_GIVEN
    sides = [
        None if side is None else read_side(side, split=part, features_given=given, assumed=extractor.name)
        for side, part in ((samples, None), (reference, split), (held_out, None), (originals, None))
    ]
    drawn, real = sides[0], sides[1]
    assert drawn is not None
    assert real is not None
    _check_shapes(drawn, real)
    gathering = Gathering(
        drawn,
        real,
        held_out=sides[2],
        originals=sides[3],
        networks=Networks(
            Roles(features=extractor, perceptual=_ref(perceptual), captions=_ref(text_encoder)), torch.device(device)
        ),
        options=Options(
            num_reference=num_reference,
            captions=captions,
            caption_prefix=shared_prefix(chosen),
            caching=caching,
            tell=tell,
        ),
    )
    return _evaluated(chosen, gathering)


def chosen_metrics(metrics: Sequence[str | Ref]) -> dict[str, Metric]:
    """Metrics by label; `all` stands for every one that is registered."""
    refs = [_ref(metric) for metric in metrics]
    if any(ref.name == "all" for ref in refs):
        refs = [Ref(name=name) for name in METRICS.names()]
    return {ref.label: build_metric(ref) for ref in refs}


def shared_prefix(chosen: dict[str, Metric]) -> str:
    """The words that all metrics of captions put before them.

    Raises:
        SettingError: they ask for different ones, and captions are embedded once.
    """
    prefixes = {name: metric.caption_prefix for name, metric in chosen.items() if Need.CAPTIONS in metric.needs}
    if len(set(prefixes.values())) > 1:
        raise SettingError(f"{', '.join(prefixes)} put different words before a caption", hint="run them one by one")
    return next(iter(prefixes.values()), "")


def _evaluated(chosen: dict[str, Metric], gathering: Gathering) -> Evaluation:
    scores, skipped = score_all(chosen, gathering)
    if not scores:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise SampleError(f"no metric applies: {reasons}")
    if gathering.samples.dataset is not None:
        gathering.inspection.add_names(gathering.samples.pictures().names())
    return Evaluation(scores, skipped, (*_left_out(gathering.samples), *gathering.inspection.warnings()))


def _left_out(samples: Side) -> tuple[str, ...]:
    files = () if samples.dataset is None else samples.dataset.skipped()
    return (f"{len(files)} unreadable samples were left out: {'; '.join(files)}",) if files else ()


def score_all(chosen: dict[str, Metric], gathering: Gathering) -> tuple[tuple[Score, ...], dict[str, str]]:
    """Scores of every metric that applies, and why the others do not."""
    skipped = inapplicable(chosen, [gathering])
    applied = {name: metric for name, metric in chosen.items() if name not in skipped}
    needs: frozenset[Need] = frozenset().union(*(metric.needs for metric in applied.values()))
    evidence = gathering.evidence(needs)
    scores: list[Score] = []
    for name, metric in applied.items():
        try:
            scores += metric.compute(evidence)
        except ValueError as error:
            skipped[name] = str(error)
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
