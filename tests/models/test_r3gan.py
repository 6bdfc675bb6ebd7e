import math

import pytest
import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.models.gan.r3gan import R3GAN, relativistic_loss
from genbench.prob.gradient_penalty import with_squared_slopes
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(3, 8, 8))


def model_of(spec=SPEC, preset="smoke"):
    torch.manual_seed(0)
    return R3GAN(spec, R3GAN.presets[preset])


def batch_of(spec=SPEC, num=8):
    generator = torch.Generator().manual_seed(1)
    return Batch(torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8))


def test_the_loss_of_a_pair_is_log_of_one_plus_the_exponential_of_the_difference_and_its_gradient_a_sigmoid():
    real, fake = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.3, -1.0, 4.0], [0.8, 2.0, 4.0]))
    loss = relativistic_loss(real, fake)
    gaps = [0.5, 3.0, 0.0]
    assert loss.item() == pytest.approx(sum(math.log1p(math.exp(gap)) for gap in gaps) / 3, rel=1e-14)
    loss.backward()
    expected = torch.tensor([1 / (1 + math.exp(-gap)) / 3 for gap in gaps], dtype=torch.float64)
    torch.testing.assert_close(fake.grad, expected)
    torch.testing.assert_close(real.grad, -expected)


def test_a_constant_added_to_all_scores_changes_no_loss():
    real, fake = torch.randn(2, 9, dtype=torch.float64)
    torch.testing.assert_close(relativistic_loss(real + 5, fake + 5), relativistic_loss(real, fake))


def test_one_player_s_gain_at_its_pair_is_the_other_s_loss():
    # softplus(t) - softplus(-t) = t: the two losses differ by the mean gap of the scores.
    real, fake = torch.randn(2, 9, dtype=torch.float64)
    gap = relativistic_loss(real, fake) - relativistic_loss(fake, real)
    torch.testing.assert_close(gap, (fake - real).mean())


def test_squared_slopes_of_a_linear_and_of_a_quadratic_score_are_their_closed_forms():
    torch.manual_seed(0)
    a, matrix = torch.randn(6, dtype=torch.float64), torch.randn(6, 6, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    scores, slopes = with_squared_slopes(lambda x: x.flatten(1) @ a, x)
    torch.testing.assert_close(scores, x.flatten(1) @ a)
    torch.testing.assert_close(slopes, a.square().sum().expand(5))
    _, slopes = with_squared_slopes(lambda x: ((x.flatten(1) @ matrix) * x.flatten(1)).sum(1), x)
    torch.testing.assert_close(slopes, (x.flatten(1) @ (matrix + matrix.T)).square().sum(1))


def test_the_penalty_trains_the_score_by_the_gradient_of_its_closed_form():
    # f(x) = w |x|^2 / 2 has |grad f|^2 = w^2 |x|^2, whose derivative is 2 w |x|^2.
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    with_squared_slopes(lambda x: w * x.square().sum(1) / 2, x)[1].sum().backward()
    assert w.grad.item() == pytest.approx(2 * 0.7 * x.detach().square().sum().item(), rel=1e-12)
    assert x.grad is None


def test_the_discriminator_minimises_the_pairing_and_both_penalties():
    model, batch = model_of(), batch_of()
    torch.manual_seed(3)
    loss = model.loss(batch, "discriminator")
    torch.manual_seed(3)
    fake = model.generator(torch.randn(len(batch), model.config.latent_dim)).detach()
    penalties = []
    real = to_signed(batch.x, 256)
    for x in (real, fake):
        x = x.clone().requires_grad_()
        rows = [torch.autograd.grad(model.discriminator(x[i : i + 1]).sum(), x)[0][i] for i in range(len(x))]
        penalties.append(torch.stack([row.square().sum() for row in rows]).mean())
    pairing = torch.nn.functional.softplus(model.discriminator(fake) - model.discriminator(real)).mean()
    torch.testing.assert_close(
        torch.stack([loss.parts["r1"], loss.parts["r2"]]), torch.stack(penalties), rtol=1e-4, atol=1e-6
    )
    expected = pairing + 0.5 * model.config.gamma * sum(penalties)
    torch.testing.assert_close(loss.total, expected)


def test_the_generator_minimises_the_pairing_the_other_way_round():
    model, batch = model_of(), batch_of()
    torch.manual_seed(3)
    total = model.loss(batch, "generator").total
    torch.manual_seed(3)
    fake = model.generator(torch.randn(len(batch), model.config.latent_dim))
    gap = model.discriminator(to_signed(batch.x, 256)) - model.discriminator(fake)
    torch.testing.assert_close(total, torch.nn.functional.softplus(gap).mean())


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_only_the_named_player_receives_gradient(player):
    model = model_of()
    model.loss(batch_of(), player).total.backward()
    networks = {"discriminator": model.discriminator, "generator": model.generator}
    own = networks.pop(player)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in own.parameters())
    (other,) = networks.values()
    assert all(p.grad is None for p in other.parameters())


def test_the_paper_preset_has_two_blocks_of_768_channels_on_each_grid_from_4_to_32():
    with torch.device("meta"):
        model = R3GAN(DataSpec(shape=(3, 32, 32)), R3GAN.presets["paper"])
    for network in (model.generator, model.discriminator):
        grouped = [m for m in network.modules() if getattr(m, "groups", 1) == 96]
        assert [(m.in_channels, m.kernel_size) for m in grouped] == [(1536, (3, 3))] * 8


def test_players_take_turns_one_by_one_without_momentum_and_the_generator_is_averaged():
    (phase,) = model_of().phases()
    discriminator, generator = phase.players
    assert (discriminator.name, discriminator.turns, generator.name, generator.turns) == (
        "discriminator",
        1,
        "generator",
        1,
    )
    assert discriminator.betas == generator.betas == (0.0, 0.99)
    assert discriminator.ema_decay is None
    assert generator.ema_decay == model_of().config.ema_decay


def test_vectors_have_networks_of_their_own_and_waveforms_are_refused():
    spec = DataSpec(shape=(2,), kind="vector", levels=None)
    model = R3GAN(spec, R3GAN.presets["vector"])
    assert all(
        model.loss(Batch(torch.randn(6, 2)), player).total.isfinite() for player in ("discriminator", "generator")
    )
    assert model.eval().sample(4, generator=torch.Generator().manual_seed(0)).shape == (4, 2)
    with pytest.raises(SettingError, match="images of integers and vectors of floats"):
        R3GAN(DataSpec(shape=(1, 16), kind="waveform", levels=None), R3GAN.presets["smoke"])
