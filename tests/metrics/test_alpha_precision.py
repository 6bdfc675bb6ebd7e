import numpy as np
import pytest
from neighbour_evidence import evidence_of, normal

from genbench.metrics.alpha_precision import AlphaPrecision, alpha_precision, beta_recall


def by_hand(samples, reference):
    """The published definition, straight from whole matrices."""
    x, y = samples.numpy(), reference.numpy()
    alphas = np.linspace(0.0, 1.0, 30)
    centre, own_centre = y.mean(axis=0), x.mean(axis=0)
    radii = np.quantile(np.linalg.norm(y - centre, axis=1), alphas)
    precision = [np.mean(np.linalg.norm(x - centre, axis=1) <= radius) for radius in radii]
    between = np.linalg.norm(y[:, None] - x[None], axis=2)
    within = np.linalg.norm(y[:, None] - y[None], axis=2)
    np.fill_diagonal(within, np.inf)
    nearest = between.argmin(axis=1)
    depth = np.linalg.norm(x[nearest] - own_centre, axis=1)
    recall = [
        np.mean((between.min(axis=1) <= within.min(axis=1)) & (depth <= radius))
        for radius in np.quantile(depth, alphas)
    ]
    return [1.0 - 2.0 * np.abs(alphas - np.array(curve)).sum() * alphas[1] for curve in (precision, recall)]


def test_both_scores_equal_the_definition_by_hand():
    samples, reference = normal(140, 4, seed=0, scale=0.7, shift=0.3), normal(160, 4, seed=1)
    expected = by_hand(samples, reference)
    assert alpha_precision(samples, reference).value == pytest.approx(expected[0], abs=1e-12)
    assert beta_recall(samples, reference).value == pytest.approx(expected[1], abs=1e-12)


def test_the_synthcity_preset_divides_by_the_sum_of_levels():
    samples, reference = normal(140, 4, seed=0, scale=0.7), normal(160, 4, seed=1)
    expected = 1.0 - (1.0 - by_hand(samples, reference)[0]) * (29.0 / 2.0) / np.linspace(0.0, 1.0, 30).sum()
    assert alpha_precision(samples, reference, preset="synthcity").value == pytest.approx(expected, abs=1e-12)


def test_samples_of_the_real_law_score_one_and_far_ones_nothing():
    reference = normal(3000, 5, seed=1)
    assert alpha_precision(normal(3000, 5, seed=0), reference).value > 0.95
    # Shares that are all zero have the sum of the levels, 15, as their gap.
    assert alpha_precision(normal(300, 5, seed=0, shift=50.0), reference).value == pytest.approx(1.0 - 2.0 * 15 / 29)
    assert beta_recall(normal(300, 5, seed=0, shift=50.0), reference).value == pytest.approx(1.0 - 2.0 * 15 / 29)


def test_copies_of_the_real_examples_are_recalled_without_loss():
    reference = normal(400, 3, seed=1)
    assert beta_recall(reference, reference).value > 0.99


def test_half_of_the_real_examples_have_a_sample_nearer_than_their_own_kind():
    """Under one law and equal sizes the nearest of both sets together is as often a sample: B_b = b/2."""
    found = beta_recall(normal(3000, 5, seed=0), normal(3000, 5, seed=1))
    assert found.value == pytest.approx(1.0 - 2.0 * 7.5 / 29.0, abs=0.04)


def test_collapse_costs_beta_recall():
    reference = normal(400, 4, seed=0)
    assert beta_recall(normal(400, 4, seed=1, scale=0.1), reference).value < 0.1


def test_scores_carry_intervals_and_the_preset():
    scores = AlphaPrecision().compute(evidence_of(normal(90, 3, seed=0, scale=0.5), normal(80, 3, seed=1)))
    assert [score.name for score in scores] == ["alpha_precision", "beta_recall"]
    for score in scores:
        assert score.ci95[0] <= score.value <= score.ci95[1]
        assert score.stderr > 0
        assert score.protocol["preset"] == "alaa"
    again = AlphaPrecision().compute(evidence_of(normal(90, 3, seed=0, scale=0.5), normal(80, 3, seed=1)))
    assert again == scores
    with pytest.raises(ValueError, match="at least 2 samples"):
        AlphaPrecision().compute(evidence_of(normal(1, 3, seed=0), normal(80, 3, seed=1)))


@pytest.mark.slow
@pytest.mark.parametrize("score", [alpha_precision, beta_recall])
def test_intervals_hold_the_mean_value_over_repetitions(score):
    runs = [score(normal(300, 4, seed=2 * i, scale=0.7, shift=0.2), normal(300, 4, seed=2 * i + 1)) for i in range(200)]
    centre = np.mean([run.value for run in runs])
    assert 0.91 <= np.mean([run.ci95[0] <= centre <= run.ci95[1] for run in runs]) <= 0.99
