"""The sanity test of metrics on a data set: does each move the right way, and steadily, as real data get worse?

Held-out real pictures are damaged step by step along a ladder (blur, noise, JPEG, dropped modes, duplicates, copies of
training data) and scored at every step. A metric passes a ladder when its last step is worse than the first and no
step is better than an earlier one, both beyond the noise at 95 %. Not every metric should see every ladder: precision
need not see dropped modes, and a distance between distributions is improved by copies of training data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import stats
from sklearn.cluster import KMeans
from torch import Generator, Tensor

from genbench.core.dataset import Split
from genbench.core.errors import SampleError
from genbench.core.metric import Metric
from genbench.core.record import Score
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation.damage import blurred, through_jpeg
from genbench.evaluation.evaluate import DEFAULT_FEATURES, chosen_metrics, nothing_applies, score_all
from genbench.evaluation.extraction import Tell, extract_layers, silent
from genbench.evaluation.gathering import Gathering
from genbench.evaluation.networks import Networks, Roles
from genbench.evaluation.options import Options
from genbench.evaluation.pictures import HeldImages, some_pictures
from genbench.evaluation.sides import Side, read_side
from genbench.prob.intervals import Z95

SCHEMA = "genbench.audit/1"
NUM_MODES = 10
"""Clusters that stand for modes where the data have no classes."""
_SEED = 0

Verdict = Literal["right", "wrong way", "blind", "unsteady"]


@dataclasses.dataclass(frozen=True)
class Ladder:
    """One kind of damage, from none to much."""

    name: str
    unit: str
    steps: tuple[float, ...]
    """The first is no damage."""


LADDERS = (
    Ladder("blur", "std as a share of the width", (0.0, 0.02, 0.04, 0.08, 0.16)),
    Ladder("noise", "std in grey levels", (0.0, 8.0, 16.0, 32.0, 64.0)),
    Ladder("jpeg", "100 - quality", (0.0, 40.0, 60.0, 80.0, 95.0)),
    Ladder("dropped_modes", "share of modes", (0.0, 0.25, 0.5, 0.75)),
    Ladder("duplicates", "share of samples that repeat another", (0.0, 0.25, 0.5, 0.75, 0.9)),
    Ladder("memorised", "share of samples copied from the training data", (0.0, 0.1, 0.25, 0.5, 1.0)),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """One score on every step of one ladder."""

    score: str
    better: str
    ladder: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    ci95: tuple[tuple[float, float] | None, ...]
    correlation: float
    """Spearman's, of damage and badness: 1 is steadily worse, -1 steadily better."""
    verdict: Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """All rungs, and what they were measured on."""

    reference: str
    features: str
    num_samples: int
    rungs: tuple[Rung, ...]
    skipped: dict[str, str]
    protocol: dict[str, bool | int | float | str]

    def document(self) -> dict[str, object]:
        """The JSON that `genbench audit --json` writes."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}


def audit(
    reference: str | Ref,
    *,
    held_out: str | Ref | None = None,
    metrics: Sequence[str | Ref] = ("all",),
    features: str | Ref = DEFAULT_FEATURES,
    ladders: Sequence[Ladder] = LADDERS,
    num_samples: int = 1000,
    num_reference: int = 2000,
    device: str = "cpu",
    tell: Tell = silent,
) -> Audit:
    """Climb every ladder with every metric that samples alone can be given.

    Args:
        reference: training data, a data set by name or a folder.
        held_out: real data apart from it; None: the split `test` of the reference. The undamaged samples are its first
            half, and metrics of memorisation compare with its second half.
        metrics: names with settings; `("all",)` for every one.
        features: the extractor.
        ladders: which.
        num_samples: on every step.
        num_reference: training pictures.
        device: where the extractors live.
        tell: told of progress.

    Raises:
        SampleError: there are too few pictures, or no metric applies.
        DataError: the data cannot be read.
    """
    extractor = features if isinstance(features, Ref) else parse_ref(features)
    networks = Networks(Roles(features=extractor), torch.device(device))
    clean, spare, train, labels = _material(reference, held_out, num_samples, num_reference)
    modes = _modes(clean, labels, networks)
    sides = {"reference": _side("training data", train), "held_out": _side("held-out data", spare)}
    chosen = chosen_metrics(metrics)
    skipped: dict[str, str] = {}
    results: dict[tuple[str, float], dict[str, Score]] = {}
    for index, ladder in enumerate(ladders):
        for step in ladder.steps:
            generator = torch.Generator().manual_seed(_SEED)
            images = _DAMAGES[ladder.name](clean, step, modes, train, generator)
            scores, skipped = _scores(chosen, _side(f"{ladder.name} {step:g}", images), sides, networks)
            results[ladder.name, step] = scores
        tell("ladders", index + 1, len(ladders))
    if not any(results.values()):
        raise nothing_applies(skipped)
    return Audit(
        reference=reference if isinstance(reference, str) else reference.label,
        features=extractor.label,
        num_samples=len(clean),
        rungs=tuple(rung for ladder in ladders for rung in _rungs(ladder, results)),
        skipped={name: reason.replace(str(Path.home()), "~") for name, reason in skipped.items()},
        protocol=networks.get("features").protocol(),
    )


def _material(
    reference: str | Ref, held_out: str | Ref | None, num_samples: int, num_reference: int
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Undamaged samples, other held-out pictures, training pictures, and the samples' classes."""
    train = read_side(reference, split=_split(reference, "train"), features_given=False)
    other = read_side(
        reference if held_out is None else held_out,
        split=_split(reference, "test") if held_out is None else None,
        features_given=False,
    )
    if train.dataset is None or other.dataset is None:
        raise SampleError("an audit damages pictures; a statistics file has none")
    if held_out is None and other.splits == train.splits:
        raise SampleError("the reference has no split `test`", hint="name other real data with `--held-out`")
    drawn = some_pictures(other.dataset, other.splits, 2 * num_samples)
    if len(drawn) < 40:
        raise SampleError(f"an audit needs at least 40 held-out pictures, found {len(drawn)}")
    images, labels = drawn.images(), drawn.labels()
    order = torch.from_numpy(np.random.default_rng(_SEED).permutation(len(images)))
    half = len(images) // 2
    real = some_pictures(train.dataset, train.splits, num_reference).images()
    kept = None if labels is None or len(labels.unique()) < 2 else labels[order][:half]
    return images[order][:half], images[order][half : 2 * half], real, kept


