"""Networks of hierarchical autoencoders: one path for both uses, causality from the top down, start, shapes."""

import itertools
import math

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.nn.latent_blocks import (
    MIN_VARIANCE,
    Bottleneck,
    BottomUp,
    DenseLayers,
    Moments,
    Step,
    TopDown,
    TopDownBlock,
    enlarged,
)

UP = [Step(8), Step(8, 2), Step(4), Step(4, 4), Step(1)]
DOWN = [Step(1), Step(4, 1), Step(4), Step(8, 4)]
WIDTH, CODES = 6, 2


class PriorAsPosterior(nn.Module):
    """A posterior that ignores the image and says what the prior says."""

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, h_and_features: Tensor) -> Tensor:
        return self.prior(h_and_features[:, :WIDTH])[:, : 2 * CODES]


def _networks(seed: int = 0, *, started: bool = False) -> tuple[BottomUp, TopDown]:
    """Both networks, moved away from their start unless asked otherwise."""
    torch.manual_seed(seed)
    up = BottomUp(3, width=WIDTH, hidden=4, steps=UP)
    down = TopDown(width=WIDTH, hidden=4, latent_dim=CODES, steps=DOWN)
    if not started:
        for parameter in itertools.chain(up.parameters(), down.parameters()):
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return up, down


def _draw(seed: int):
    """Draws from a stream of their own."""
    generator = Generator().manual_seed(seed)
    return lambda mu, log_sigma: mu + log_sigma.exp() * torch.randn(mu.shape, generator=generator)


def _image(seed: int = 0) -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=Generator().manual_seed(seed))


@torch.no_grad()
def test_the_path_without_an_image_is_the_path_with_one_whose_posterior_is_the_prior():
    up, down = _networks()
    for block in down.blocks:
        block.posterior = PriorAsPosterior(block.prior)
    given, layers = down(5, up(_image()), draw=_draw(1))
    free, priors = down(5, None, draw=_draw(1))
    torch.testing.assert_close(given, free)
    for (z, mu_q, log_sigma_q, mu_p, log_sigma_p), prior in zip(layers, priors, strict=True):
        torch.testing.assert_close(mu_q, mu_p)
        torch.testing.assert_close(log_sigma_q, log_sigma_p)
        torch.testing.assert_close((z, mu_p, log_sigma_p), (prior[0], *prior[3:]))
        assert torch.equal(prior[1], prior[3])
        assert torch.equal(prior[2], prior[4])


@torch.no_grad()
def test_codes_given_back_retrace_the_path_on_which_they_were_drawn():
    up, down = _networks()
    state, layers = down(5, up(_image()), draw=_draw(1))
    codes = iter([z for z, *_ in layers])
    again, retraced = down(5, None, draw=lambda mu, log_sigma: next(codes))
    assert torch.equal(state, again)
    for (_, _, _, mu_p, log_sigma_p), prior in zip(layers, retraced, strict=True):
        assert torch.equal(mu_p, prior[3])
        assert torch.equal(log_sigma_p, prior[4])


@pytest.mark.parametrize("changed", range(4))
@torch.no_grad()
def test_a_layer_leans_on_the_layers_above_it_and_on_no_other(changed):
    up, down = _networks()
    features = up(_image())

    def run(offset: float) -> tuple[Tensor, list]:
        draw, layer = _draw(1), itertools.count()
        return down(5, features, draw=lambda mu, s: draw(mu, s) + (offset if next(layer) == changed else 0.0))

    (state, plain), (moved_state, moved) = run(0.0), run(1.0)
    for layer, (before, after) in enumerate(zip(plain, moved, strict=True)):
        same = all(map(torch.equal, before[1:], after[1:]))
        assert same == (layer <= changed), layer
    assert not torch.equal(state, moved_state)


@torch.no_grad()
def test_priors_start_as_standard_gaussians_that_leave_the_state_alone():
    up, down = _networks(started=True)
    _, layers = down(5, up(_image()), draw=_draw(1))
    for z, mu_q, _, mu_p, log_sigma_p in layers:
        assert z.shape == mu_q.shape
        assert not mu_p.any()
        assert not log_sigma_p.any()
    assert bool(layers[0][1].any())


def test_last_convolutions_and_projections_start_smaller_by_the_root_of_the_number_of_blocks():
    torch.manual_seed(0)
    plain = TopDownBlock(64, 16, 8, side=4, gain=1.0)
    torch.manual_seed(0)
    scaled = TopDownBlock(64, 16, 8, side=4, gain=0.5)
    torch.testing.assert_close(scaled.project.weight, 0.5 * plain.project.weight)
    torch.testing.assert_close(scaled.branch[-1].weight, 0.5 * plain.branch[-1].weight)
    torch.testing.assert_close(scaled.branch[1].weight, plain.branch[1].weight)
    torch.testing.assert_close(scaled.posterior[-1].weight, plain.posterior[-1].weight)
    torch.manual_seed(0)
    up = BottomUp(3, width=WIDTH, hidden=4, steps=UP)
    torch.manual_seed(0)
    nn.Conv2d(3, WIDTH, 3)  # the stem takes its share of the stream first
    first = Bottleneck(WIDTH, 4, WIDTH, side=8)
    torch.testing.assert_close(up.blocks[0][-1].weight, first[-1].weight / math.sqrt(len(UP)))


