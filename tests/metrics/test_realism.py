import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal, squares

from genbench.core.metric import Evidence
from genbench.metrics.realism import Realism, realism, realism_of_samples


def by_hand(samples, reference, k, *, pruned):
    own = squares(reference, reference)
    own.fill_diagonal_(-1.0)
    radii = own.sort(dim=1).values[:, k]
    between = squares(samples, reference)
    if not pruned:
        return (radii / (between + 1e-5)).amax(dim=1)
    kept = radii.sqrt() < np.median(radii.sqrt().numpy())
    return (radii[kept].sqrt() / between[:, kept].sqrt()).amax(dim=1)


@pytest.mark.parametrize("preset", ["paper", "kynkaat"])
@pytest.mark.parametrize("num", [120, 121])
def test_realism_equals_the_largest_ratio_by_hand(preset, num):
    samples, reference = normal(80, 5, seed=0, scale=1.3), normal(num, 5, seed=1)
    found = realism_of_samples(samples, reference, k=3, preset=preset)
    torch.testing.assert_close(found, by_hand(samples, reference, 3, pruned=preset == "paper"), rtol=1e-12, atol=0)


def test_single_precision_features_of_many_dimensions_give_exact_ratios():
    samples, reference = normal(60, 300, seed=0).float(), normal(90, 300, seed=1).float()
    found = realism_of_samples(samples, reference)
    torch.testing.assert_close(found, by_hand(samples, reference, 3, pruned=True), rtol=1e-13, atol=0)


def test_a_sample_equal_to_a_real_example_is_infinitely_real_and_does_not_move_the_median():
    samples, reference = normal(50, 4, seed=0), normal(200, 4, seed=1)
    radii = squares(reference, reference).sort(dim=1).values[:, 3]
    spoilt = torch.cat([samples, reference[radii.argmin()][None]])
    assert float(realism_of_samples(spoilt, reference)[-1]) == float("inf")
    assert realism(spoilt, reference).value < 3.0


def test_samples_that_are_all_copies_have_no_median_realism():
    reference = normal(200, 4, seed=1)
    radii = squares(reference, reference).sort(dim=1).values[:, 3]
    with pytest.raises(ValueError, match=r"found 100.0% of them equal"):
        realism(reference[radii.argsort()[:50]], reference)


def test_realism_falls_as_samples_move_away():
    reference = normal(300, 6, seed=1)
    found = [realism(normal(300, 6, seed=0, shift=shift), reference).value for shift in (0.0, 1.0, 3.0, 9.0)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.2


def test_the_score_has_an_interval_and_refuses_too_few_examples():
    (score,) = Realism(k=5).compute(evidence_of(normal(50, 3, seed=0), normal(60, 3, seed=1)))
    assert score.ci95[0] <= score.value <= score.ci95[1]
    assert score.stderr > 0
    with pytest.raises(ValueError, match="and 6 reference examples"):
        Realism(k=5).compute(evidence_of(normal(50, 3, seed=0), normal(5, 3, seed=1)))
    with pytest.raises(ValueError, match="found 0"):
        Realism().compute(Evidence())


@pytest.mark.slow
def test_the_interval_holds_the_median_of_many_samples():
    reference = normal(300, 5, seed=0)
    truth = realism(normal(40_000, 5, seed=1), reference).value
    held = [
        part.ci95[0] <= truth <= part.ci95[1]
        for i in range(300)
        if (part := realism(normal(200, 5, seed=10 + i), reference))
    ]
    assert 0.92 <= np.mean(held) <= 0.985
