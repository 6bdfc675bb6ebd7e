"""The suite's self-check: every quality metric ranks the controls as what they are."""

from __future__ import annotations

import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.features import build_features, extract
from genbench.core.metric import Evidence, FactorEvidence, FeatureEvidence, build_metric
from genbench.core.record import Score
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation.extraction import read_factors
from genbench.evaluation.reference import reference_statistics
from genbench.harness.controls import control_samples
from genbench.harness.evidence import subset
from genbench.prob.pixels import to_rgb

METRICS = ("frechet_distance", "kernel_distance", "precision_recall", "mode_coverage")
NAMES = ("real", "train_copy", "jpeg", "blur", "mean_image", "noise")
COUNT = 512


def _scores(resolution: int) -> dict[str, dict[str, Score]]:
    """Scores of every control, by control and name."""
    ref = parse_ref(f"shapes[resolution={resolution}]")
    data, extractor = build_dataset(ref), build_features(Ref(name="shapes_net"))
    held_out, train = subset(data, "test", COUNT).x, subset(data, "train", 2 * COUNT).x
    reference = extract(extractor, train)
    statistics = reference_statistics(ref, data, extractor, extractor_ref=Ref(name="shapes_net"))
    training = torch.from_numpy(data.combinations("train"))
    found = {}
    for name in NAMES:
        samples = control_samples(name, held_out, train, data.spec, generator=torch.Generator().manual_seed(0))
        evidence = Evidence(
            features=FeatureEvidence(
                samples=extract(extractor, to_rgb(samples, 256)),
                reference=reference,
                statistics=statistics,
                extractor="shapes_net",
                protocol=extractor.protocol(),
            ),
            factors=FactorEvidence(samples=read_factors(extractor, samples), training=training),
        )
        scores = [score for metric in METRICS for score in build_metric(Ref(name=metric)).compute(evidence)]
        found[name] = {score.name: score for score in scores}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_held_out_data_are_best_and_noise_is_worst_in_every_metric(resolution):
    found = _scores(resolution)
    for name in found["real"]:
        sign = -1.0 if found["real"][name].better == "lower" else 1.0
        goodness = {control: sign * scores[name].value for control, scores in found.items()}
        slack = 2 * max(found["real"][name].stderr or 0.0, found["train_copy"][name].stderr or 0.0)
        assert all(goodness["noise"] <= goodness[control] for control in NAMES), (name, goodness)
        # A copy of the training set may tie with held-out data, or lead by being part of the reference.
        damaged = max(goodness[control] for control in ("jpeg", "blur", "mean_image", "noise"))
        assert goodness["real"] >= damaged - slack, (name, goodness)
    assert found["real"]["fd_shapes_net"].value * 3 < found["blur"]["fd_shapes_net"].value
    assert found["mean_image"]["fd_shapes_net"].value < found["noise"]["fd_shapes_net"].value
