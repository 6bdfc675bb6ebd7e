import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal

from genbench.metrics.feature_likelihood_divergence import FeatureLikelihoodDivergence, feature_likelihood_divergence


def fld(samples, reference, held_out, **settings):
    return feature_likelihood_divergence(samples, reference, held_out, **settings).value


def test_samples_of_the_real_law_score_about_zero():
    found = fld(normal(400, 6, seed=0), normal(800, 6, seed=1), normal(400, 6, seed=2))
    assert abs(found) < 6.0


def test_worse_samples_score_higher_step_by_step():
    reference, held_out = normal(600, 6, seed=1), normal(400, 6, seed=2)
    found = [fld(normal(300, 6, seed=0, shift=shift), reference, held_out) for shift in (0.0, 0.7, 1.5, 4.0)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 50.0


def test_copies_of_the_training_data_are_punished_far_more_than_poor_samples():
    reference, held_out = normal(600, 6, seed=1), normal(400, 6, seed=2)
    copies = fld(reference[:300], reference, held_out)
    assert copies > 10.0 * abs(fld(normal(300, 6, seed=0), reference, held_out)) + 200.0


def test_collapse_to_one_mode_is_punished():
    def modes(num, seed):
        points = normal(num, 4, seed=seed)
        points[: num // 2] += 15.0
        return points

    reference, held_out = modes(600, 1), modes(400, 2)
    assert fld(normal(300, 4, seed=0), reference, held_out) > fld(modes(300, 0), reference, held_out) + 20.0


@pytest.mark.slow
def test_a_quarter_of_a_million_training_examples_are_not_too_many():
    reference = normal(250_001, 2, seed=1).float()
    assert np.isfinite(fld(normal(5, 2, seed=0).float(), reference, normal(50, 2, seed=2).float()))


def test_scale_shift_and_constant_features_do_not_matter():
    sets = [normal(150 + 20 * i, 4, seed=i) for i in range(3)]
    moved = [torch.cat([part * 7.0 + 3.0, torch.ones(len(part), 2)], dim=1) for part in sets]
    assert fld(*moved) == pytest.approx(fld(*sets), rel=1e-6)
    with pytest.raises(ValueError, match="found constants"):
        fld(torch.ones(9, 2), torch.ones(9, 2), torch.ones(9, 2))


def test_the_score_has_an_interval_and_counts_the_samples_it_used():
    sets = [normal(150 + 20 * i, 4, seed=i) for i in range(3)]
    (score,) = FeatureLikelihoodDivergence(max_samples=100).compute(evidence_of(*sets))
    assert score.name == "fld"
    assert score.num_samples == 100
    assert score.ci95[0] < score.value < score.ci95[1]
    with pytest.raises(ValueError, match="outside the training set"):
        FeatureLikelihoodDivergence().compute(evidence_of(*sets[:2]))


@pytest.mark.slow
def test_the_interval_holds_the_value_of_much_held_out_data():
    samples, reference = normal(200, 3, seed=0, scale=1.1), normal(400, 3, seed=1)
    # Features are scaled by the held-out data, so each set has its own scale; that adds little here.
    truth = fld(samples, reference, normal(30_000, 3, seed=2))
    runs = [feature_likelihood_divergence(samples, reference, normal(400, 3, seed=10 + i)) for i in range(100)]
    assert 0.88 <= np.mean([run.ci95[0] <= truth <= run.ci95[1] for run in runs]) <= 1.0
