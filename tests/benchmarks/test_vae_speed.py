"""Steps and samples of the dense autoencoder beside pythae's, with the same layers and weights; paired, in CPU seconds.

The peer is general (any encoder, two losses, outputs in a dictionary); that its loss is the same number for the same
noise is what makes the comparison one.
"""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch
from cpu_seconds import best_ratio
from torch import Generator, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import MODELS, build_model
from genbench.prob.pixels import to_signed

pytestmark = pytest.mark.slow

SHAPE, LATENT_DIM, BATCH, NUM_SAMPLES = (1, 28, 28), 50, 128, 512


@pytest.fixture(scope="module")
def pythae():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pythae.models", reason="needs `pip install pythae`")


@pytest.fixture(scope="module")
def images():
    return (torch.rand(BATCH, *SHAPE, generator=Generator().manual_seed(0)) < 0.15).to(torch.uint8)


@pytest.fixture
def ours():
    torch.manual_seed(0)
    spec = DataSpec(shape=SHAPE, levels=2)
    return build_model(MODELS.get("vae"), spec, preset="dense", settings={}, owner="vae")


@pytest.fixture
def theirs(pythae, ours):
    """Pythae's model around the layers of ours; its head gives the log-variance, so twice our log sigma."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*[_copy(layer) for layer in ours.encoder.head[:-1]])
            last = ours.encoder.head[-1]
            self.embedding, self.log_var = (nn.Linear(last.in_features, LATENT_DIM) for _ in range(2))
            for layer, rows, gain in ((self.embedding, slice(0, 50), 1.0), (self.log_var, slice(50, 100), 2.0)):
                layer.load_state_dict({"weight": gain * last.weight[rows], "bias": gain * last.bias[rows]})

        def forward(self, x):
            h = self.layers(x.flatten(1))
            return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*[_copy(layer) for layer in ours.decoder.stem], nn.Sigmoid())

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z).view(-1, *SHAPE))

    config = pythae.VAEConfig(input_dim=SHAPE, latent_dim=LATENT_DIM, reconstruction_loss="bce")
    return pythae.VAE(config, encoder=Encoder(), decoder=Decoder())


def _copy(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear):
        return nn.Tanh()
    copy = nn.Linear(layer.in_features, layer.out_features)
    copy.load_state_dict(layer.state_dict())
    return copy


def test_loss_is_pythaes_for_the_same_noise(ours, theirs, images):
    torch.manual_seed(3)
    found = ours.loss(Batch(x=images), "autoencoder").total.item() * ours.spec.num_dims
    torch.manual_seed(3)
    assert found == pytest.approx(theirs({"data": images.float()}).loss.item(), rel=1e-5)


def test_bound_is_pythaes_in_the_mean(ours, theirs, images):
    """Eight images, 200 draws; pythae takes the mean over images, of one run each."""
    few = images[:8]
    torch.manual_seed(3)
    with torch.no_grad():
        expected = torch.tensor([theirs.get_nll(few.float(), n_samples=200, batch_size=100) for _ in range(8)])
        ours.config = dataclasses.replace(ours.config, num_importance=200)
        found = torch.stack([ours.log_likelihood(few, generator=Generator().manual_seed(k)).mean() for k in range(8)])
    spread = float((expected.var() / 8 + found.var() / 8).sqrt())
    assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=4.5 * spread + 1e-3)


def test_a_training_step_takes_no_longer_than_pythaes_and_a_tenth(benchmark, ours, theirs, images):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    optimisers = [torch.optim.Adam(model.parameters(), lr=1e-6) for model in (ours, theirs)]

    def our_step():
        optimisers[0].zero_grad()
        ours.loss(Batch(x=images), "autoencoder").total.backward()
        optimisers[0].step()

    def their_step():
        optimisers[1].zero_grad()
        theirs({"data": images.float()}).loss.backward()
        optimisers[1].step()

    ratio, taken = best_ratio(our_step, their_step, rounds=7, repeats=20)
    benchmark.extra_info.update(taken=taken, ratio=ratio)
    benchmark.pedantic(our_step, rounds=1)
    assert ratio > 1 / 1.1, taken


def test_samples_take_no_longer_than_pythaes_and_a_tenth(benchmark, ours, theirs):
    """Codes, means and the draw of every pixel on either side."""
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    generator = Generator().manual_seed(0)

    @torch.no_grad()
    def their_samples():
        z = torch.randn(NUM_SAMPLES, LATENT_DIM, generator=generator)
        return torch.bernoulli(theirs.decoder(z).reconstruction, generator=generator).to(torch.uint8)

    def our_samples():
        return ours.sample(NUM_SAMPLES, generator=generator)

    ratio, taken = best_ratio(our_samples, their_samples, rounds=7, repeats=5)
    benchmark.extra_info.update(taken=taken, ratio=ratio)
    benchmark.pedantic(our_samples, rounds=1)
    assert ratio > 1 / 1.1, taken


def test_encoder_sees_what_pythaes_does(ours, theirs, images):
    mu, log_sigma = ours.encoder(to_signed(images, 2))
    found = theirs.encoder(images.float())
    torch.testing.assert_close(mu, found.embedding, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(2.0 * log_sigma, found.log_covariance, rtol=1e-5, atol=1e-6)
