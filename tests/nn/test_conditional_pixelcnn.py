"""Under any condition the network is a normalised law, sees the condition and nothing later, and samples itself."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from genbench.nn.conditional_pixelcnn import ConditionalPixelCNN


def _made(num_levels, *, seed=0, **settings):
    """A network off its starting point, whose softmax is far from uniform."""
    torch.manual_seed(seed)
    sizes = {"condition_width": 5, "width": 12, "num_layers": 3, "kernel_size": 3} | settings
    model = ConditionalPixelCNN(num_levels=num_levels, **sizes)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def _condition(count, height, width, *, seed=1):
    return torch.randn(count, 5, height, width, generator=torch.Generator().manual_seed(seed))


def _every_grid(num_levels, height, width):
    return torch.tensor(list(itertools.product(range(num_levels), repeat=height * width))).view(-1, height, width)


@pytest.mark.parametrize(("num_levels", "height", "width"), [(4, 2, 2), (3, 2, 3), (3, 3, 2), (5, 1, 1)])
def test_probabilities_of_all_grids_sum_to_one_under_every_condition(num_levels, height, width):
    model = _made(num_levels).double()
    grids = _every_grid(num_levels, height, width)
    log_probs = []
    for condition in _condition(2, height, width).double():
        log_probs.append(model.log_prob(grids, condition.expand(len(grids), -1, -1, -1)))
        assert log_probs[-1].exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (log_probs[0] - log_probs[1]).abs().max() > 0.1


def test_a_change_of_one_code_moves_the_logits_in_reach_after_it_and_no_others():
    model, size, reach = _made(4).double(), 6, 3
    condition = _condition(1, size, size).double()
    seen = torch.zeros(size, size, size, size, dtype=torch.bool)
    for codes in torch.randint(4, (3, size, size), generator=torch.Generator().manual_seed(2)):
        changed = codes.repeat(size * size + 1, 1, 1)
        flat = changed.view(size * size + 1, -1)
        flat[torch.arange(size * size), torch.arange(size * size)] += 1
        with torch.no_grad():
            logits = model(changed % 4, condition.expand(len(changed), -1, -1, -1))
        seen |= ((logits[:-1] - logits[-1]).abs().amax(1) > 1e-12).view(size, size, size, size)
    for i0, j0, i, j in itertools.product(range(size), repeat=4):
        above = 0 < i - i0 <= reach and abs(j - j0) <= reach
        left = i0 == i and 0 < j - j0 <= reach
        assert bool(seen[i0, j0, i, j]) == (above or left), (i0, j0, i, j)


def test_the_condition_reaches_its_own_place_and_those_after_it():
    model, size = _made(3).double(), 5
    condition = _condition(1, size, size).double().requires_grad_()
    codes = torch.randint(3, (1, size, size))
    for i, j in [(0, 0), (2, 3), (4, 4)]:
        (grad,) = torch.autograd.grad(model(codes, condition)[0, :, i, j].square().sum(), condition)
        told = grad[0].abs().sum(0) > 0
        assert bool(told[i, j])
        assert bool(told[:i].any()) == (i > 0)
        assert not bool(told[i + 1 :].any())


def test_without_weights_of_the_condition_it_is_the_unconditional_network():
    model = _made(6)
    for entry in model.entries:
        entry.weight.data.zero_()
    codes = torch.randint(6, (3, 4, 5))
    torch.testing.assert_close(model(codes, _condition(3, 4, 5)), model.stack(codes.unsqueeze(1))[:, :, 0])
    torch.testing.assert_close(model.log_prob(codes, _condition(3, 4, 5)), model.stack.log_prob(codes.unsqueeze(1)))


@pytest.mark.parametrize(
    ("num_levels", "height", "width", "settings"),
    [(2, 8, 8, {}), (64, 5, 7, {"kernel_size": 5}), (17, 6, 4, {"num_layers": 1}), (9, 3, 6, {"kernel_size": 7})],
)
def test_cached_and_naive_sampling_draw_the_same(num_levels, height, width, settings):
    model, condition = _made(num_levels, **settings), _condition(5, height, width)
    cached = model.sample(condition, generator=torch.Generator().manual_seed(7))
    naive = model.sample_naive(condition, generator=torch.Generator().manual_seed(7))
    other = model.sample(condition, generator=torch.Generator().manual_seed(8))
    assert cached.shape == (5, height, width)
    assert cached.dtype == torch.int64
    assert torch.equal(cached, naive)
    assert not torch.equal(cached, other)


def test_samples_beyond_one_chunk_keep_their_own_condition(monkeypatch):
    monkeypatch.setattr("genbench.nn.conditional_pixelcnn.SAMPLES_AT_ONCE", 4)
    model, condition = _made(6), _condition(11, 4, 4)
    draws = [draw(condition, generator=torch.Generator().manual_seed(1)) for draw in (model.sample, model.sample_naive)]
    assert torch.equal(*draws)


def test_samples_follow_the_enumerated_law_of_their_condition():
    model, count = _made(3, seed=3), 20_000
    grids = _every_grid(3, 2, 2)
    for seed in (1, 2):
        condition = _condition(1, 2, 2, seed=seed)
        with torch.no_grad():
            law = model.log_prob(grids, condition.expand(81, -1, -1, -1)).exp()
        drawn = model.sample(condition.expand(count, -1, -1, -1), generator=torch.Generator().manual_seed(0))
        number = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
        found = number.bincount(minlength=81) / count
        deviation = (found - law) / (law * (1 - law) / count).sqrt()
        assert deviation.abs().max() < 4.5  # of 81 nearly normal deviates: P < 1e-3
        assert deviation.square().mean() < 1.5


def test_log_prob_and_the_fused_loss_are_sums_of_cross_entropies():
    model, codes, condition = _made(11), torch.randint(11, (2, 3, 4)), _condition(2, 3, 4)
    expected = F.cross_entropy(model(codes, condition), codes, reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(-model.log_prob(codes, condition), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(model.mean_nll(codes, condition), expected.mean(), rtol=1e-5, atol=1e-4)


def test_gradient_reaches_every_parameter():
    model = _made(6)
    model.mean_nll(torch.randint(6, (8, 6, 6)), _condition(8, 6, 6)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
