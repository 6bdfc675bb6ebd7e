import dataclasses
import math

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import MODELS, build_model
from genbench.models.vae.vae import VAE
from genbench.prob import gaussian
from genbench.prob.likelihood import importance_weighted

TINY = DataSpec(shape=(1, 2, 2), levels=2)
IMAGES = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2).to(torch.uint8)


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _tiny(num_importance: int = 1, *, spec: DataSpec = TINY, **settings: object) -> VAE:
    """A model of 2x2 binary images with one code dimension, away from its start."""
    torch.manual_seed(3)
    config = VAE.Config(latent_dim=1, width=8, hidden=8, num_blocks=1, num_importance=num_importance)
    model = VAE(spec, dataclasses.replace(config, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.decoder.scale.zero_()  # wide bins: every image is likely enough to be counted
    return model.eval()


@torch.no_grad()
def _exact_log_likelihood(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """Log of the integral over z of p(x|z) p(z), by quadrature: (B,)."""
    z = torch.linspace(-8, 8, 2001)
    given = torch.stack([model.log_prob_given(image.unsqueeze(0), z[:, None]) for image in x])
    return torch.logsumexp(given + gaussian.standard_log_prob(z), dim=1) + math.log(float(z[1] - z[0]))


class LinearGaussian:
    """x | z ~ N(W z, s^2 I) with orthogonal columns W: posterior diagonal, evidence Gaussian."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        q, _ = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))
        self.lengths = torch.tensor([1.7, 0.6], dtype=torch.float64)
        self.W, self.s = q * self.lengths, 0.4
        covariance = self.W @ self.W.T + self.s**2 * torch.eye(5, dtype=torch.float64)
        self.evidence = torch.distributions.MultivariateNormal(torch.zeros(5, dtype=torch.float64), covariance)
        self.x = self.evidence.sample((6,))

    def posterior(self) -> tuple[torch.Tensor, torch.Tensor]:
        precision = 1 + self.lengths**2 / self.s**2
        return (self.x @ self.W) / self.s**2 / precision, (-0.5 * precision.log()).expand(6, 2)

    def log_weights(self, mu: torch.Tensor, log_sigma: torch.Tensor, num_draws: int) -> torch.Tensor:
        z = gaussian.reparameterised(
            mu.expand(num_draws, 6, 2), log_sigma.expand(num_draws, 6, 2), generator=_generator(1)
        )
        log_s = torch.tensor(math.log(self.s), dtype=torch.float64)
        joint = gaussian.log_prob(self.x, z @ self.W.T, log_s).sum(-1) + gaussian.standard_log_prob(z).sum(-1)
        return joint - gaussian.log_prob(z, mu, log_sigma).sum(-1)


def test_every_draw_of_the_optimal_posterior_weighs_exactly_the_evidence():
    problem = LinearGaussian()
    expected = problem.evidence.log_prob(problem.x)
    weights = problem.log_weights(*problem.posterior(), num_draws=7)
    torch.testing.assert_close(weights, expected.expand(7, 6), rtol=0, atol=1e-12)
    torch.testing.assert_close(importance_weighted(weights), expected, rtol=0, atol=1e-12)


def test_a_wrong_posterior_stays_below_the_evidence_and_more_draws_come_closer():
    problem = LinearGaussian()
    mu, log_sigma = problem.posterior()
    weights = problem.log_weights(mu + 0.2, log_sigma + 0.4, num_draws=40_000)
    bounds = [importance_weighted(weights.view(K, -1)).mean() for K in (1, 5, 50)]
    gaps = [float(bound - problem.evidence.log_prob(problem.x).mean()) for bound in bounds]
    divergence = gaussian.kl(mu + 0.2, log_sigma + 0.4, mu, log_sigma).sum(1).mean()
    assert gaps[0] == pytest.approx(-float(divergence), rel=0.02)
    assert gaps[0] < gaps[1] < gaps[2] < 0


def test_the_loss_is_minus_the_bound_per_dimension_in_the_mean():
    model, many = _tiny(), IMAGES.repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    loss = model.loss(Batch(x=many), "autoencoder").total.item()
    bounds = model.log_likelihood(many, generator=_generator()).view(400, 16).mean(1) / 4
    spread = bounds.std().item() / math.sqrt(200)  # of the difference of two independent means of 400
    assert loss == pytest.approx(-bounds.mean().item(), abs=4 * spread)


def test_the_bound_lies_below_the_exact_log_likelihood():
    exact = _exact_log_likelihood(_tiny(), IMAGES)
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    bounds = _tiny().log_likelihood(IMAGES.repeat(500, 1, 1, 1), generator=_generator()).view(500, 16)
    assert bool((bounds.mean(0) < exact + 4 * bounds.std(0) / math.sqrt(500)).all())
    assert bounds.mean().item() < exact.mean().item() - 0.05


@pytest.mark.parametrize("settings", [{}, {"networks": "dense"}])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_with_every_likelihood_the_bound_lies_below_the_exact_log_likelihood(likelihood, settings):
    model = _tiny(likelihood=likelihood, **settings)
    exact = _exact_log_likelihood(model, IMAGES)
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    bounds = model.log_likelihood(IMAGES.repeat(300, 1, 1, 1), generator=_generator()).view(300, 16)
    assert bool((bounds.mean(0) < exact + 4 * bounds.std(0) / math.sqrt(300)).all())


@pytest.mark.parametrize("likelihood", ["logistic", "gaussian", "bernoulli"])
def test_probabilities_of_images_with_more_levels_sum_to_one(likelihood):
    model = _tiny(spec=DataSpec(shape=(1, 2, 2), levels=3), likelihood=likelihood)
    images = torch.cartesian_prod(*[torch.arange(3)] * 4).view(81, 1, 2, 2).to(torch.uint8)
    assert _exact_log_likelihood(model, images).exp().sum().item() == pytest.approx(1.0, abs=1e-4)


def test_more_draws_never_lower_the_bound_and_five_thousand_reach_the_log_likelihood():
    model = _tiny(likelihood="bernoulli", networks="dense", draws_at_once=500)
    with torch.no_grad():
        model.encoder.head[-1].bias[1] += (
            1.5  # a posterior at least as wide as the true one: weights without heavy tails
        )
    exact = _exact_log_likelihood(model, IMAGES).double()
    gaps = []
    for num_draws, repeats in ((1, 200), (2, 200), (5, 200), (50, 200), (5000, 1)):
        model.config = dataclasses.replace(model.config, num_importance=num_draws)
        found = model.log_likelihood(IMAGES.repeat(repeats, 1, 1, 1), generator=_generator())
        gaps.append((found - exact.repeat(repeats)).mean().item())
    assert gaps[0] < gaps[1] < gaps[2] < gaps[3] < 0
    torch.testing.assert_close(found, exact, rtol=0, atol=0.1)
    assert abs(gaps[4]) < 0.02
    assert model.likelihood_estimator == "importance-weighted bound, 5000 draws"


def test_importance_weights_average_to_the_exact_likelihood():
    model = _tiny(num_importance=8)
    bounds = model.log_likelihood(IMAGES.repeat(2000, 1, 1, 1), generator=_generator()).view(2000, 16)
    ratios = (bounds - _exact_log_likelihood(model, IMAGES)).exp()  # of estimates to exact values: 1 in the mean
    spread = ratios.std(0) / math.sqrt(2000)
    assert bool(((ratios.mean(0) - 1).abs() <= 4.5 * spread + 1e-4).all())


@torch.no_grad()
@pytest.mark.parametrize("num_importance", [1, 16])
def test_the_shared_bound_moves_no_likelihood_beyond_the_rounding_of_single_precision(num_importance):
    """Against `log 1/K sum_k w_k` in the precision of the weights, over the same draws, for 3,072 dimensions."""
    model = VAE(DataSpec(shape=(3, 32, 32)), VAE.Config(width=8, hidden=8, num_blocks=1, num_importance=num_importance))
    x = torch.randint(0, 256, (8, 3, 32, 32), generator=_generator(1), dtype=torch.uint8)
    found = model.eval().log_likelihood(x, generator=_generator())
    mu, log_sigma = model.encoder(x / 127.5 - 1.0)
    draws = _generator()
    weights = []
    for _ in range(num_importance):
        z = gaussian.reparameterised(mu, log_sigma, generator=draws)
        log_ratio = gaussian.standard_log_prob(z) - gaussian.log_prob(z, mu, log_sigma)
        weights.append(model.log_prob_given(x, z) + log_ratio.sum(1))
    plain = torch.logsumexp(torch.stack(weights), dim=0) - math.log(num_importance)
    assert (found - plain).abs().max() <= torch.finfo(torch.float32).eps * plain.abs().max()
    assert found.mean().item() / 3072 == pytest.approx(plain.double().mean().item() / 3072, rel=1e-7)


def test_samples_follow_the_exact_probabilities():
    model, count = _tiny(), 20_000
    draws = model.sample(count, generator=_generator()).flatten(1).long()
    found = torch.bincount(draws @ torch.tensor([8, 4, 2, 1]), minlength=16) / count
    expected = _exact_log_likelihood(model, IMAGES).exp()
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread).all())


def test_beta_weighs_the_divergence_in_training_and_never_in_the_likelihood():
    model, batch = _tiny(), Batch(x=IMAGES)
    plain = model.log_likelihood(IMAGES, generator=_generator())
    model.config = dataclasses.replace(model.config, beta=4.0)
    loss = model.loss(batch, "autoencoder")
    torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + 4.0 * loss.parts["rate"])
    assert torch.equal(model.log_likelihood(IMAGES, generator=_generator()), plain)


@pytest.mark.parametrize(
    ("channels", "side", "levels"), [(3, 8, 256), (1, 28, 256), (1, 8, 17), (3, 32, 2), (1, 64, 5)]
)
def test_images_of_any_side_pass_through_codes_and_back(channels, side, levels):
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    model = build_model(MODELS.get("vae"), spec, preset="smoke", settings={"num_importance": 2}, owner="vae")
    assert isinstance(model, VAE)
    x = torch.randint(0, levels, (3, *spec.shape), generator=_generator(), dtype=torch.uint8)
    codes = model.encode(x)
    assert codes.shape == (3, model.config.latent_dim)
    for images in (model.decode(codes), model.reconstruct(x), model.sample(3, generator=_generator())):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels
    assert bool(model.log_likelihood(x, generator=_generator()).isfinite().all())


@pytest.mark.parametrize("preset", ["bernoulli", "gaussian", "dense"])
@pytest.mark.parametrize(("channels", "side", "levels"), [(1, 28, 2), (3, 8, 256)])
def test_every_preset_takes_images_of_any_levels(preset, channels, side, levels):
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    settings = {"num_importance": 2, "width": 8, "num_blocks": 1}
    model = build_model(MODELS.get("vae"), spec, preset=preset, settings=settings, owner="vae")
    assert isinstance(model, VAE)
    x = torch.randint(0, levels, (3, *spec.shape), generator=_generator(), dtype=torch.uint8)
    for images in (model.reconstruct(x), model.sample(3, generator=_generator())):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels
    found = model.log_likelihood(x, generator=_generator())
    assert bool((found.isfinite() & (found < 0)).all())


def test_dense_preset_has_the_layers_of_the_paper():
    model = build_model(
        MODELS.get("vae"), DataSpec(shape=(1, 28, 28), levels=2), preset="dense", settings={}, owner="vae"
    )
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in layers]
    assert sizes == [(784, 200), (200, 200), (200, 100), (50, 200), (200, 200), (200, 784)]
    assert sum(isinstance(module, torch.nn.Tanh) for module in model.modules()) == 4
    assert model.phases()[0].batch_size == 20


@torch.no_grad()
def test_dense_decoder_starts_at_the_mean_image_and_the_residual_one_is_left_alone():
    x = torch.randint(0, 2, (256, 1, 2, 2), generator=_generator(), dtype=torch.uint8)
    x[:, 0, 0, 0] = 0
    dense, residual = _tiny(networks="dense", likelihood="bernoulli"), _tiny()
    before = [parameter.clone() for parameter in residual.parameters()]
    dense.prepare(Batch(x=x))
    residual.prepare(Batch(x=x))
    dense.decoder.stem[-1].weight.zero_()
    drawn = torch.sigmoid(dense.decoder(torch.zeros(1, 1))[0]).flatten()
    torch.testing.assert_close(drawn[1:], x.float().mean(0).flatten()[1:], rtol=1e-5, atol=1e-6)
    assert drawn[0].item() == pytest.approx(0.001, rel=1e-3)
    assert all(torch.equal(was, now) for was, now in zip(before, residual.parameters(), strict=True))


def test_dense_network_sees_a_dark_background_as_zero():
    model = _tiny(networks="dense")
    assert isinstance(model, VAE)
    seen = model.encoder.tower(torch.tensor([[[[-1.0, 1.0], [0.0, -1.0]]]]))
    assert seen.flatten().tolist() == [0.0, 1.0, 0.5, 0.0]


@pytest.mark.parametrize("likelihood", ["logistic", "gaussian", "bernoulli"])
@pytest.mark.parametrize("networks", ["residual", "dense"])
def test_every_parameter_belongs_to_the_player_and_gets_a_gradient(networks, likelihood):
    model = _tiny(networks=networks, likelihood=likelihood, num_mixtures=2)
    player = model.phases()[0].players[0]
    owned = {id(p) for module in player.modules for p in module.parameters()}
    assert owned == {id(p) for p in model.parameters()}
    model.loss(Batch(x=IMAGES), player.name).total.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters() if p.numel())


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        VAE(DataSpec(kind="vector", shape=(2,), levels=None), VAE.Config())
