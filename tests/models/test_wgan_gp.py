import dataclasses

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.models.optimal_transport.wgan_gp import WGANGP
from genbench.prob.gradient_penalty import gradient_penalty, one_sided_gradient_penalty
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(3, 8, 8))


def model_of(spec=SPEC, preset="smoke"):
    torch.manual_seed(0)
    return WGANGP(spec, WGANGP.presets[preset])


def batch_of(spec=SPEC, num=16):
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8))


def linear_critic(slope, num_dims):
    """Scores with a gradient of norm `slope` everywhere."""
    direction = torch.randn(num_dims, dtype=torch.float64)
    direction *= slope / direction.norm()
    return lambda x: x.flatten(1) @ direction


@pytest.mark.parametrize("slope", [0.0, 0.25, 1.0, 3.0])
def test_penalty_of_a_linear_critic_is_the_squared_distance_of_its_slope_from_one(slope):
    real, fake = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    penalty = gradient_penalty(linear_critic(slope, 12), real, fake)
    assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-12)


def test_penalty_looks_between_the_pairs_and_draws_one_place_for_each():
    seen = []

    def critic(x):
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    gradient_penalty(critic, torch.zeros(50, 3, 2, 2), torch.ones(50, 3, 2, 2))
    (x,) = seen
    assert torch.equal(x, x[:, :1, :1, :1].expand_as(x))
    assert 0 <= x.min() < 0.2
    assert 0.8 < x.max() <= 1
    assert len(x[:, 0, 0, 0].unique()) > 40


def test_gradient_of_the_penalty_matches_its_closed_form():
    # f(x) = w x^2 / 2 has slope |w x|; d/dw (|w x| - 1)^2 = 2 (|w x| - 1) |x| for w > 0; equal pairs fix x.
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.5], [-2.0], [3.0]], dtype=torch.float64)
    gradient_penalty(lambda x: w * x.square().sum(1) / 2, x, x).backward()
    expected = (2 * (0.7 * x.abs() - 1) * x.abs()).mean()
    assert w.grad.item() == pytest.approx(expected.item(), rel=1e-12)


def test_penalty_sends_no_gradient_to_the_images():
    real, fake = (torch.randn(5, 2, requires_grad=True) for _ in range(2))
    weight = torch.randn(2, requires_grad=True)
    gradient_penalty(lambda x: (x * x) @ weight, real, fake).backward()
    assert weight.grad is not None
    assert real.grad is None
    assert fake.grad is None


def ordered_pair():
    """Two laws on the line, one wholly above the other: a linear potential is optimal between them."""
    generator = torch.Generator().manual_seed(0)
    fake, real = (torch.rand(500, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    return 2 + 0.5 * real, fake, wasserstein_distance(2 + 0.5 * real[:, 0].numpy(), fake[:, 0].numpy())


@pytest.mark.parametrize("weight", [10.0, 1e6])
def test_a_trained_critic_reaches_the_wasserstein_distance_that_sorting_gives(weight):
    # With f(x) = k x the loss is weight (k - 1)^2 - k W: the optimum k = 1 + W / (2 weight) tends to slope one.
    real, fake, exact = ordered_pair()
    k = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(20):
        distance = k * (real.mean() - fake.mean())
        loss = weight * gradient_penalty(lambda x: k * x.sum(1), real, fake) - distance
        (slope,) = torch.autograd.grad(loss, k)
        k.data -= 0.9 * slope / (2 * weight)
    assert exact == pytest.approx((real.sort(0)[0] - fake.sort(0)[0]).abs().mean().item(), rel=1e-12)
    assert distance.item() == pytest.approx(exact * (1 + exact / (2 * weight)), rel=1e-9)


def test_no_critic_of_slope_at_most_one_exceeds_the_wasserstein_distance():
    real, fake, exact = ordered_pair()
    grid = torch.linspace(0, 2.5, 2000, dtype=torch.float64).unsqueeze(1).requires_grad_()
    distances = []
    for seed in range(20):
        torch.manual_seed(seed)
        critic = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1), nn.Flatten(0)).double()
        (slopes,) = torch.autograd.grad(critic(grid).sum(), grid)
        distances.append(((critic(real).mean() - critic(fake).mean()) / slopes.abs().max()).item())
    assert max(distances) <= exact
    assert max(distances) > 0.5 * exact


def test_critic_loss_is_the_penalty_less_the_distance_and_falls_when_real_images_score_higher():
    model, batch = model_of(), batch_of()
    torch.manual_seed(3)
    loss = model.loss(batch, "critic")
    torch.manual_seed(3)
    fake = model.generator(torch.randn(len(batch), model.config.latent_dim)).detach()
    distance = model.critic(to_signed(batch.x, 256)).mean() - model.critic(fake).mean()
    torch.testing.assert_close(loss.parts["distance"], distance.detach())
    torch.testing.assert_close(loss.total.detach(), 10 * loss.parts["penalty"] - loss.parts["distance"])


