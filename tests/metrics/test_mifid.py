import math

import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal

from genbench.metrics.mifid import MIFID, cosine_distances, mifid
from genbench.prob.frechet import frechet_distance


def frechet_by_moments(samples, reference):
    x, y = samples.numpy(), reference.numpy()
    return frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))


def cosines_by_hand(samples, reference):
    x, y = (torch.nn.functional.normalize(part.double(), dim=1) for part in (samples, reference))
    return (1.0 - (x @ y.T).abs()).amin(dim=1)


@pytest.mark.parametrize("sign", ["any", "positive"])
def test_the_memorisation_distance_is_the_least_cosine_distance_of_each_sample(sign):
    samples, reference = normal(50, 6, seed=0), normal(70, 6, seed=1)
    if sign == "positive":
        samples, reference = samples.abs(), reference.abs()
    torch.testing.assert_close(
        cosine_distances(samples, reference), cosines_by_hand(samples, reference), rtol=1e-10, atol=1e-15
    )


def test_copies_of_one_training_image_are_caught_though_other_images_have_no_sample_near():
    """Over the samples the least distance is 0; over the training data it would be that of strangers."""
    reference = normal(300, 32, seed=1)
    samples = reference[:1] * (1.0 + 1e-6 * normal(200, 32, seed=0))
    found = mifid(samples, reference)
    per_real = float(cosines_by_hand(reference, samples).mean())
    assert per_real > 0.1  # the other direction sees no reason to punish
    assert found["memorisation_distance"].value < 1e-11
    assert found["mifid"].value > 1e9 * frechet_by_moments(samples, reference)


def test_below_the_threshold_the_frechet_distance_is_divided_and_above_it_left_alone():
    reference = normal(400, 5, seed=1)
    samples = normal(300, 5, seed=0, scale=1.2, shift=0.5)
    plain = frechet_by_moments(samples, reference)
    d = float(cosines_by_hand(samples, reference).mean())
    assert 0.001 < d < 0.1
    assert mifid(samples, reference)["mifid"].value == pytest.approx(plain / (d + 1e-15), rel=1e-9)
    assert mifid(samples, reference, threshold=0.5 * d)["mifid"].value == pytest.approx(plain, rel=1e-9)


def test_antipodal_features_count_as_copies_and_zeros_take_no_part():
    reference = normal(40, 8, seed=1)
    samples = torch.cat([-2.0 * reference[:20], torch.zeros(3, 8, dtype=torch.float64)])
    distances = cosine_distances(samples, reference)
    assert float(distances[:20].max()) < 1e-28
    assert bool(distances[20:].isnan().all())
    assert mifid(samples, reference)["memorisation_distance"].value < 1e-28
    with pytest.raises(ValueError, match="not all zero"):
        mifid(torch.zeros(5, 8), reference)


def test_the_distance_of_near_copies_is_not_lost_to_cancellation():
    """An angle of 1e-6 has the distance 5e-13, far below what 1 - cos resolves in single precision."""
    angle = 1e-6
    reference = torch.eye(2, dtype=torch.float64)
    samples = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    assert float(cosine_distances(samples, reference)[0]) == pytest.approx(0.5 * angle**2, rel=1e-9)


def test_scores_are_named_for_the_extractor_and_have_intervals():
    scores = MIFID().compute(evidence_of(normal(90, 5, seed=0).float(), normal(80, 5, seed=1).float()))
    assert [score.name for score in scores] == ["mifd_some_net", "memorisation_distance"]
    for score in scores:
        assert score.ci95[0] <= score.value <= score.ci95[1]
        assert score.stderr > 0
    with pytest.raises(ValueError, match="at least 2 samples"):
        MIFID().compute(evidence_of(normal(1, 3, seed=0), normal(80, 3, seed=1)))
    with pytest.raises(ValueError, match=r"expected 0 \.\. 1"):
        MIFID(threshold=2.0)


@pytest.mark.slow
def test_standard_errors_match_the_spread_over_draws_of_samples():
    reference = normal(500, 4, seed=0)
    runs = [mifid(normal(300, 4, seed=1 + i, scale=1.3, shift=0.4), reference) for i in range(200)]
    for name in ("mifid", "memorisation_distance"):
        spread = np.std([run[name].value for run in runs], ddof=1)
        assert 0.85 < np.sqrt(np.mean([run[name].stderr ** 2 for run in runs])) / spread < 1.15, name
        centre = np.mean([run[name].value for run in runs])
        assert 0.91 <= np.mean([run[name].ci95[0] <= centre <= run[name].ci95[1] for run in runs]) <= 0.985
