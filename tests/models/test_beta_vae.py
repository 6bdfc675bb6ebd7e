import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.vae.beta_vae import BetaVAE
from genbench.models.vae.vae import VAE
from genbench.prob import discretized_logistic as logistic

SPEC = DataSpec(shape=(3, 8, 8))
SIZES = {"latent_dim": 4, "width": 8, "hidden": 16, "num_blocks": 1}


def _model(**settings) -> BetaVAE:
    torch.manual_seed(3)
    return BetaVAE(SPEC, BetaVAE.Config(**{**SIZES, **settings}))


def _batch(num: int = 16) -> Batch:
    return Batch(torch.randint(0, 256, (num, 3, 8, 8), generator=Generator().manual_seed(1), dtype=torch.uint8))


def _loss(model, *, seed: int = 0):
    torch.manual_seed(seed)
    return model.loss(_batch(), "autoencoder")


def test_with_beta_one_it_is_the_variational_autoencoder():
    model, plain = _model(beta=1.0), VAE(SPEC, VAE.Config(**SIZES))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "steps_taken"})
    torch.testing.assert_close(_loss(model).total, _loss(plain).total)
    found, expected = (
        m.log_likelihood(_batch().x, generator=Generator().manual_seed(2)) for m in (model.eval(), plain.eval())
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("beta", [0.5, 4.0, 250.0])
def test_beta_weighs_the_divergence_in_training_and_never_in_the_likelihood(beta):
    model, plain = _model(beta=beta), _model(beta=1.0)
    loss = _loss(model)
    torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + beta * loss.parts["rate"])
    found, expected = (m.log_likelihood(_batch().x, generator=Generator().manual_seed(2)) for m in (model, plain))
    assert torch.equal(found, expected)


def test_the_loss_with_beta_one_is_minus_the_bound_of_one_draw_in_the_mean():
    model = _model(beta=1.0, num_importance=1)
    x = _batch().x.repeat(50, 1, 1, 1)
    torch.manual_seed(0)
    loss = model.loss(Batch(x), "autoencoder").total.item()
    bounds = model.log_likelihood(x, generator=Generator().manual_seed(2)).view(50, 16).mean(1) / SPEC.num_dims
    assert loss == pytest.approx(-bounds.mean().item(), abs=4 * bounds.std().item() / math.sqrt(25))


def test_on_two_levels_the_decoder_is_the_papers_bernoulli_with_a_linear_logit():
    torch.manual_seed(0)
    model = BetaVAE(DataSpec(shape=(1, 8, 8), levels=2), BetaVAE.Config(**SIZES))
    x, z = torch.randint(0, 2, (5, 1, 8, 8), dtype=torch.uint8), torch.randn(5, 4)
    mixture = logistic.split_mixture(*model.decoder(z))
    logits = (mixture.mu * torch.exp(-mixture.log_scale)).squeeze(1)
    expected = -F.binary_cross_entropy_with_logits(logits, x.float(), reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(model.log_prob_given(x, z), expected)


def test_a_capacity_rises_in_a_line_and_stays_at_its_end():
    model = _model(capacity=12.0, capacity_steps=4, capacity_weight=7.0)
    for step, capacity in enumerate([0.0, 3.0, 6.0, 9.0, 12.0, 12.0]):
        loss = _loss(model, seed=step)
        excess = abs(loss.parts["rate"] - capacity / SPEC.num_dims)
        torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + 7.0 * excess)


def test_only_a_training_step_moves_the_capacity_and_saved_weights_remember_it():
    model = _model(capacity=12.0, capacity_steps=4)
    with torch.no_grad():
        _loss(model)
    _loss(model.eval())
    assert model.steps_taken == 0
    _loss(model.train())
    other = _model(capacity=12.0, capacity_steps=4)
    other.load_state_dict(model.state_dict())
    assert other.steps_taken == 1
    torch.testing.assert_close(_loss(other).total, _loss(model).total)


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [2.0, 6.0])
def test_training_brings_the_divergence_to_the_capacity(capacity):
    """The price of one nat is far above its worth here, so the optimum lies at the kink."""
    model = _model(capacity=capacity, capacity_steps=50, learning_rate=1e-2)
    data = build_dataset(parse_ref("shapes[resolution=8]")).load("train", range(256))
    train(model, data, samples_seen=150 * 32, seed=0)
    assert model.steps_taken == 150
    rate = _evaluated_rate(model, data)
    assert rate == pytest.approx(capacity, rel=0.1)


@torch.no_grad()
def _evaluated_rate(model: BetaVAE, data: Batch) -> float:
    return model.loss(data, "autoencoder").parts["rate"].item() * SPEC.num_dims


@pytest.mark.parametrize("networks", ["residual", "strided"])
@pytest.mark.parametrize(("channels", "side", "levels"), [(1, 28, 256), (3, 32, 2), (1, 8, 17)])
def test_images_of_any_side_pass_through_codes_and_back(networks, channels, side, levels):
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    settings = {"num_importance": 2, "networks": networks}
    model = build_model(MODELS.get("beta_vae"), spec, preset="smoke", settings=settings, owner="beta_vae")
    assert isinstance(model, BetaVAE)
    x = torch.randint(0, levels, (3, *spec.shape), generator=Generator().manual_seed(0), dtype=torch.uint8)
    codes = model.encode(x)
    assert codes.shape == (3, model.config.latent_dim)
    for images in (model.decode(codes), model.reconstruct(x), model.sample(3, generator=Generator().manual_seed(0))):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels
    assert bool(model.log_likelihood(x, generator=Generator().manual_seed(0)).isfinite().all())


def test_the_likelihood_says_how_it_is_made():
    assert _model(num_importance=1).likelihood_estimator == "evidence lower bound, 1 draw"
    assert _model(num_importance=5).likelihood_estimator == "importance-weighted bound, 5 draws"


def test_the_paper_preset_has_the_papers_network_and_optimiser():
    model = BetaVAE(DataSpec(shape=(3, 64, 64)), BetaVAE.presets["paper"])
    (player,) = model.phases()[0].players
    assert (player.lr, player.final_lr_share, player.ema_decay) == (1e-4, 1.0, None)
    assert model.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 32)
    assert dataclasses.replace(model.config, beta=4.0) == model.config


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        BetaVAE(DataSpec(kind="vector", shape=(2,), levels=None), BetaVAE.Config())
