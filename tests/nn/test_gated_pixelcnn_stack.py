"""The stack is a normalised distribution, sees everything earlier and nothing later, and samples itself."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from genbench.nn._categorical_head import categorical_log_prob, categorical_nll, draw
from genbench.nn.gated_pixelcnn import GatedPixelCNNStack


def made(num_channels, num_levels, *, seed=0, **settings):
    """A stack off its starting point: no bias is zero, and the softmax is far from uniform."""
    torch.manual_seed(seed)
    sizes = {"width": 12, "num_layers": 3, "kernel_size": 3, "head_width": 16} | settings
    stack = GatedPixelCNNStack(num_channels=num_channels, num_levels=num_levels, **sizes)
    for parameter in stack.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return stack


def every_grid(num_levels, shape):
    places = torch.Size(shape).numel()
    grids = itertools.product(range(num_levels), repeat=places)
    return torch.tensor(list(grids)).view(-1, *shape)


@pytest.mark.parametrize("inputs", ["ordered", "categorical"])
@pytest.mark.parametrize(
    ("num_levels", "shape"), [(4, (1, 2, 2)), (3, (1, 2, 3)), (3, (3, 1, 2)), (3, (3, 2, 1)), (2, (2, 2, 2))]
)
def test_probabilities_of_all_grids_sum_to_one(num_levels, shape, inputs):
    stack = made(shape[0], num_levels, inputs=inputs).double()
    log_prob = stack.log_prob(every_grid(num_levels, shape))
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_prob.max() > log_prob.mean() + 0.5  # not the uniform law, for which any masks would do


@pytest.mark.parametrize(("num_channels", "kernel_size", "num_layers"), [(1, 3, 2), (1, 5, 2), (3, 3, 2), (3, 5, 1)])
def test_each_logit_sees_every_earlier_sub_pixel_in_reach_and_nothing_else(num_channels, kernel_size, num_layers):
    size = 7
    stack = made(num_channels, 4, kernel_size=kernel_size, num_layers=num_layers).double()
    grids = torch.randint(4, (3, 1, num_channels, size, size))  # where one leaves a ReLU off another turns it on
    seen = torch.stack([_influence(stack, codes) for codes in grids]).any(dim=0)  # (changed place, answering place)
    expected = _in_reach(num_channels, size, num_layers * (kernel_size // 2))
    assert not (seen & ~expected).any()
    assert not (expected & ~seen).any()
    assert (
        expected.flatten(0, 2).any(dim=0).sum() == num_channels * size * size - 1
    )  # all but the very first depend on something


def test_a_later_change_moves_no_logit_and_an_earlier_one_does_by_gradient():
    stack = made(3, 5).double()
    embedded = stack._embedded(torch.randint(5, (1, 3, 6, 6))).detach()

    def last_logits(e):
        stack._embedded = lambda codes: e
        return stack(torch.zeros(1, 3, 6, 6, dtype=torch.int64))[0, :, 1, 2, 3].sum()

    jacobian = torch.autograd.functional.jacobian(last_logits, embedded)[0].unflatten(0, (3, -1)).abs().sum(1)
    allowed = _in_reach(3, 6, 3)[..., 1, 2, 3]
    assert torch.equal(jacobian > 0, allowed)


@pytest.mark.parametrize(
    ("num_channels", "num_levels", "height", "width", "settings"),
    [
        (1, 2, 8, 8, {}),
        (1, 256, 5, 7, {"kernel_size": 5}),
        (3, 17, 6, 4, {"num_layers": 1}),
        (3, 256, 8, 8, {"num_layers": 4, "kernel_size": 5}),
        (2, 9, 3, 6, {"inputs": "categorical", "kernel_size": 7}),
        (3, 4, 1, 1, {}),
    ],
)
def test_cached_and_naive_sampling_draw_the_same(num_channels, num_levels, height, width, settings):
    stack = made(num_channels, num_levels, **settings)
    cached = stack.sample(5, height, width, generator=torch.Generator().manual_seed(7))
    naive = stack.sample_naive(5, height, width, generator=torch.Generator().manual_seed(7))
    other = stack.sample(5, height, width, generator=torch.Generator().manual_seed(8))
    assert cached.shape == (5, num_channels, height, width)
    assert cached.dtype == torch.int64
    assert torch.equal(cached, naive)
    assert not torch.equal(cached, other)


def test_samples_beyond_one_chunk_are_the_same_as_those_of_naive_sampling(monkeypatch):
    monkeypatch.setattr("genbench.nn._gated_pixelcnn_cache.SAMPLES_AT_ONCE", 4)
    stack = made(1, 6)
    draws = [f(11, 4, 4, generator=torch.Generator().manual_seed(1)) for f in (stack.sample, stack.sample_naive)]
    assert torch.equal(*draws)


def test_samples_follow_the_enumerated_law():
    stack = made(1, 3, seed=3)
    grids = every_grid(3, (1, 2, 2))
    law = stack.log_prob(grids).exp()
    drawn = stack.sample(20_000, 2, 2, generator=torch.Generator().manual_seed(0)).flatten(1)
    number = (drawn * torch.tensor([27, 9, 3, 1])).sum(1)
    found = number.bincount(minlength=81) / 20_000
    deviation = (found - law) / (law * (1 - law) / 20_000).sqrt()
    assert deviation.abs().max() < 4.5  # of 81 nearly normal deviates: P < 1e-3
    assert deviation.square().mean() < 1.5


def test_draw_inverts_the_distribution_function_even_at_its_ends():
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    logits = torch.cat([torch.tensor([[-torch.inf]]), logits, torch.tensor([[-torch.inf]])], dim=1)
    uniforms = torch.tensor([0.0, 0.1, 0.21, 0.69, 0.71, 1 - 2**-24])
    assert draw(logits.expand(6, -1), uniforms).tolist()[:-1] == [1, 1, 2, 2, 3]
    assert draw(logits[:, :-1], uniforms[-1:]).item() == 3


@pytest.mark.parametrize(("num_channels", "inputs"), [(3, "ordered"), (1, "categorical")])
def test_log_prob_is_the_sum_of_gathered_log_softmax(num_channels, inputs):
    stack = made(num_channels, 11, inputs=inputs)
    codes = torch.randint(11, (2, num_channels, 3, 4))
    log_softmax = stack(codes).double().log_softmax(1)
    expected = torch.zeros(2, dtype=torch.float64)
    for b, c, i, j in itertools.product(range(2), range(num_channels), range(3), range(4)):
        expected[b] += log_softmax[b, codes[b, c, i, j], c, i, j]
    torch.testing.assert_close(stack.log_prob(codes).double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(stack.mean_nll(codes).double(), -expected.mean(), rtol=1e-5, atol=1e-4)


def test_the_fused_loss_and_its_gradients_equal_cross_entropy_over_several_slices(monkeypatch):
    monkeypatch.setattr("genbench.nn._categorical_head.SLICE_ELEMENTS", 70)
    torch.manual_seed(0)
    features, weight, bias = torch.randn(31, 2, 5), torch.randn(2, 7, 5), torch.randn(2, 7)
    arguments = [value.double().requires_grad_() for value in (features, weight, bias)]
    targets = torch.randint(7, (31, 2))
    logits = torch.einsum("rcs,cks->rck", *arguments[:2]) + arguments[2]
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    found = [
        categorical_nll(*[value.float() for value in arguments], targets),
        -categorical_log_prob(*[value.float() for value in arguments], targets).sum(),
    ]
    for loss in found:
        torch.testing.assert_close(loss.double(), expected)
        grads = torch.autograd.grad(2 * loss, arguments, retain_graph=True)
        for grad, right in zip(grads, torch.autograd.grad(2 * expected, arguments, retain_graph=True), strict=True):
            torch.testing.assert_close(grad, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", ["ordered", "categorical"])
def test_gradient_reaches_every_parameter(inputs):
    stack = made(3, 6, inputs=inputs)
    stack.mean_nll(torch.randint(6, (8, 3, 6, 6))).backward()
    for name, parameter in stack.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_output_biases_start_at_the_smoothed_histogram_of_each_channel():
    stack = made(2, 3)
    codes = torch.tensor([[[[0, 0]], [[2, 2]]], [[[0, 1]], [[2, 2]]]])
    stack.start_from(codes)
    torch.testing.assert_close(stack.out_bias.exp(), torch.tensor([[4 / 7, 2 / 7, 1 / 7], [1 / 7, 1 / 7, 5 / 7]]))


def test_sizes_that_do_not_fit_are_refused():
    for settings in ({"width": 10}, {"kernel_size": 4}, {"kernel_size": 1}, {"num_layers": 0}):
        with pytest.raises(ValueError, match="channels divide"):
            made(3, 4, **settings)


def _influence(stack, codes):
    """Which sub-pixel's logits move when another sub-pixel changes: (C', H', W', C, H, W) bool."""
    C, H, W = codes.shape[1:]
    places = list(itertools.product(range(C), range(H), range(W)))
    changed = codes.repeat(len(places) + 1, 1, 1, 1)  # the last one stays
    for row, (c, i, j) in enumerate(places):
        changed[row, c, i, j] = (changed[row, c, i, j] + 1) % stack.num_levels
    with torch.no_grad():
        logits = stack(changed)
    moved = (logits[:-1] - logits[-1:]).abs().amax(1) > 1e-12  # float64: a thousand times its rounding
    return moved.view(C, H, W, C, H, W)


def _in_reach(num_channels, size, reach):
    """What the masks of the paper allow, written down place by place: (C', H', W', C, H, W) bool."""
    allowed = torch.zeros((num_channels, size, size) * 2, dtype=torch.bool)
    for c0, i0, j0, c, i, j in itertools.product(*[range(n) for n in allowed.shape]):
        above = 0 < i - i0 <= reach and abs(j - j0) <= reach
        left = i0 == i and 0 < j - j0 <= reach
        before = (i0, j0) == (i, j) and c0 < c
        allowed[c0, i0, j0, c, i, j] = above or left or before
    return allowed


def _told(num_channels, num_levels, **settings):
    return made(num_channels, num_levels, condition_width=4, **settings)


def _conditions(count, seed=3):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num_levels", "shape"), [(4, (1, 2, 2)), (3, (2, 1, 2)), (3, (3, 2, 1))])
def test_probabilities_sum_to_one_under_every_condition(num_levels, shape):
    stack, grids = _told(shape[0], num_levels).double(), every_grid(num_levels, shape)
    log_probs = [stack.log_prob(grids, condition.expand(len(grids), -1)) for condition in _conditions(2).double()]
    for log_prob in log_probs:
        assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert (log_probs[0] - log_probs[1]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("num_channels", "num_levels", "settings"), [(1, 17, {}), (3, 256, {"kernel_size": 5}), (3, 4, {"num_layers": 1})]
)
def test_cached_and_naive_sampling_draw_the_same_under_conditions(num_channels, num_levels, settings, monkeypatch):
    monkeypatch.setattr("genbench.nn._gated_pixelcnn_cache.SAMPLES_AT_ONCE", 4)
    stack, condition = _told(num_channels, num_levels, **settings), _conditions(7)
    cached = stack.sample(7, 5, 4, generator=torch.Generator().manual_seed(7), condition=condition)
    naive = stack.sample_naive(7, 5, 4, generator=torch.Generator().manual_seed(7), condition=condition)
    other = stack.sample(7, 5, 4, generator=torch.Generator().manual_seed(7), condition=_conditions(7, seed=4))
    assert torch.equal(cached, naive)
    assert not torch.equal(cached, other)


def test_a_condition_enters_the_gates_of_both_stacks_at_every_layer():
    stack, condition = _told(1, 5), _conditions(1).requires_grad_()
    codes = torch.randint(5, (1, 1, 4, 4))
    assert len(stack.entries) == 3
    for number, entry in enumerate(stack.entries):
        for half in range(2):  # of the vertical stack, then of the horizontal one
            kept = [e.weight.detach().clone() for e in stack.entries]
            for other in stack.entries:
                other.weight.data.zero_()
            rows = slice(24 * half, 24 * half + 24)
            entry.weight.data[rows] = kept[number][rows]
            (slope,) = torch.autograd.grad(stack(codes, condition).square().sum(), condition)
            assert slope.abs().sum() > 0
            for other, weight in zip(stack.entries, kept, strict=True):
                other.weight.data = weight


def test_a_stack_with_weights_of_conditions_at_zero_is_the_stack_without():
    plain, told = made(3, 6), _told(3, 6)
    told.load_state_dict(plain.state_dict(), strict=False)
    for entry in told.entries:
        entry.weight.data.zero_()
    codes = torch.randint(6, (2, 3, 5, 5))
    assert torch.equal(told(codes, _conditions(2)), plain(codes))
    assert torch.equal(told(codes), plain(codes))


def test_a_stack_without_a_condition_starts_and_is_named_as_before_conditions_were_known():
    torch.manual_seed(0)
    plain = GatedPixelCNNStack(num_channels=1, num_levels=4, width=4, num_layers=2, kernel_size=3)
    after = torch.rand(1)
    torch.manual_seed(0)
    told = GatedPixelCNNStack(num_channels=1, num_levels=4, width=4, num_layers=2, kernel_size=3, condition_width=2)
    assert not torch.equal(after, torch.rand(1))  # only a condition draws more first weights, and draws them last
    assert not any("entries" in name for name in plain.state_dict())
    assert all(torch.equal(value, told.state_dict()[name]) for name, value in plain.state_dict().items())