def _split(reference: str | Ref, wanted: Split) -> Split | None:
    """The split of that name, where the data have it."""
    side = read_side(reference, split=None, features_given=False)
    return wanted if side.dataset is not None and {"train", "test"} <= set(side.dataset.splits) else None


def _side(label: str, images: Tensor) -> Side:
    return Side(label=label, dataset=HeldImages(images), splits=("train",))


def _modes(clean: Tensor, labels: Tensor | None, networks: Networks) -> np.ndarray:
    """The mode of each sample: its class, or its cluster in feature space."""
    if labels is not None:
        return labels.numpy()
    pictures = some_pictures(HeldImages(clean), ("train",), len(clean))
    features = extract_layers(pictures, networks.get("features"), ("features",))["features"].double().numpy()
    return np.asarray(KMeans(n_clusters=NUM_MODES, n_init=1, random_state=_SEED).fit_predict(features))


def _scores(
    chosen: dict[str, Metric], samples: Side, sides: dict[str, Side], networks: Networks
) -> tuple[dict[str, Score], dict[str, str]]:
    gathering = Gathering(
        samples,
        sides["reference"],
        held_out=sides["held_out"],
        originals=None,
        networks=networks,
        options=Options(caching=False),
    )
    scores, skipped = score_all(chosen, gathering)
    return {score.name: score for score in scores}, skipped


