import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from genbench.metrics.copying_test import CopyingTest, copying_test


def clusters(num, *, seed):
    """Three clusters in four dimensions."""
    points = normal(num, 4, seed=seed)
    points[:, 0] += 20.0 * (torch.arange(num) % 3)
    return points


def test_the_statistic_equals_the_published_procedure_by_hand():
    samples, reference, held_out = clusters(300, seed=0) * 1.1, clusters(400, seed=1), clusters(350, seed=2)
    x, y, h = samples.numpy(), reference.numpy(), held_out.numpy()
    cells = KMeans(3, n_init=10, random_state=0).fit(y)
    total = weight = 0.0
    for cell in range(3):
        tree = NearestNeighbors(n_neighbors=1).fit(y[cells.predict(y) == cell])
        drawn, unseen = (tree.kneighbors(part[cells.predict(part) == cell])[0][:, 0] for part in (x, h))
        n, m = len(unseen), len(drawn)
        u = stats.mannwhitneyu(drawn, unseen, alternative="less").statistic
        share = n / len(h)
        total += share * (u - (n * m / 2 - 0.5)) / np.sqrt(n * m * (n + m + 1) / 12)
        weight += share
    found = copying_test(samples, reference, held_out)
    assert found["copying_test"].value == pytest.approx(total / weight, rel=1e-9)


def test_near_copies_are_far_below_zero_and_a_poor_fit_far_above():
    reference, held_out = clusters(600, seed=1), clusters(600, seed=2)
    copied = copying_test(reference + 0.01 * normal(600, 4, seed=3), reference, held_out)
    assert copied["copying_test"].ci95[1] < -10.0
    assert copied["copying_p"].value < 1e-20
    poor = copying_test(clusters(600, seed=0) + 3.0 * normal(600, 4, seed=4), reference, held_out)
    assert poor["copying_test"].ci95[0] > 5.0
    assert poor["copying_p"].value > 0.999


def test_many_features_are_cut_to_their_first_64_components():
    """Structure in two dimensions, and noise too small to matter in 200 others."""
    reference, held_out, samples = (
        torch.cat([clusters(150, seed=i), 1e-6 * normal(150, 200, seed=9 + i)], 1) for i in range(3)
    )
    found = copying_test(samples, reference, held_out)["copying_test"].value
    plain = copying_test(samples[:, :4], reference[:, :4], held_out[:, :4])["copying_test"].value
    assert found == pytest.approx(plain, abs=0.05)


def test_cells_with_few_samples_are_left_out_and_none_at_all_is_refused():
    reference, held_out = clusters(300, seed=1), clusters(300, seed=2)
    one_cell = clusters(300, seed=0)[::3]
    assert -4.0 < copying_test(one_cell, reference, held_out)["copying_test"].value < 4.0
    with pytest.raises(ValueError, match="more than 20 samples in one of 3 cells"):
        copying_test(clusters(30, seed=0), reference, held_out)
    with pytest.raises(ValueError, match="no held-out example"):
        copying_test(clusters(300, seed=0), reference, held_out[::3])


def test_scores_have_their_names_and_refuse_missing_evidence():
    scores = CopyingTest().compute(evidence_of(*(clusters(150, seed=i) for i in range(3))))
    assert [score.name for score in scores] == ["copying_test", "copying_p"]
    assert scores[0].ci95[0] < scores[0].value < scores[0].ci95[1]
    with pytest.raises(ValueError, match="at least 21 samples"):
        CopyingTest().compute(evidence_of(*(clusters(20, seed=i) for i in range(3))))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1.15])
def test_intervals_hold_the_mean_over_repetitions(scale):
    reference = normal(400, 4, seed=0)
    runs = [
        copying_test(
            normal(250, 4, seed=1 + 2 * i, scale=scale), reference, normal(250, 4, seed=2 + 2 * i), num_cells=1
        )
        for i in range(200)
    ]
    centre = np.mean([run["copying_test"].value for run in runs])
    held = [run["copying_test"].ci95[0] <= centre <= run["copying_test"].ci95[1] for run in runs]
    assert 0.91 <= np.mean(held) <= 0.99
