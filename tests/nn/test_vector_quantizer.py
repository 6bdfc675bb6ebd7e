import math

import pytest
import torch
from scipy.cluster import vq

from genbench.nn.vector_quantizer import VectorQuantizer, copied, rotated


def _quantizer(num_codes: int = 8, code_dim: int = 3, *, decay: float = 0.9, revival_share: float = 0.0, **settings):
    torch.manual_seed(0)
    return VectorQuantizer(num_codes, code_dim, decay=decay, revival_share=revival_share, **settings)


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


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_dead_codes_restart_exactly_at_features_of_the_batch(codebook):
    quantizer = _quantizer(decay=0.5, revival_share=0.05, codebook=codebook)
    with torch.no_grad():
        quantizer.codebook[3:] += 100.0
    if codebook == "ema":
        quantizer.sums.copy_(quantizer.codebook)
    alive = quantizer.codebook[:3].clone()
    quantizer.counts.copy_(torch.tensor([9.0, 9.0, 9.0, 0.1, 0.1, 0.1, 0.1, 0.1]))
    features = _features(5, 4, 3, 6, 6)
    quantizer.update(features, quantizer.nearest(features))
    flat = features.movedim(1, -1).reshape(-1, 3)
    nearest = torch.cdist(quantizer.codebook[3:].detach().double(), flat.double())
    assert bool((nearest.amin(1) < 1e-4).all())
    assert nearest.argmin(1).unique().numel() == 5  # each at a feature of its own
    assert quantizer.counts[3:].unique().numel() == 1  # with as many followers as the mean code had
    if codebook == "gradient":
        assert torch.equal(quantizer.codebook[:3].detach(), alive)


def test_a_gradient_codebook_is_a_parameter_and_keeps_no_sums():
    quantizer = _quantizer(codebook="gradient")
    assert [name for name, _ in quantizer.named_parameters()] == ["codebook"]
    assert set(quantizer.state_dict()) == {"codebook", "counts"}


def test_gradient_of_the_attraction_is_the_mean_pull_towards_the_features_of_each_code():
    quantizer, features = _quantizer(codebook="gradient"), _features(2, 2, 3, 4, 4).requires_grad_()
    found = quantizer(features)
    (found.values.sum() + found.attraction).backward()  # what passes through the values leaves the codebook alone
    flat, chosen = features.detach().movedim(1, -1).reshape(-1, 3), found.codes.flatten()
    expected = torch.stack([2 * (quantizer.codebook[k] - flat[chosen == k]).sum(0) for k in range(8)]) / flat.numel()
    torch.testing.assert_close(quantizer.codebook.grad, expected.detach())
    torch.testing.assert_close(features.grad, torch.ones_like(features))
    assert found.attraction.item() == pytest.approx(found.commitment.item())


def test_a_gradient_codebook_descends_to_the_means_of_its_features():
    """With the assignment fixed, ||sg(f) - e||^2 is least at the mean: where an `ema` codebook ends as well."""
    features = torch.cat([_features(3, 8, 3, 2, 2) + 5.0, _features(4, 8, 3, 2, 2) - 5.0])
    quantizer = _quantizer(2, codebook="gradient")
    quantizer.fit(features, num_rounds=1)
    with torch.no_grad():
        quantizer.codebook.add_(1.0)
    optimiser = torch.optim.SGD(quantizer.parameters(), lr=1.0)
    for _ in range(60):
        optimiser.zero_grad()
        quantizer(features).attraction.backward()
        optimiser.step()
    means = torch.stack([features[:8].mean((0, 2, 3)), features[8:].mean((0, 2, 3))])
    order = quantizer.codebook[:, 0].argsort(descending=True)
    torch.testing.assert_close(quantizer.codebook[order].detach(), means, rtol=1e-4, atol=1e-4)


def test_an_ema_codebook_attracts_nothing():
    found = _quantizer()(_features(2, 2, 3, 4, 4).requires_grad_())
    assert found.attraction.item() == 0.0
    assert not found.attraction.requires_grad


@pytest.mark.parametrize("passed", [copied, rotated])
def test_values_are_the_codes_however_the_gradient_passes(passed):
    features, values = _features(2, 3, 5, 4, 4).requires_grad_(), _features(3, 3, 5, 4, 4)
    torch.testing.assert_close(passed(features, values).detach(), values, rtol=0, atol=1e-6)


def test_rotation_turns_the_gradient_by_the_matrix_that_takes_the_code_to_the_feature():
    """The matrix is built here from an orthonormal basis of the plane, by the angle between the two."""
    features, values = (_features(seed, 6, 4, 1, 1).double() for seed in (2, 3))
    weights = _features(4, 6, 4, 1, 1).double()
    features.requires_grad_()
    (rotated(features, values) * weights).sum().backward()
    for f, e, g, found in zip(
        *(t.detach().flatten(1) for t in (features, values, weights, features.grad)), strict=True
    ):
        a = f / f.norm()
        across = e - (e @ a) * a
        b = across / across.norm()
        angle = torch.atan2(across.norm(), e @ a)
        plane = torch.stack([a, b], dim=1)
        turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
        R = torch.eye(4, dtype=torch.float64) + plane @ (turn - torch.eye(2, dtype=torch.float64)) @ plane.T
        torch.testing.assert_close(R @ a, e / e.norm())
        torch.testing.assert_close(found, e.norm() / f.norm() * R.T @ g)
        cosines = [(u @ v / u.norm() / v.norm()).item() for u, v in ((g, e), (found, f))]
        assert cosines[0] == pytest.approx(cosines[1], abs=1e-12)  # gradient and code keep their angle


def test_rotation_of_a_feature_on_its_code_copies_the_gradient():
    features, weights = _features(2, 2, 3, 4, 4).requires_grad_(), _features(3, 2, 3, 4, 4)
    (rotated(features, features.detach()) * weights).sum().backward()
    torch.testing.assert_close(features.grad, weights)


def test_rotation_has_a_finite_gradient_for_opposite_and_for_vanishing_features():
    values = _features(3, 2, 3, 1, 1)
    features = torch.stack([-values[0], torch.zeros(3, 1, 1)]).requires_grad_()
    rotated(features, values).square().sum().backward()
    assert bool(features.grad.isfinite().all())
    assert features.grad.abs().max().item() < 10.0
    expected = 2 * values[0] * -1.0  # turned by half a turn, as the code is from the feature
    torch.testing.assert_close(features.grad[0], expected)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_the_setting_chooses_what_passes(gradient):
    quantizer, features = _quantizer(gradient=gradient), _features(2, 2, 3, 4, 4).requires_grad_()
    weights = _features(3, 2, 3, 4, 4)
    found = quantizer(features)
    (found.values * weights).sum().backward()
    again = features.detach().clone().requires_grad_()
    passed = {"straight_through": copied, "rotation": rotated}[gradient]
    (passed(again, quantizer.embed(found.codes)) * weights).sum().backward()
    assert torch.equal(features.grad, again.grad)
    assert torch.equal(features.grad, weights) == (gradient == "straight_through")
