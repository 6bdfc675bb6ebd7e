import itertools
import math

import pytest
import torch

from genbench.nn.finite_scalar_quantizer import FiniteScalarQuantizer

LEVELS = [(3,), (4,), (8,), (5, 5), (8, 6, 5), (8, 5, 5, 5), (7, 4, 3)]


def _features(seed, *shape, scale=2.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_and_values_are_one_to_one(levels):
    quantizer = FiniteScalarQuantizer(levels)
    codes = torch.arange(quantizer.num_codes).view(-1, 1, 1)
    values = quantizer.embed(codes).flatten(1)  # (K, d)
    assert quantizer.num_codes == math.prod(levels) == len(values.unique(dim=0))
    whole = values * torch.tensor([L // 2 for L in levels])
    expected = set(itertools.product(*[range(-(L // 2), -(L // 2) + L) for L in levels]))
    assert {tuple(map(round, row)) for row in whole.tolist()} == expected
    torch.testing.assert_close(whole, whole.round())
    numbered = quantizer._numbered(whole.round()[:, :, None, None])
    assert torch.equal(numbered, codes)


@pytest.mark.parametrize("levels", LEVELS)
def test_values_of_features_are_those_of_their_codes(levels):
    quantizer, features = FiniteScalarQuantizer(levels), _features(1, 4, len(levels), 5, 5)
    found = quantizer(features)
    assert torch.equal(found.codes, quantizer.nearest(features))
    torch.testing.assert_close(found.values, quantizer.embed(found.codes))
    assert found.codes.dtype == torch.int64


@pytest.mark.parametrize("L", [3, 4, 5, 6, 7, 8, 9, 16, 255])
def test_a_sweep_meets_every_level_in_order_and_never_leaves_them(L):
    """Odd levels lie around 0, even ones reach one further down; far features stay in the end levels."""
    quantizer = FiniteScalarQuantizer([L])
    sweep = torch.cat([torch.tensor([-1e9]), torch.linspace(-9, 9, 100_001), torch.tensor([1e9])])
    bounded = quantizer.bounded(sweep.view(-1, 1, 1, 1)).flatten()
    low, high = -(L // 2), (L - 1) // 2
    assert low - 0.5 < bounded.min().item() < low + 0.5
    assert high - 0.5 < bounded.max().item() < high + 0.5
    codes = quantizer.nearest(sweep.view(-1, 1, 1, 1)).flatten()
    assert codes.unique_consecutive().tolist() == list(range(L))


@pytest.mark.parametrize("L", [4, 5, 6, 7, 8, 9])
def test_zero_stays_zero_and_odd_levels_are_symmetric(L):
    quantizer = FiniteScalarQuantizer([L])
    assert quantizer.bounded(torch.zeros(1, 1, 1, 1)).item() == pytest.approx(0.0, abs=1e-6)
    features = _features(2, 50, 1, 2, 2)
    mirrored = quantizer(-features).values
    assert torch.equal(mirrored, -quantizer(features).values) == (L % 2 == 1)


def test_bound_is_that_of_the_formula():
    found = FiniteScalarQuantizer([8, 5]).double().bounded(torch.full((1, 2, 1, 1), 0.3, dtype=torch.float64)).flatten()
    half = [7 * 0.999 / 2, 4 * 0.999 / 2]
    expected = [half[0] * math.tanh(0.3 + math.atanh(0.5 / half[0])) - 0.5, half[1] * math.tanh(0.3)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("levels", [(5, 8), (3, 4, 7)])
def test_gradient_is_that_of_the_bound_as_if_nothing_were_rounded(levels):
    quantizer, features = FiniteScalarQuantizer(levels).double(), _features(3, 2, len(levels), 3, 3).double()
    features.requires_grad_()
    weights = _features(4, 2, len(levels), 3, 3).double()
    (quantizer(features).values * weights).sum().backward()
    slopes = []
    for channel, L in enumerate(levels):
        half = (L - 1) * 0.999 / 2
        shift = math.atanh(0.5 / half) if L % 2 == 0 else 0.0
        slopes.append(half * (1 - torch.tanh(features.detach()[:, channel] + shift).square()) / (L // 2))
    torch.testing.assert_close(features.grad, weights * torch.stack(slopes, dim=1), rtol=1e-6, atol=1e-9)


def test_it_has_nothing_to_learn_and_nothing_to_save():
    quantizer = FiniteScalarQuantizer([5, 5])
    assert list(quantizer.parameters()) == []
    assert quantizer.state_dict() == {}


@pytest.mark.parametrize("levels", [[], [2, 5], [8, 1]])
def test_too_few_levels_are_refused(levels):
    with pytest.raises(ValueError, match="3 or more levels"):
        FiniteScalarQuantizer(levels)
