import dataclasses

import pytest
import torch
import torch.nn.functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.models.gan.vitgan import ViTGAN
from genbench.prob.differentiable_augmentation import augmented
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(3, 8, 8))
POLICY = "translation+cutout+color"


def model_of(**settings):
    torch.manual_seed(0)
    return ViTGAN(SPEC, dataclasses.replace(ViTGAN.presets["smoke"], augmentation=POLICY, **settings)).eval()


def batch_of(num=8):
    return Batch(torch.randint(0, 256, (num, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8))


def test_the_discriminator_minimises_logistic_loss_penalty_and_inconsistency_under_one_augmentation_of_both():
    model, batch = model_of(gamma=3.0, consistency_weight=7.0), batch_of()
    torch.manual_seed(3)
    total = model.loss(batch, "discriminator").total
    torch.manual_seed(3)
    x = to_signed(batch.x, 256)
    fake = model.generator(torch.randn(len(batch), model.config.latent_dim)).detach()
    t_real, t_fake = augmented(torch.cat([x, fake]), POLICY).chunk(2)
    t_real.requires_grad_()
    real, made = model.discriminator(t_real), model.discriminator(t_fake)
    (slope,) = torch.autograd.grad(real.sum(), t_real, create_graph=True)
    expected = F.softplus(-real).mean() + F.softplus(made).mean() + 1.5 * slope.square().sum((1, 2, 3)).mean()
    for scores, plain in ((real, x), (made, fake)):
        expected = expected + 7 * (scores - model.discriminator(plain)).square().mean()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)


def test_the_generator_does_not_saturate_and_is_judged_by_augmented_images():
    model, batch = model_of(), batch_of()
    torch.manual_seed(3)
    total = model.loss(batch, "generator").total
    torch.manual_seed(3)
    fake = model.generator(torch.randn(len(batch), model.config.latent_dim))
    torch.testing.assert_close(total, F.softplus(-model.discriminator(augmented(fake, POLICY))).mean())


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_only_the_named_player_receives_gradient(player):
    model = model_of().train()
    model.loss(batch_of(), player).total.backward()
    networks = {"discriminator": model.discriminator, "generator": model.generator}
    own = networks.pop(player)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in own.parameters())
    (other,) = networks.values()
    assert all(p.grad is None for p in other.parameters())


def test_spectral_norms_of_the_discriminator_stay_through_training():
    model = model_of().train()
    layers = [m for m in model.discriminator.modules() if hasattr(m, "first_norm")]
    assert len(layers) == 2 + 5 * 2  # embedding and score; three projections and two dense layers a block
    optimiser = torch.optim.Adam(model.discriminator.parameters(), lr=1e-2)
    for _ in range(20):
        optimiser.zero_grad()
        model.loss(batch_of(), "discriminator").total.backward()
        optimiser.step()
    for layer in layers:
        for _ in range(100):
            used = layer.normalised().detach()
        torch.testing.assert_close(torch.linalg.matrix_norm(used, 2), layer.first_norm, rtol=1e-3, atol=0)


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="unknown augmentation"):
        dataclasses.replace(ViTGAN.presets["smoke"], augmentation="flip")
