import math

import pytest
import torch
from scipy.cluster import vq

from genbench.nn.vector_quantizer import VectorQuantizer


def _quantizer(num_codes: int = 8, code_dim: int = 3, *, decay: float = 0.9, revival_share: float = 0.0):
    torch.manual_seed(0)
    return VectorQuantizer(num_codes, code_dim, decay=decay, revival_share=revival_share)


def _features(seed: int, *shape: int):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_codes_are_those_of_the_nearest_vectors():
    quantizer, features = _quantizer(), _features(1, 4, 3, 5, 5)
    flat = features.movedim(1, -1).reshape(-1, 3)
    expected, _ = vq.vq(flat.numpy(), quantizer.codebook.numpy())
    assert quantizer.nearest(features).flatten().tolist() == expected.tolist()


def test_values_are_the_vectors_of_the_codes_and_the_codebook_stays():
    quantizer, features = _quantizer(), _features(1, 2, 3, 4, 4)
    before = quantizer.codebook.clone()
    found = quantizer(features)
    torch.testing.assert_close(found.values, quantizer.codebook[found.codes].movedim(-1, 1), rtol=0, atol=1e-6)
    assert torch.equal(quantizer.codebook, before)


def test_gradient_passes_straight_through_to_the_features():
    quantizer, features = _quantizer(), _features(2, 2, 3, 4, 4).requires_grad_()
    weights = _features(3, 2, 3, 4, 4)
    (quantizer(features).values * weights).sum().backward()
    assert torch.equal(features.grad, weights)


def test_gradient_of_the_commitment_points_from_the_code_to_the_feature():
    quantizer, features = _quantizer(), _features(2, 2, 3, 4, 4).requires_grad_()
    found = quantizer(features)
    found.commitment.backward()
    expected = 2 * (features - quantizer.embed(found.codes)).detach() / features.numel()
    torch.testing.assert_close(features.grad, expected)


def test_codebook_is_the_ratio_of_the_closed_forms_of_the_running_means():
    decay, rounds = 0.9, 30
    quantizer = _quantizer(decay=decay)
    counts, sums = quantizer.counts.double(), quantizer.sums.double()
    for step in range(rounds):
        features = _features(step, 4, 3, 6, 6)
        codes = quantizer.nearest(features)
        one_hot = torch.nn.functional.one_hot(codes.flatten(), 8).double()
        flat = features.movedim(1, -1).reshape(-1, 3).double()
        counts = decay * counts + (1 - decay) * one_hot.sum(0)
        sums = decay * sums + (1 - decay) * one_hot.T @ flat
        quantizer.update(features, codes)
    torch.testing.assert_close(quantizer.counts.double(), counts, rtol=1e-5, atol=0)
    torch.testing.assert_close(quantizer.codebook.double(), sums / counts[:, None], rtol=1e-4, atol=1e-5)


def test_smoothing_never_enters_the_state():
    decay, rounds = 0.5, 80
    quantizer = _quantizer(decay=decay)
    features = _features(0, 1, 3, 4, 4)
    for _ in range(rounds):
        quantizer.update(features, torch.zeros(1, 4, 4, dtype=torch.int64))
    assert quantizer.counts[1:].tolist() == pytest.approx([decay**rounds] * 7, rel=1e-4)
    assert bool(quantizer.codebook.isfinite().all())


def test_codes_without_followers_restart_at_features_of_the_batch():
    quantizer = _quantizer(revival_share=0.05, decay=0.5)
    quantizer.codebook[4:] += 100.0
    quantizer.sums.copy_(quantizer.codebook)
    features = _features(5, 4, 3, 6, 6)
    for _ in range(12):
        quantizer.update(features, quantizer.nearest(features))
    assert set(quantizer.nearest(features).flatten().tolist()) == set(range(8))
    assert quantizer.perplexity().item() > 6.0


def test_codes_without_followers_stay_dead_where_revival_is_off():
    quantizer = _quantizer(revival_share=0.0, decay=0.5)
    quantizer.codebook[4:] += 100.0
    quantizer.sums.copy_(quantizer.codebook)
    features = _features(5, 4, 3, 6, 6)
    for _ in range(12):
        quantizer.update(features, quantizer.nearest(features))
    assert set(quantizer.nearest(features).flatten().tolist()) <= set(range(4))


def test_fit_finds_separated_clusters():
    centres = torch.tensor([[-9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [0.0, -9.0]])
    labels = torch.arange(400) % 4
    flat = centres[labels] + 0.1 * _features(7, 400, 2)
    torch.manual_seed(1)
    quantizer = VectorQuantizer(16, 2, decay=0.99, revival_share=0.0)
    features = flat.view(4, 10, 10, 2).movedim(-1, 1)
    quantizer.fit(features)
    assert quantizer(features).commitment.item() < 0.01
    torch.testing.assert_close(quantizer.sums / quantizer.counts[:, None], quantizer.codebook)


def test_fit_with_fewer_features_than_codes_uses_each_of_them():
    quantizer, features = _quantizer(), _features(8, 1, 3, 1, 5)
    quantizer.fit(features)
    assert quantizer(features).commitment.item() == pytest.approx(0.0, abs=1e-9)


def test_perplexity_counts_the_codes_in_use():
    quantizer = _quantizer()
    assert quantizer.perplexity().item() == pytest.approx(8.0)
    quantizer.counts.copy_(torch.tensor([1.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert quantizer.perplexity().item() == pytest.approx(math.exp(1.5 * math.log(2)))


def test_the_codebook_is_state_without_parameters():
    quantizer = _quantizer()
    assert list(quantizer.parameters()) == []
    assert set(quantizer.state_dict()) == {"codebook", "counts", "sums"}
