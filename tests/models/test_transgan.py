import dataclasses

import pytest
import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.models.gan.transgan import TransGAN
from genbench.prob.differentiable_augmentation import augmented
from genbench.prob.gradient_penalty import gradient_penalty
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(3, 8, 8))


def model_of(spec=SPEC, **settings):
    torch.manual_seed(0)
    return TransGAN(spec, dataclasses.replace(TransGAN.presets["smoke"], **settings))


def batch_of(num=8):
    return Batch(torch.randint(0, 256, (num, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8))


def test_the_discriminator_minimises_penalty_and_drift_less_the_distance():
    model, batch = model_of(augmentation="", drift_weight=0.5), batch_of()
    torch.manual_seed(3)
    loss = model.loss(batch, "discriminator")
    torch.manual_seed(3)
    x = to_signed(batch.x, 256)
    fake = model.generator(torch.randn(len(batch), model.config.latent_dim)).detach()
    penalty = gradient_penalty(model.discriminator, x, fake)
    real, made = model.discriminator(x).mean(), model.discriminator(fake).mean()
    torch.testing.assert_close(loss.total, 10 * penalty + made - real + 0.5 * real**2, rtol=1e-4, atol=1e-5)


def test_the_generator_is_judged_by_augmented_images():
    model, batch = model_of(augmentation="translation+cutout+color"), batch_of()
    torch.manual_seed(3)
    total = model.loss(batch, "generator").total
    torch.manual_seed(3)
    fake = model.generator(torch.randn(len(batch), model.config.latent_dim))
    torch.testing.assert_close(total, -model.discriminator(augmented(fake, "translation+cutout+color")).mean())


def test_the_discriminator_never_sees_an_image_that_is_not_augmented():
    # A brightness of its own moves every image off the grid of pixel values.
    model, batch, seen = model_of(augmentation="color"), batch_of(), []
    model.discriminator.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    model.loss(batch, "discriminator")
    levels = (seen[0][: len(batch)] + 1) * 127.5
    assert ((levels - levels.round()).abs() > 1e-2).any(dim=(1, 2, 3)).all()


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_only_the_named_player_receives_gradient(player):
    model = model_of()
    model.loss(batch_of(), player).total.backward()
    networks = {"discriminator": model.discriminator, "generator": model.generator}
    own = networks.pop(player)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in own.parameters())
    (other,) = networks.values()
    assert all(p.grad is None for p in other.parameters())


def test_the_paper_preset_is_the_network_for_cifar10():
    with torch.device("meta"):
        model = TransGAN(DataSpec(shape=(3, 32, 32)), TransGAN.presets["paper"])
    widths = [stage.wide.in_features for stage in model.generator.stages if hasattr(stage, "wide")]
    assert widths == [1024] * 5 + [256] * 4 + [64] * 2
    assert model.generator.side == 8
    (phase,) = model.phases()
    assert [player.turns for player in phase.players] == [4, 1]


@pytest.mark.parametrize(
    "settings", [{"generator_depths": (2, 0, 1)}, {"discriminator_depths": (0, 1)}, {"augmentation": "x"}]
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=r"expected|at least 1 block"):
        dataclasses.replace(TransGAN.presets["smoke"], **settings)
