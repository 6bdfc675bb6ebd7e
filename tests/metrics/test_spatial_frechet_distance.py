"""The Frechet distance over spatial features."""

import pytest
import torch

from genbench.core.metric import Evidence, FeatureEvidence
from genbench.metrics.frechet_distance import frechet_distance
from genbench.metrics.spatial_frechet_distance import SpatialFrechetDistance, spatial_frechet_distance


def _normal(num, size, *, seed, scale=1.0):
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed)) * scale


def _evidence(samples, reference, extractor):
    spatial = FeatureEvidence(
        samples=samples, reference=reference, statistics=None, extractor=extractor, protocol={"layer": "spatial"}
    )
    return Evidence(spatial=spatial)


@pytest.mark.parametrize(("extractor", "name"), [("inception_v3", "sfid"), ("some_net", "sfd_some_net")])
def test_score_is_the_frechet_distance_of_the_spatial_layer_under_its_own_name(extractor, name):
    x, y = _normal(300, 20, seed=0, scale=1.2), _normal(200, 20, seed=1)
    (score,) = SpatialFrechetDistance().compute(_evidence(x, y, extractor))
    expected = frechet_distance(x, y)
    assert (score.name, score.value) == (name, pytest.approx(expected.value, rel=1e-10))
    assert (score.num_samples, score.num_reference) == (300, 200)
    assert score.protocol["layer"] == "spatial"
    assert spatial_frechet_distance(x, y) == expected
    (corrected,) = SpatialFrechetDistance(bias="gaussian").compute(_evidence(x, y, extractor))
    assert corrected.name == f"{name}_corrected"
    assert corrected.value < score.value


def test_missing_spatial_features_are_told_of():
    with pytest.raises(ValueError, match="spatial Frechet distance needs features of at least 2 samples, found 0"):
        SpatialFrechetDistance().compute(Evidence())
    with pytest.raises(ValueError, match="ddof is 3"):
        SpatialFrechetDistance(ddof=3)
