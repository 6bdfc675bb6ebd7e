import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal, squares

from genbench.core.metric import Evidence
from genbench.metrics.authenticity import Authenticity, authentic_samples, authenticity


def test_authentic_samples_equal_the_definition_by_hand():
    samples, reference = normal(120, 4, seed=0), normal(100, 4, seed=1)
    between, own = squares(samples, reference), squares(reference, reference)
    own.fill_diagonal_(float("inf"))
    expected = between.amin(dim=1) > own.amin(dim=1)[between.argmin(dim=1)]
    assert torch.equal(authentic_samples(samples, reference), expected)
    assert authenticity(samples, reference).value == float(expected.double().mean())
    assert 0.2 < float(expected.double().mean()) < 0.8


def test_near_copies_of_few_training_examples_are_not_authentic():
    """Looked up by the number of the sample, the neighbours would be those of unrelated examples."""
    reference = normal(400, 6, seed=1)
    samples = reference[:4].repeat(100, 1) + 1e-3 * normal(400, 6, seed=0)
    assert authenticity(samples, reference).value == 0.0
    own = squares(reference, reference).fill_diagonal_(float("inf")).amin(dim=1)
    by_sample_number = squares(reference, samples).amin(dim=1) > own
    assert float(by_sample_number.double().mean()) > 0.5


def test_copies_among_equal_training_examples_are_not_authentic():
    reference = torch.cat([torch.zeros(2, 3), normal(20, 3, seed=1).float() + 5.0])
    assert authentic_samples(torch.zeros(1, 3), reference).tolist() == [False]
    assert authentic_samples(torch.full((1, 3), 1e-6), reference).tolist() == [True]


def test_the_score_has_an_interval_even_at_zero_and_refuses_too_few_examples():
    reference = normal(50, 3, seed=1)
    (score,) = Authenticity().compute(evidence_of(reference[:20], reference))
    assert score.value == 0.0
    assert score.ci95[0] == 0.0 < score.ci95[1]
    with pytest.raises(ValueError, match="2 reference examples"):
        Authenticity().compute(evidence_of(normal(5, 3, seed=0), normal(1, 3, seed=1)))
    with pytest.raises(ValueError, match="found 0 and 0"):
        Authenticity().compute(Evidence())


@pytest.mark.slow
def test_the_interval_holds_the_share_of_many_samples():
    reference = normal(300, 4, seed=0)
    truth = authenticity(normal(50_000, 4, seed=1), reference).value
    runs = [authenticity(normal(300, 4, seed=10 + i), reference) for i in range(300)]
    assert 0.92 <= np.mean([run.ci95[0] <= truth <= run.ci95[1] for run in runs]) <= 0.98
