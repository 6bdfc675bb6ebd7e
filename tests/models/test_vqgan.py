"""Losses by hand, the relative weight against autograd, codes there and back, and what a phase leaves alone."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import DataError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models._picture_autoencoder import hinge, relative_weight
from genbench.models.vq.vqgan import VQGAN
from genbench.prob.pixels import to_signed


def _images(channels, side, levels, count=4):
    generator = Generator().manual_seed(0)
    return torch.randint(0, levels, (count, channels, side, side), generator=generator, dtype=torch.uint8)


def _smoke(channels=3, side=8, levels=256, **settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    model = build_model(MODELS.get("vqgan"), spec, preset="smoke", settings=settings, owner="vqgan")
    assert isinstance(model, VQGAN)
    return model


def _rebuilt(model, x):
    return model.decoder(model.quantizer(model._features(x)).values)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_the_first_phase_adds_pixels_perception_and_the_codebook(codebook):
    model, x = _smoke(codebook=codebook, revival_share=0.0, perceptual_weight=0.5), _images(3, 8, 256)
    loss = model.loss(Batch(x=x), "autoencoder")
    model = _smoke(codebook=codebook, perceptual_weight=0.5)
    real, fake, quantised = to_signed(x, 256), _rebuilt(model, x), model.quantizer(model._features(x))
    pairs = zip(model.critic.discriminator.features(fake), model.critic.discriminator.features(real), strict=True)
    perceptual = torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()
    squared = (model._features(x) - quantised.values.detach()).square().mean()
    expected = (real - fake).abs().mean() + 0.5 * perceptual + (0.25 + (codebook == "gradient")) * squared
    torch.testing.assert_close(loss.total, expected)
    assert set(loss.parts) == {"pixels", "perceptual", "commitment", "perplexity"}


def test_the_generator_adds_the_verdict_with_the_weight_of_eq_7():
    x = _images(3, 8, 256)
    model, same = _smoke(revival_share=0.0), _smoke(revival_share=0.0)
    loss, plain = model.loss(Batch(x=x), "generator"), same.loss(Batch(x=x), "autoencoder")
    weight, verdict = loss.parts["weight"], loss.parts["verdict"]
    torch.testing.assert_close(loss.total, plain.total + weight * verdict)
    judged = _smoke(revival_share=0.0)
    fake = _rebuilt(judged, x)
    torch.testing.assert_close(verdict, -judged.critic.discriminator(fake).mean())
    fresh = _smoke(revival_share=0.0)
    reconstruction = fresh.loss(Batch(x=x), "autoencoder").total - 0.25 * plain.parts["commitment"]
    (slope,) = torch.autograd.grad(reconstruction, fresh.decoder.last_weight)
    (of_verdict,) = torch.autograd.grad(-judged.critic.discriminator(fake).mean(), judged.decoder.last_weight)
    torch.testing.assert_close(weight, 0.8 * slope.norm() / (of_verdict.norm() + 1e-6), rtol=1e-4, atol=0)


def test_the_relative_weight_makes_both_gradients_equally_long_and_is_a_constant():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    loss, verdict = (3.0 * w).sum(), (w.square()).sum() / 2
    weight = relative_weight(loss, verdict, at=w)
    assert not weight.requires_grad
    torch.testing.assert_close(weight, torch.tensor(math.sqrt(18) / (math.sqrt(5) + 1e-6)))
    assert relative_weight(loss, 0.0 * w.sum(), at=w).item() == 1e4


def test_the_hinge_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    assert hinge(real, fake).item() == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1) / 2))


def test_the_discriminator_learns_from_logits_and_the_autoencoder_stays():
    model, x = _smoke(), _images(3, 8, 256)
    loss = model.loss(Batch(x=x), "discriminator")
    expected = 0.5 * (
        F.relu(1 - model.critic.discriminator(to_signed(x, 256))).mean()
        + F.relu(1 + model.critic.discriminator(_rebuilt(model, x))).mean()
    )
    torch.testing.assert_close(loss.total, expected)
    loss.total.backward()
    touched = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"critic"}


def test_a_trained_discriminator_tells_real_from_rebuilt():
    model, x = _smoke(), _images(3, 8, 256, count=16)
    optimiser = torch.optim.Adam(model.critic.discriminator.parameters(), lr=1e-3)
    before = model.loss(Batch(x=x), "discriminator").total.item()
    for _ in range(60):
        optimiser.zero_grad()
        loss = model.loss(Batch(x=x), "discriminator")
        loss.total.backward()
        optimiser.step()
    assert loss.total.item() < 0.3 < before
    assert loss.parts["fake"] < -0.5 < 0.5 < loss.parts["real"]


def test_the_prior_phase_leaves_codes_and_decoder_as_they_are():
    model, x = _smoke(), _images(3, 8, 256)
    loss = model.loss(Batch(x=x), "prior")
    assert loss.total.item() == pytest.approx(math.log(64), abs=0.1)  # untrained: near uniform over the codes
    loss.total.backward()
    touched = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"prior"}


@pytest.mark.parametrize(
    ("channels", "side", "levels"), [(3, 8, 256), (1, 28, 256), (1, 8, 17), (3, 32, 2), (1, 64, 5)]
)
def test_images_of_any_side_pass_through_codes_and_back(channels, side, levels):
    model, x = _smoke(channels, side, levels).eval(), _images(channels, side, levels)
    codes = model.encode(x)
    assert codes.shape == (4, model.code_side, model.code_side)
    assert 0 <= int(codes.min()) <= int(codes.max()) < model.num_codes
    assert torch.equal(model.decode(codes), model.reconstruct(x))
    for images in (model.decode(codes), model.sample(4, generator=Generator().manual_seed(0))):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_is_that_of_the_authors_package(channels, tmp_path, monkeypatch):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision in a way of the past
        peer = pytest.importorskip("lpips").LPIPS(net="vgg", pnet_rand=True, verbose=False)
    torch.save(peer.state_dict(), tmp_path / "vgg16-397923af.pth")
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
    model, x = _smoke(channels, 16, perceptual="lpips"), _images(channels, 16, 256)
    names = set(model.state_dict())
    model.prepare(Batch(x=x))
    assert set(model.state_dict()) == names  # the published network is none of the model's weights
    fake = _rebuilt(model, x)
    expected = peer(to_signed(x, 256).expand(-1, 3, -1, -1), fake.expand(-1, 3, -1, -1)).mean()
    loss = model.loss(Batch(x=x), "autoencoder")
    torch.testing.assert_close(loss.parts["perceptual"], expected.detach(), rtol=1e-4, atol=1e-6)
    pixels = (to_signed(x, 256) - fake).abs().mean()
    torch.testing.assert_close(loss.total, pixels + expected + 0.25 * loss.parts["commitment"], rtol=1e-4, atol=1e-6)


def test_missing_weights_of_lpips_are_named(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError, match="vgg16-397923af"):
        _smoke(3, 16, perceptual="lpips").prepare(Batch(x=_images(3, 16, 256)))


def test_the_loss_of_lpips_needs_its_network():
    with pytest.raises(RuntimeError, match="`prepare` has not run"):
        _smoke(3, 16, perceptual="lpips").loss(Batch(x=_images(3, 16, 256)), "autoencoder")


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images of integers"):
        VQGAN(DataSpec(shape=(2,), kind="vector", levels=None), VQGAN.Config())


@pytest.mark.slow
def test_pictures_come_back_and_the_prior_needs_less_than_log_k_nats():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _smoke()
    train(model, data.load("train", range(2048)), samples_seen=8000, seed=0)
    x = data.load("test", range(256)).x
    codes = model.encode(x).flatten(1)
    assert codes.unique().numel() > 24
    assert -model.prior.log_prob(codes).mean().item() / codes.shape[1] < math.log(64) - 0.3
    error = (to_signed(model.reconstruct(x), 256) - to_signed(x, 256)).abs().mean()
    spread = (to_signed(x, 256) - to_signed(x, 256).mean(0)).abs().mean()
    assert error < 0.5 * spread


def test_phases_that_leave_another_nothing_are_refused():
    with pytest.raises(ValueError, match="leave nothing to the first phase"):
        VQGAN.Config(adversarial_share=0.6, prior_share=0.4)