def test_generator_loss_falls_when_generated_images_score_higher_and_takes_only_the_size_of_the_batch():
    model, batch = model_of(), batch_of()
    losses = []
    for x in (batch.x, 255 - batch.x):
        torch.manual_seed(3)
        losses.append(model.loss(Batch(x), "generator").total)
    torch.manual_seed(3)
    score = model.critic(model.generator(torch.randn(len(batch), model.config.latent_dim))).mean()
    assert losses[0] == losses[1]
    torch.testing.assert_close(losses[0], -score)


@pytest.mark.parametrize(("player", "other"), [("critic", "generator"), ("generator", "critic")])
def test_only_the_named_player_receives_gradient(player, other):
    model = model_of()
    model.loss(batch_of(), player).total.backward()
    networks = {"critic": model.critic, "generator": model.generator}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in networks[player].parameters())
    assert all(p.grad is None for p in networks[other].parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_scores_of_a_batch_are_those_of_its_examples_one_by_one():
    # The penalty needs one gradient per example: a norm over the batch would couple them.
    for networks in ("strided", "residual"):
        config = WGANGP.Config(networks=networks, channels=8, critic_channels=8)
        critic = WGANGP(SPEC, config).critic
        x = torch.randn(4, 3, 8, 8)
        torch.testing.assert_close(critic(x), torch.cat([critic(row) for row in x.split(1)]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("networks", ["strided", "residual"])
@pytest.mark.parametrize("side", [8, 16, 28, 32, 64])
def test_both_networks_take_every_side(networks, side):
    spec = DataSpec(shape=(1, side, side), levels=17)
    model = WGANGP(spec, WGANGP.Config(networks=networks, channels=4, critic_channels=4, latent_dim=3))
    drawn = model.eval().sample(2, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 1, side, side)
    assert drawn.dtype == torch.uint8
    assert drawn.max() <= 16
    assert model.critic(to_signed(drawn, 17)).shape == (2,)


def test_the_paper_preset_has_the_networks_of_appendix_f_at_32_pixels():
    with torch.device("meta"):
        model = WGANGP(DataSpec(shape=(3, 32, 32)), WGANGP.presets["paper"])
    convolutions = {
        name: sum(isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) for module in net.modules())
        for name, net in (("generator", model.generator), ("critic", model.critic))
    }
    # Three doubling blocks of two convolutions and the last; a stem, and four blocks of two.
    assert convolutions == {"generator": 7, "critic": 9}


def test_the_critic_takes_its_turns_before_the_generator_with_adam_free_of_momentum():
    (phase,) = model_of(preset="paper").phases()
    critic, generator = phase.players
    assert (critic.name, critic.turns, generator.name, generator.turns) == ("critic", 5, "generator", 1)
    assert critic.betas == generator.betas == (0.0, 0.9)
    assert critic.ema_decay is None


@pytest.mark.parametrize(("slope", "expected"), [(0.0, 0.0), (0.25, 0.0), (1.0, 0.0), (3.0, 4.0)])
def test_the_one_sided_penalty_lets_small_slopes_be(slope, expected):
    real, fake = torch.randn(2, 7, 3, 4, dtype=torch.float64)
    penalty = one_sided_gradient_penalty(linear_critic(slope, 12), real, fake)
    assert penalty.item() == pytest.approx(expected, abs=1e-12)


def test_a_step_of_the_generator_may_take_several_batches():
    torch.manual_seed(0)
    model = WGANGP(SPEC, dataclasses.replace(WGANGP.presets["smoke"], generator_batches=3))
    seen = []
    model.generator.register_forward_hook(lambda net, given, out: seen.append(len(out)))
    model.loss(batch_of(num=5), "generator")
    assert seen == [15]


@pytest.mark.parametrize("penalty", ["one_sided", "two_sided"])
def test_vectors_have_networks_of_their_own(penalty):
    spec = DataSpec(shape=(2,), kind="vector", levels=None)
    model = WGANGP(spec, dataclasses.replace(WGANGP.presets["vector"], penalty=penalty))
    batch = Batch(torch.randn(6, 2))
    assert all(model.loss(batch, player).total.isfinite() for player in ("critic", "generator"))
    drawn = model.eval().sample(4, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 2)
    assert drawn.dtype == torch.float32


def test_waveforms_are_refused():
    with pytest.raises(SettingError, match="images of integers and vectors of floats"):
        WGANGP(DataSpec(shape=(1, 16), kind="waveform", levels=None), WGANGP.presets["smoke"])
