import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from genbench.core.dataset import Batch, DataSpec
from genbench.models.vae.factor_vae import Discriminator, FactorVAE
from genbench.models.vae.vae import VAE
from genbench.prob import gaussian
from genbench.prob.pixels import to_signed
from genbench.prob.total_correlation import discrimination_loss, permuted

SPEC = DataSpec(shape=(3, 8, 8))
SIZES = {"latent_dim": 4, "width": 8, "hidden": 16, "num_blocks": 1}


def _model(**settings) -> FactorVAE:
    torch.manual_seed(3)
    small = {"discriminator_layers": 2, "discriminator_hidden": 32}
    return FactorVAE(SPEC, FactorVAE.Config(**{**SIZES, **small, **settings}))


def _batch(num: int = 16) -> Batch:
    return Batch(torch.randint(0, 256, (num, 3, 8, 8), generator=Generator().manual_seed(1), dtype=torch.uint8))


def _loss(model, player: str = "autoencoder"):
    torch.manual_seed(0)
    return model.loss(_batch(), player)


def _codes(model: FactorVAE) -> torch.Tensor:
    """The draws that `_loss` takes."""
    torch.manual_seed(0)
    return gaussian.reparameterised(*model.encoder(to_signed(_batch().x, 256)))


def test_with_gamma_zero_it_is_the_variational_autoencoder():
    model, plain = _model(gamma=0.0), VAE(SPEC, VAE.Config(**SIZES))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("discriminator.")})
    torch.testing.assert_close(_loss(model).total, _loss(plain).total)
    found, expected = (
        m.log_likelihood(_batch().x, generator=Generator().manual_seed(2)) for m in (model.eval(), plain.eval())
    )
    torch.testing.assert_close(found, expected)


def test_gamma_weighs_the_mean_logit_of_the_codes_and_nothing_of_the_likelihood():
    model, plain = _model(gamma=35.0), _model(gamma=0.0)
    loss = _loss(model)
    logit = model.discriminator(_codes(model)).mean().detach() / SPEC.num_dims
    torch.testing.assert_close(loss.parts["total_correlation"], logit)
    torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + loss.parts["rate"] + 35.0 * logit)
    found, expected = (m.log_likelihood(_batch().x, generator=Generator().manual_seed(2)) for m in (model, plain))
    assert torch.equal(found, expected)


def test_the_discriminator_tells_codes_from_codes_permuted_over_the_batch():
    model = _model()
    z = _codes(model)  # leaves the global stream where the loss goes on with it
    logits = model.discriminator(torch.cat([z, permuted(z)]))
    expected = F.binary_cross_entropy_with_logits(logits, torch.cat([torch.ones(16), torch.zeros(16)]))
    torch.testing.assert_close(_loss(model, "discriminator").total, expected)


@pytest.mark.parametrize("player", ["autoencoder", "discriminator"])
def test_only_the_named_player_receives_gradient(player):
    model = _model()
    _loss(model, player).total.backward()
    owned = {
        "autoencoder": [*model.encoder.parameters(), *model.decoder.parameters()],
        "discriminator": [*model.discriminator.parameters()],
    }
    others = [p for name, parameters in owned.items() if name != player for p in parameters]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in owned[player])
    assert all(p.grad is None for p in others)
    assert all(p.requires_grad for p in model.parameters())


def test_the_gradient_of_the_total_correlation_reaches_the_encoder():
    gradients = []
    for gamma in (0.0, 35.0):
        model = _model(gamma=gamma)
        _loss(model).total.backward()
        gradients.append(model.encoder.head[-1].weight.grad)
    slope = torch.autograd.grad(model.discriminator(_codes(model)).mean(), model.encoder.head[-1].weight)[0]
    torch.testing.assert_close(gradients[1] - gradients[0], 35.0 * slope / SPEC.num_dims, rtol=1e-3, atol=1e-7)


def _trained_estimate(rho: float) -> float:
    """Mean logit on fresh codes of a correlated pair, after a short training of the model's own discriminator."""
    torch.manual_seed(0)
    discriminator = Discriminator(2, num_layers=2, hidden=64)
    optimiser = torch.optim.Adam(discriminator.parameters(), lr=5e-3, betas=(0.5, 0.9))
    mix = torch.tensor([[1.0, rho], [0.0, math.sqrt(1.0 - rho**2)]])
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1.0 - step / 200)
        z = torch.randn(256, 2) @ mix
        loss = discrimination_loss(discriminator(z), discriminator(permuted(z)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return discriminator(torch.randn(20_000, 2) @ mix).mean().item()


def test_the_discriminator_finds_the_total_correlation_of_a_correlated_pair():
    """-1/2 log(1 - 0.8^2) = 0.511 nats."""
    assert _trained_estimate(0.8) == pytest.approx(0.511, abs=0.04)


def test_the_discriminator_finds_no_total_correlation_in_independent_codes():
    assert _trained_estimate(0.0) == pytest.approx(0.0, abs=0.02)


def test_both_players_share_every_parameter_out_and_train_at_the_papers_settings():
    model = FactorVAE(SPEC, FactorVAE.presets["paper"])
    (phase,) = model.phases()
    autoencoder, discriminator = phase.players
    assert phase.batch_size == 64
    assert (autoencoder.lr, autoencoder.betas) == (1e-4, (0.9, 0.999))
    assert (discriminator.lr, discriminator.betas) == (1e-4, (0.5, 0.9))
    widths = [tuple(weight.shape) for weight in model.discriminator.parameters() if weight.ndim == 2]
    assert widths == [(1000, 10), *[(1000, 1000)] * 5, (1, 1000)]


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        FactorVAE(DataSpec(kind="vector", shape=(2,), levels=None), FactorVAE.Config())
