"""Terms of all losses by hand, latents of unit size, what each phase leaves alone, conditions and guidance."""

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.diffusion.latent_diffusion import LatentDiffusion
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(3, 8, 8), num_classes=4, vocabulary=("", "red", "blue", "square"))


def _made(spec=SPEC, **settings):
    torch.manual_seed(0)
    model = build_model(
        MODELS.get("latent_diffusion"), spec, preset="smoke", settings=settings, owner="latent_diffusion"
    )
    assert isinstance(model, LatentDiffusion)
    return model


def _batch(count=8, side=8, channels=3, levels=256):
    generator = Generator().manual_seed(0)
    x = torch.randint(0, levels, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 3
    return Batch(x, y=labels, text=torch.stack([labels + 1, labels * 0], dim=1))


def _awake(model):
    """Away from the start, where residual blocks and attention pass nothing on."""
    torch.manual_seed(7)
    for parameter in model.unet.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def test_the_first_phase_adds_the_divergence_to_what_the_critic_says():
    batch, model = _batch(), _made(kl_weight=0.01)
    torch.manual_seed(1)
    loss = model.loss(batch, "autoencoder")
    mu, log_sigma = model._posterior(batch.x)
    torch.manual_seed(1)
    z = mu + log_sigma.exp() * torch.randn(mu.shape)
    q = torch.distributions.Normal(mu, log_sigma.exp())
    p = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    rate = torch.distributions.kl_divergence(q, p).flatten(1).sum(1).mean()
    real, fake = to_signed(batch.x, 256), model.decoder(z)
    pairs = zip(model.critic.discriminator.features(fake), model.critic.discriminator.features(real), strict=True)
    perceptual = torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()
    torch.testing.assert_close(loss.parts["rate"], rate.detach(), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(loss.parts["perceptual"], perceptual.detach(), rtol=1e-3, atol=1e-4)
    expected = (real - fake).abs().mean() + loss.parts["perceptual"] + 0.01 * rate
    torch.testing.assert_close(loss.total, expected, rtol=1e-4, atol=1e-4)


def test_the_first_phase_with_a_codebook_adds_the_commitment():
    batch, model = _batch(), _made(regulariser="vq")
    model.prepare(batch)
    before = model.quantizer.codebook.clone()
    features = model._posterior(batch.x)[0]
    nearest = torch.cdist(features.movedim(1, -1).flatten(0, -2), before).argmin(1)
    squared = (features.movedim(1, -1).flatten(0, -2) - before[nearest]).square().mean()
    loss = model.loss(batch, "autoencoder")
    torch.testing.assert_close(loss.parts["commitment"], squared.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        loss.total.detach(), loss.parts["pixels"] + loss.parts["perceptual"] + 0.25 * loss.parts["commitment"]
    )
    assert not torch.equal(model.quantizer.codebook, before)


def test_latents_get_unit_size_and_the_noise_is_what_is_learned():
    batch, model = _batch(64), _awake(_made())
    for _ in range(300):
        model.loss(batch, "autoencoder")
    torch.manual_seed(2)
    found = model.loss(batch, "unet").total
    torch.manual_seed(2)
    mu, log_sigma = model._posterior(batch.x)
    z_0 = (mu + log_sigma.exp() * torch.randn(mu.shape)) / model.latent_mean_square.sqrt()
    assert z_0.square().mean().item() == pytest.approx(1.0, abs=0.1)
    t = torch.randint(1, 1001, (64,))
    eps = torch.randn(mu.shape)
    alpha, sigma = (v[t][:, None, None, None] for v in (model.alpha, model.sigma))
    z_t = alpha * z_0 + sigma * eps
    guess = alpha * model.unet(z_t, t) + sigma * z_t  # of a velocity
    torch.testing.assert_close(found, (guess - eps).square().mean())


@pytest.mark.parametrize(
    ("player", "touched"),
    [
        ("autoencoder", {"encoder", "decoder"}),
        ("generator", {"encoder", "decoder"}),
        ("discriminator", {"critic"}),
        ("unet", {"unet", "conditioner"}),
    ],
)
def test_every_player_has_its_own_parameters(player, touched):
    model, batch = _awake(_made(condition="class")), _batch(64)
    (owner,) = (p for phase in model.phases() for p in phase.players if p.name == player)
    parameters = {id(p) for module in owner.modules for p in module.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in parameters)
    model.loss(batch, player).total.backward()
    found = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert found == touched


@pytest.mark.parametrize("condition", ["class", "text"])
def test_conditions_reach_samples_by_cross_attention_and_guidance_moves_them(condition):
    model = _made(condition=condition, num_steps=4)
    _awake(model).loss(_batch(), "unet")
    model.eval()
    told = model.conditioner.of_batch(_batch())
    one, other = told[[1]].repeat_interleave(4, 0), told[[2]].repeat_interleave(4, 0)

    def drawn(condition, guidance):
        model.sampling = LatentDiffusion.Sampling(num_steps=4, guidance=guidance)
        return model.sample_given(condition, generator=Generator().manual_seed(0))

    assert torch.equal(drawn(one, 0.0), drawn(other, 0.0))
    assert not torch.equal(drawn(one, 1.0), drawn(other, 1.0))
    assert not torch.equal(drawn(one, 5.0), drawn(one, 1.0))
    assert model.sample(3, generator=Generator().manual_seed(0)).shape == (3, 3, 8, 8)


@pytest.mark.parametrize("regulariser", ["kl", "vq"])
@pytest.mark.parametrize(("channels", "side", "levels"), [(3, 8, 256), (1, 28, 256), (1, 8, 17), (3, 32, 2)])
def test_images_of_any_side_pass_through_latents_and_back(regulariser, channels, side, levels):
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    model, x = _made(spec, regulariser=regulariser, num_steps=3).eval(), _batch(4, side, channels, levels).x
    z = model.encode(x)
    assert z.shape == (4, 4 * model.latent_side**2)
    assert torch.equal(model.decode(z), model.reconstruct(x))
    for images in (model.decode(z), model.sample(4, generator=Generator().manual_seed(0))):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="models images of integers"):
        LatentDiffusion(DataSpec(kind="vector", shape=(2,), levels=None), LatentDiffusion.Config())
    with pytest.raises(SettingError, match="cannot be conditioned on `text`"):
        _made(DataSpec(shape=(3, 8, 8)), condition="text")
    with pytest.raises(SettingError, match="unconditional"):
        _made().sample_given(torch.zeros(2, dtype=torch.int64), generator=Generator())


@pytest.mark.slow
def test_pictures_come_back_and_latents_are_learned():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _made(data.spec)
    train(model, data.load("train", range(2048)), samples_seen=16_000, seed=0)
    model.eval()
    test = data.load("test", range(256))
    error = (to_signed(model.reconstruct(test.x), 256) - to_signed(test.x, 256)).abs().mean()
    spread = (to_signed(test.x, 256) - to_signed(test.x, 256).mean(0)).abs().mean()
    assert error < 0.4 * spread
    torch.manual_seed(0)
    assert model.loss(test, "unet").total < 0.6  # 1 for a network that says nothing


def test_phases_that_leave_another_nothing_are_refused():
    with pytest.raises(ValueError, match="leave nothing to diffusion"):
        LatentDiffusion.Config(reconstruction_share=0.7, adversarial_share=0.3)
