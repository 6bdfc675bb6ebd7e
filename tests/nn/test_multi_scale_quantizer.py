"""Algorithms 1 and 2 by hand, gradients, what a transformer is told, and how the codebook follows."""

import pytest
import torch
import torch.nn.functional as F

from genbench.nn.multi_scale_quantizer import MultiScaleQuantizer

SIDES = (1, 2, 3, 4, 5)


def _made(codebook="ema", sides=SIDES, **settings):
    torch.manual_seed(0)
    return MultiScaleQuantizer(11, 3, sides, codebook=codebook, **({"decay": 0.9, "revival_share": 0.0} | settings))


def _features(seed=1, count=4, side=5):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _by_hand(model, features):
    """Algorithm 1 for one image after the other, a loop over places: codes of every scale and f^_k."""
    full, filters, book = model.sides[-1], model.filters, model.book.codebook
    rest, total, codes, totals = features.clone(), torch.zeros_like(features), [], []
    for k, side in enumerate(model.sides):
        coarse = F.interpolate(rest, size=(side, side), mode="area")
        chosen = torch.cdist(coarse.movedim(1, -1).reshape(-1, 3), book).argmin(1).view(-1, side, side)
        vectors = book[chosen].movedim(-1, 1)
        up = F.interpolate(vectors, size=(full, full), mode="bicubic") if side != full else vectors
        phi = filters[[0, 0, 1, 2, 3][k]]
        added = 0.5 * up + 0.5 * F.conv2d(up, phi.conv.weight, phi.conv.bias, padding=1)
        rest, total = rest - added, total + added
        codes.append(chosen.flatten(1))
        totals.append(total)
    return torch.cat(codes, dim=1), totals


def test_codes_and_approximations_are_those_of_the_algorithms():
    model, features = _made(), _features()
    with torch.no_grad():
        codes, totals = _by_hand(model, features)
        found = model(features)
        assert torch.equal(found.codes, codes)
        assert torch.equal(model.nearest(features), codes)
        torch.testing.assert_close(found.values, totals[-1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.embed(codes), totals[-1], rtol=1e-5, atol=1e-6)
    assert codes.shape == (4, 55)
    assert model.length == 55


def test_the_losses_are_means_over_scales_with_gradients_to_either_side():
    model, features = _made("gradient"), _features().requires_grad_()
    _, totals = _by_hand(model, features.detach())
    found = model(features)
    expected = torch.stack([F.mse_loss(total, features) for total in totals]).mean()
    torch.testing.assert_close(found.commitment, expected.detach())
    torch.testing.assert_close(found.attraction, expected.detach())
    found.commitment.backward(retain_graph=True)
    pull = sum(2 * (features - total).detach() / features.numel() for total in totals) / len(totals)
    torch.testing.assert_close(features.grad, pull, rtol=1e-4, atol=1e-7)
    assert all(p.grad is None for p in model.parameters())
    found.attraction.backward()
    torch.testing.assert_close(features.grad, pull, rtol=1e-4, atol=1e-7)
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_gradient_of_the_values_arrives_at_the_features_as_it_is():
    model, features, weights = _made(), _features().requires_grad_(), _features(seed=2)
    (model(features).values * weights).sum().backward()
    torch.testing.assert_close(features.grad, weights)


def test_what_a_scale_is_told_is_the_approximation_before_it_pooled_to_its_side():
    model, features = _made(), _features()
    codes = model.nearest(features)
    with torch.no_grad():
        _, totals = _by_hand(model, features)
        told = [
            F.interpolate(total, size=(side, side), mode="area").flatten(2).transpose(1, 2)
            for total, side in zip(totals[:-1], SIDES[1:], strict=True)
        ]
        found = model.seen_by_all(codes)
    torch.testing.assert_close(found, torch.cat(told, dim=1), rtol=1e-5, atol=1e-6)
    assert _made(sides=(1,)).seen_by_all(torch.zeros(2, 1, dtype=torch.int64)).shape == (2, 0, 3)


def test_the_codebook_follows_the_means_of_what_chose_each_code():
    model, features = _made(decay=0.0), _features(count=8)
    codes = model.nearest(features)
    with torch.no_grad():
        rests = model._rests(features, codes)[..., 0].transpose(1, 2)  # (B, L, D)
        expected = {int(k): rests[codes == k].mean(0) for k in codes.unique()}
        nearest = torch.cdist(rests.reshape(-1, 3), model.book.codebook).argmin(1).view_as(codes)
    assert torch.equal(nearest, codes)
    model.update(features, codes)
    for k, mean in expected.items():
        torch.testing.assert_close(model.book.codebook[k], mean, rtol=1e-3, atol=1e-4)


def test_a_fitted_codebook_comes_nearer_to_the_features_than_a_random_one():
    model, features = _made(), 3.0 + _features(count=16)
    for phi in model.filters:  # that leave what comes in as it is
        torch.nn.init.dirac_(phi.conv.weight)
        torch.nn.init.zeros_(phi.conv.bias)
    before = F.mse_loss(model(features).values, features)
    model.fit(features)
    after = F.mse_loss(model(features).values, features)
    assert after < 0.7 * before


@pytest.mark.parametrize("sides", [(1,), (1, 2), (1, 2, 4, 8)])
def test_few_scales_have_as_many_filters(sides):
    assert len(_made(sides=sides).filters) == min(4, len(sides))