@torch.no_grad()
def test_the_variance_of_the_state_does_not_grow_with_depth_at_the_start():
    sizes = []
    for depth in (2, 32):
        torch.manual_seed(0)
        down = TopDown(width=32, hidden=8, latent_dim=4, steps=[Step(4)] * depth)
        sizes.append(down(64, None, draw=_draw(0))[0].square().mean().item())
    assert 0.5 < sizes[1] / sizes[0] < 2.0


def test_small_grids_are_convolved_pixel_by_pixel():
    for side, kernel in ((1, 1), (2, 1), (3, 3), (8, 3)):
        sizes = [m.kernel_size[0] for m in Bottleneck(4, 4, 4, side=side) if isinstance(m, nn.Conv2d)]
        assert sizes == [1, kernel, kernel, 1]


@torch.no_grad()
def test_features_are_those_of_the_last_block_on_each_grid():
    up, _ = _networks()
    features = up(_image())
    assert {side: tuple(f.shape) for side, f in features.items()} == {s: (5, WIDTH, s, s) for s in (8, 4, 1)}
    h = up.stem(_image())
    for step, block in zip(UP, up.blocks, strict=True):
        h = h + block(h)
        if step.other is not None:
            h = h.unflatten(2, (-1, step.other)).unflatten(4, (-1, step.other)).mean((3, 5))
    torch.testing.assert_close(features[1], h)


@torch.no_grad()
def test_grids_of_odd_sides_are_pooled_over_what_is_there():
    torch.manual_seed(0)
    up = BottomUp(1, width=2, hidden=2, steps=[Step(7, 2), Step(4, 4), Step(1)])
    for block in up.blocks:
        block[-1].weight.zero_()
    h = up.stem(torch.ones(1, 1, 7, 7))
    features = up(torch.ones(1, 1, 7, 7))
    assert sorted(features) == [1, 4, 7]
    torch.testing.assert_close(features[4][:, :, 3, 3], h[:, :, 6, 6])
    torch.testing.assert_close(features[4][:, :, 0, 3], h[:, :, :2, 6].mean(2))


def test_a_grid_grows_by_repeating_pixels_and_is_cut_at_an_odd_side():
    h = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(enlarged(h, 8), h.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(enlarged(h, 7), enlarged(h, 8)[:, :, :7, :7])
    assert torch.equal(enlarged(h[:, :, :1, :1], 3), torch.zeros(1, 1, 3, 3))


def test_a_state_above_64_pixels_starts_from_zeros_and_a_smaller_one_from_a_learned_grid():
    down = TopDown(width=2, hidden=2, latent_dim=1, steps=[Step(1), Step(64, 1), Step(128, 64)])
    assert {side: tuple(start.shape) for side, start in down.starts.items()} == {"1": (2, 1, 1), "64": (2, 64, 64)}
    assert down(1, None, draw=_draw(0))[0].shape == (1, 2, 128, 128)


def test_every_weight_gets_a_gradient_once_the_priors_have_left_zero():
    up, down = _networks()
    state, layers = down(5, up(_image()), draw=_draw(1))
    loss = state.square().sum() + sum(
        (mu_q - mu_p).square().sum() + log_sigma_q.sum() + log_sigma_p.square().sum()
        for _, mu_q, log_sigma_q, mu_p, log_sigma_p in layers
    )
    loss.backward()
    for name, parameter in [*up.named_parameters(), *down.named_parameters()]:
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_moments_are_a_linear_mean_and_a_softplus_variance_that_stays_positive():
    torch.manual_seed(0)
    moments, h = Moments(3, 2), torch.randn(7, 3)
    mu, log_sigma = moments(h)
    linear = moments.linear(h)
    torch.testing.assert_close(mu, linear[:, :2])
    torch.testing.assert_close(torch.exp(2 * log_sigma), nn.functional.softplus(linear[:, 2:]) + MIN_VARIANCE)
    moments.linear.bias.data.fill_(-500.0)
    assert torch.exp(2 * moments(h)[1]).allclose(torch.full((7, 2), MIN_VARIANCE), rtol=1e-4, atol=0)


@pytest.mark.parametrize("normalised", [False, True])
def test_dense_layers_are_two_with_a_bias_only_where_the_batch_does_not_take_it(normalised):
    torch.manual_seed(0)
    layers = DenseLayers(5, 7, normalised=normalised)
    linears = [m for m in layers if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features, m.bias is None) for m in linears] == [
        (5, 7, normalised),
        (7, 7, normalised),
    ]
    assert sum(isinstance(m, nn.BatchNorm1d) for m in layers) == 2 * normalised
    out = layers(torch.randn(64, 5))
    assert out.shape == (64, 7)
    assert bool((out < 0).any())  # a leaky rectifier passes a tenth of what is negative