def _rungs(ladder: Ladder, results: dict[tuple[str, float], dict[str, Score]]) -> list[Rung]:
    by_step = [results[ladder.name, step] for step in ladder.steps]
    rungs = []
    for name in by_step[0]:
        scores = [scores[name] for scores in by_step if name in scores]
        if len(scores) < len(ladder.steps):
            continue
        values, better = [score.value for score in scores], scores[0].better
        badness = np.array(values) * (1.0 if better == "lower" else -1.0)
        constant = float(np.ptp(badness)) == 0.0
        correlation = 0.0 if constant else float(stats.spearmanr(ladder.steps, badness).statistic)
        rungs.append(
            Rung(
                score=name,
                better=better,
                ladder=ladder.name,
                steps=ladder.steps,
                values=tuple(values),
                ci95=tuple(score.ci95 for score in scores),
                correlation=correlation,
                verdict=_verdict(scores),
            )
        )
    return rungs


def _verdict(scores: Sequence[Score]) -> Verdict:
    """What becomes of a score along a ladder, beyond the noise of its values."""
    first, last = scores[0], scores[-1]
    if _change(first, last) == 0:
        return "blind"
    changes = [_change(a, b) for index, a in enumerate(scores) for b in scores[index + 1 :]]
    if min(changes) >= 0:
        return "right"
    return "wrong way" if max(changes) <= 0 else "unsteady"


def _change(before: Score, after: Score) -> int:
    """1 where a score got worse, -1 where it got better, 0 where 95 % intervals do not tell."""
    spread = Z95 * float(np.hypot(before.stderr or 0.0, after.stderr or 0.0))
    worse = (after.value - before.value) * (1.0 if before.better == "lower" else -1.0)
    return 0 if abs(worse) <= spread else 1 if worse > 0 else -1


def _blur(clean: Tensor, step: float, modes: np.ndarray, train: Tensor, generator: Generator) -> Tensor:
    return clean if step == 0.0 else blurred(clean.float(), step).round().clamp(0, 255).to(torch.uint8)


def _noise(clean: Tensor, step: float, modes: np.ndarray, train: Tensor, generator: Generator) -> Tensor:
    noise = step * torch.randn(clean.shape, generator=generator)
    return (clean.float() + noise).round().clamp(0, 255).to(torch.uint8)


def _jpeg(clean: Tensor, step: float, modes: np.ndarray, train: Tensor, generator: Generator) -> Tensor:
    if step == 0.0:
        return clean
    packed = [through_jpeg(image, int(100 - step)) for image in clean.permute(0, 2, 3, 1).numpy()]
    return torch.from_numpy(np.stack(packed)).permute(0, 3, 1, 2).contiguous()


def _dropped_modes(clean: Tensor, step: float, modes: np.ndarray, train: Tensor, generator: Generator) -> Tensor:
    """As many pictures as before, drawn with repeats from the modes that stay."""
    names = np.unique(modes)
    stay = names[: len(names) - round(step * len(names))] if step < 1.0 else names[:1]
    rows = torch.from_numpy(np.flatnonzero(np.isin(modes, stay)))
    if len(rows) == len(clean):
        return clean
    return clean[rows[torch.randint(len(rows), (len(clean),), generator=generator)]]


def _duplicates(clean: Tensor, step: float, modes: np.ndarray, train: Tensor, generator: Generator) -> Tensor:
    distinct = max(1, len(clean) - round(step * len(clean)))
    repeats = torch.randint(distinct, (len(clean) - distinct,), generator=generator)
    return torch.cat([clean[:distinct], clean[repeats]])


def _memorised(clean: Tensor, step: float, modes: np.ndarray, train: Tensor, generator: Generator) -> Tensor:
    copies = min(round(step * len(clean)), len(train))
    rows = torch.randperm(len(train), generator=generator)[:copies]
    return torch.cat([clean[: len(clean) - copies], train[rows]])


_Damage = Callable[[Tensor, float, np.ndarray, Tensor, Generator], Tensor]
_DAMAGES: dict[str, _Damage] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "dropped_modes": _dropped_modes,
    "duplicates": _duplicates,
    "memorised": _memorised,
}
