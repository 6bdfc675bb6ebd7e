import dataclasses
import math

import pytest
import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.models.vae.iwae import IWAE
from genbench.prob import gaussian
from genbench.prob.pixels import to_signed

TINY = DataSpec(shape=(1, 2, 2), levels=2)
IMAGES = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2).to(torch.uint8)


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _tiny(**settings: object) -> IWAE:
    """A model of 2x2 binary images with two code dimensions, away from its start."""
    torch.manual_seed(3)
    config = IWAE.Config(latent_dim=2, networks="dense", hidden=8, likelihood="bernoulli")
    model = IWAE(TINY, dataclasses.replace(config, **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def _drawn(model: IWAE, x: Tensor, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draws (K, B, D) as the loss makes them with this seed of the global stream, and the moments of q(z|x)."""
    mu, log_sigma = model.encoder(to_signed(x, 2))
    torch.manual_seed(seed)
    eps = torch.randn(model.config.num_draws, *mu.shape)
    return mu + log_sigma.exp() * eps, mu, log_sigma


def _log_weight(model: IWAE, x: Tensor, z: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Log p(x|z) p(z) / q(z|x) of one code for each image, by the book: (B,)."""
    log_joint = model.log_prob_given(x, z) + gaussian.standard_log_prob(z).sum(1)
    return log_joint - gaussian.log_prob(z, mu, log_sigma).sum(1)


def _gradients(model: IWAE, x: Tensor, *, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    loss = model.loss(Batch(x=x), "autoencoder").total
    names, parameters = zip(*[(n, p) for n, p in model.named_parameters() if p.numel()], strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("num_draws", [1, 7])
def test_gradient_is_that_of_the_definition(num_draws):
    """Of minus log 1/K sum_k w_k, written with nothing but products and a logarithm."""
    model = _tiny(num_draws=num_draws)
    z, mu, log_sigma = _drawn(model, IMAGES, seed=5)
    weights = torch.stack([_log_weight(model, IMAGES, codes, mu, log_sigma).exp() for codes in z])
    loss = -(weights.sum(0) / num_draws).log().mean() / 4
    parameters = {n: p for n, p in model.named_parameters() if p.numel()}
    expected = torch.autograd.grad(loss, list(parameters.values()))
    found = _gradients(model, IMAGES, seed=5)
    for name, slope in zip(parameters, expected, strict=True):
        torch.testing.assert_close(found[name], slope, rtol=1e-4, atol=1e-6)


def test_gradient_is_the_mean_of_those_of_the_draws_by_their_normalised_weights():
    model = _tiny(num_draws=5)
    z, mu, log_sigma = _drawn(model, IMAGES, seed=2)
    log_w = torch.stack([_log_weight(model, IMAGES, codes, mu, log_sigma) for codes in z])
    share = log_w.detach().softmax(0)
    parameters = {n: p for n, p in model.named_parameters() if p.numel()}
    expected = torch.autograd.grad(-(share * log_w).sum(0).mean() / 4, list(parameters.values()))
    found = _gradients(model, IMAGES, seed=2)
    for name, slope in zip(parameters, expected, strict=True):
        torch.testing.assert_close(found[name], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_draws", [1, 5])
def test_the_loss_is_minus_the_bound_with_as_many_draws_per_dimension_in_the_mean(num_draws):
    model, many = _tiny(num_draws=num_draws, num_importance=num_draws), IMAGES.repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    loss = model.loss(Batch(x=many), "autoencoder").total.item()
    bounds = model.log_likelihood(many, generator=_generator()).view(400, 16).mean(1) / 4
    spread = bounds.std().item() / math.sqrt(200)  # of the difference of two independent means of 400
    assert loss == pytest.approx(-bounds.mean().item(), abs=4 * spread)


@torch.no_grad()
def test_the_bound_of_training_rises_with_its_draws_towards_the_exact_log_likelihood():
    grid = torch.linspace(-6, 6, 121)
    codes = torch.cartesian_prod(grid, grid)
    model = _tiny()
    given = torch.stack([model.log_prob_given(image.unsqueeze(0), codes) for image in IMAGES])
    log_prior = gaussian.standard_log_prob(codes).sum(1)
    exact = (torch.logsumexp(given + log_prior, dim=1) + 2 * math.log(float(grid[1] - grid[0]))).mean().item() / 4
    bounds = []
    for num_draws in (1, 2, 8, 64):
        model = _tiny(num_draws=num_draws)
        torch.manual_seed(0)
        bounds.append(-model.loss(Batch(x=IMAGES.repeat(100, 1, 1, 1)), "autoencoder").total.item())
    assert bounds[0] < bounds[1] < bounds[2] < bounds[3] < exact


def test_doubly_reparameterised_gradient_is_that_of_its_equation():
    """The decoder's is the plain one; mu and log sigma get sum_k w~_k^2 (d log w_k / d z_k) times that of z_k."""
    plain, doubly = _tiny(num_draws=5), _tiny(num_draws=5, gradient="doubly_reparameterised")
    found, usual = _gradients(doubly, IMAGES, seed=1), _gradients(plain, IMAGES, seed=1)
    z, mu, log_sigma = _drawn(doubly, IMAGES, seed=1)
    eps = ((z - mu) / log_sigma.exp()).detach()
    codes = z.detach().requires_grad_()
    log_w = torch.stack([_log_weight(doubly, IMAGES, draw, mu.detach(), log_sigma.detach()) for draw in codes])
    (slope,) = torch.autograd.grad(log_w.sum(), codes)
    pull = log_w.detach().softmax(0).square().unsqueeze(2) * slope
    to_mu, to_log_sigma = pull.sum(0), (pull * eps * log_sigma.detach().exp()).sum(0)
    encoder = {n: p for n, p in doubly.named_parameters() if n.startswith("encoder")}
    expected = torch.autograd.grad(
        [mu, log_sigma], list(encoder.values()), [-to_mu / (16 * 4), -to_log_sigma / (16 * 4)]
    )
    for name, value in zip(encoder, expected, strict=True):
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    for name in usual.keys() - encoder.keys():
        torch.testing.assert_close(found[name], usual[name], rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_doubly_reparameterised_gradient_has_the_mean_of_the_plain_one():
    many, name = IMAGES.repeat(40, 1, 1, 1), "encoder.head.4.bias"  # of the moments: the last layer of the encoder
    models = [_tiny(num_draws=8, gradient=kind) for kind in ("reparameterised", "doubly_reparameterised")]
    plain, doubly = (
        torch.stack([_gradients(model, many, seed=seed)[name] for seed in range(start, start + 60)])
        for model, start in zip(models, (0, 60), strict=True)
    )
    spread = (plain.var(0) / 60 + doubly.var(0) / 60).sqrt()
    assert bool((plain.mean(0).abs() > 10 * spread).any())  # there is a gradient to agree on
    assert bool(((plain.mean(0) - doubly.mean(0)).abs() <= 4.5 * spread).all())


def test_with_the_exact_posterior_the_doubly_reparameterised_gradient_has_no_noise_and_the_plain_one_has():
    """All draws then weigh the evidence, so that there is nothing to learn for the encoder."""
    slopes = {}
    for kind in ("reparameterised", "doubly_reparameterised"):
        model = _tiny(num_draws=8, gradient=kind)
        with torch.no_grad():
            for parameter in [*model.decoder.stem[0].parameters(), *model.encoder.parameters()]:
                parameter.zero_()  # p(x|z) no longer depends on z, and q(z|x) is the prior
        slopes[kind] = _gradients(model, IMAGES, seed=0)["encoder.head.4.bias"].abs()
    assert slopes["doubly_reparameterised"].max() < 1e-7
    assert slopes["reparameterised"].min() > 1e-3


@torch.no_grad()
def test_draws_that_share_the_weight_are_counted():
    """All of them where they weigh the same, few where they do not."""
    even, uneven = _tiny(num_draws=6), _tiny(num_draws=6)
    for parameter in [*even.decoder.stem[0].parameters(), *even.encoder.parameters()]:
        parameter.zero_()  # p(x|z) no longer depends on z, and q(z|x) is the prior
    assert even.loss(Batch(x=IMAGES), "autoencoder").parts["effective_draws"].item() == pytest.approx(6.0)
    uneven.encoder.head[4].bias[2:] = 3.0  # q(z|x) is far too wide
    assert 1.0 <= uneven.loss(Batch(x=IMAGES), "autoencoder").parts["effective_draws"].item() < 4.0


@pytest.mark.parametrize("gradient", ["reparameterised", "doubly_reparameterised"])
@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
def test_every_preset_learns_and_draws(preset, gradient):
    spec = DataSpec(shape=(1, 8, 8), levels=2)
    settings = {"num_importance": 2, "num_draws": 3, "width": 8, "gradient": gradient}
    model = build_model(MODELS.get("iwae"), spec, preset=preset, settings=settings, owner="iwae")
    assert isinstance(model, IWAE)
    x = torch.randint(0, 2, (4, *spec.shape), generator=_generator(), dtype=torch.uint8)
    model.loss(Batch(x=x), "autoencoder").total.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters() if p.numel())
    for images in (model.decode(model.encode(x)), model.reconstruct(x), model.sample(4, generator=_generator())):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < 2
    assert bool((model.log_likelihood(x, generator=_generator()) < 0).all())


def test_paper_preset_has_the_layers_of_the_paper():
    spec = DataSpec(shape=(1, 28, 28), levels=2)
    model = build_model(MODELS.get("iwae"), spec, preset="paper", settings={}, owner="iwae")
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in layers]
    assert sizes == [(784, 200), (200, 200), (200, 100), (50, 200), (200, 200), (200, 784)]
    assert model.phases()[0].batch_size == 20


def test_no_draw_is_refused():
    with pytest.raises(SettingError, match="`num_draws` is 0"):
        build_model(MODELS.get("iwae"), TINY, preset="smoke", settings={"num_draws": 0}, owner="iwae")


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        IWAE(DataSpec(kind="vector", shape=(2,), levels=None), IWAE.Config())
