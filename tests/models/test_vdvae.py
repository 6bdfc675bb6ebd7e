import math

import pytest
import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.vae.vdvae import VDVAE, Coupled, _parsed, _sides, _steps, num_outputs
from genbench.prob import discretized_logistic as logistic
from genbench.prob import gaussian, hierarchy

SPEC = DataSpec(shape=(3, 8, 8))
PIXEL = DataSpec(shape=(1, 1, 1), levels=5)
SIZES = {"width": 8, "latent_dim": 2, "num_blocks": 2}


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _model(spec: DataSpec = SPEC, *, noise: float = 0.1, **settings) -> VDVAE:
    """A model away from its start."""
    torch.manual_seed(3)
    model = VDVAE(spec, VDVAE.Config(**{**SIZES, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model.eval()


def _batch(num: int = 8) -> Batch:
    return Batch(torch.randint(0, 256, (num, *SPEC.shape), generator=_generator(1), dtype=torch.uint8))


def test_the_loss_is_the_distortion_and_the_divergence_of_every_grid():
    model, batch = _model(), _batch()
    torch.manual_seed(0)
    loss = model.loss(batch, "autoencoder")
    rates = [loss.parts["rate_1"], loss.parts["rate_4"]]
    assert min(rates) > 0
    torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + sum(rates))
    torch.manual_seed(0)
    log_p, layers = model._infer(batch.x, model._features(batch.x), gaussian.reparameterised)
    assert [layer.z.shape[1:] for layer in layers] == [(2, 1, 1), (2, 4, 4), (2, 4, 4)]
    assert all(bool((hierarchy.divergence(layer) >= 0).all()) for layer in layers)
    expected = -(log_p - sum(hierarchy.divergence(layer) for layer in layers)).mean() / SPEC.num_dims
    torch.testing.assert_close(loss.total, expected)


def test_analytic_and_sampled_bounds_of_one_draw_agree_in_the_mean():
    model, x = _model(), _batch(4).x.repeat(200, 1, 1, 1)
    with torch.no_grad():
        draw = lambda mu, log_sigma: gaussian.reparameterised(mu, log_sigma, generator=_generator(7))  # noqa: E731
        log_p, layers = model._infer(x, model._features(x), draw)
    gaps = hierarchy.evidence_bound(log_p, layers) - hierarchy.log_weight(log_p, layers)
    assert gaps.std().item() > 0
    assert abs(gaps.mean().item()) < 5 * gaps.std().item() / math.sqrt(len(gaps))


@torch.no_grad()
def _exact_log_likelihood(model: VDVAE) -> Tensor:
    """Log-probability of each level of the only pixel, by quadrature over two layers of one code each."""
    z = torch.linspace(-7, 7, 201)
    grid = torch.cartesian_prod(z, z)  # (z_0, z_1)
    left = iter(grid.T.reshape(2, -1, 1, 1, 1))
    state, codes = model.decoder(len(grid), None, draw=lambda mu, log_sigma: next(left))
    log_p = sum(gaussian.log_prob(c[0], c[3], c[4]).flatten(1).sum(1) for c in codes)
    pixel = model._image_given(state)
    given = [pixel.log_prob(torch.full((len(grid), 1, 1, 1), k, dtype=torch.uint8)) for k in range(5)]
    return torch.logsumexp(torch.stack(given) + log_p, dim=1) + 2 * math.log(float(z[1] - z[0]))


def _one_pixel(**settings) -> VDVAE:
    """Two layers of one code for one pixel, with posteriors so wide that importance weights have a variance."""
    model = _model(
        PIXEL, noise=0.3, latent_dim=1, patch=1, decoder="1x2", encoder="1x1", scales="predicted", **settings
    )
    for block in model.decoder.blocks:
        block.posterior[-1].bias.data[1] += 0.5
    return model


@pytest.mark.slow
def test_more_draws_tighten_the_bound_and_importance_weights_average_to_the_exact_likelihood():
    exact = _exact_log_likelihood(_one_pixel())
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-3)
    gaps = []
    x = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).repeat(1000, 1, 1, 1)
    for num_importance in (1, 4, 16):
        model = _one_pixel(num_importance=num_importance)
        bounds = model.log_likelihood(x, generator=_generator()).view(1000, 5)
        assert bool((bounds.mean(0) < exact + 4 * bounds.std(0) / math.sqrt(1000) + 1e-3).all())
        if num_importance > 1:  # a single draw has its divergence integrated out
            ratios = (bounds - exact).exp()
            assert bool(((ratios.mean(0) - 1).abs() <= 4.5 * ratios.std(0) / math.sqrt(1000) + 1e-3).all())
        gaps.append((bounds - exact).mean().item())
    assert gaps[0] < gaps[1] < gaps[2]


def test_samples_follow_the_exact_probabilities():
    model, count = _one_pixel(), 20_000
    found = torch.bincount(model.sample(count, generator=_generator()).flatten().long(), minlength=5) / count
    expected = _exact_log_likelihood(model).exp()
    assert bool(((found - expected).abs() <= 4.5 * (expected * (1 - expected) / count).sqrt()).all())


def test_a_temperature_scales_what_is_drawn_from_the_priors_and_touches_no_likelihood():
    warm, cold = _model(), _model(temperature=0.25)
    tops = []
    for model in (warm, cold):
        handle = model.decoder.register_forward_hook(lambda module, given, result: tops.append(result[1][0]))
        model.sample(6, generator=_generator())
        handle.remove()
    (z, _, _, mu, log_sigma), (z_cold, _, log_sigma_cold, mu_cold, _) = tops
    torch.testing.assert_close((mu_cold, log_sigma_cold), (mu, log_sigma))
    torch.testing.assert_close(z_cold - mu, 0.25 * (z - mu))
    x = _batch().x
    assert torch.equal(*(m.log_likelihood(x, generator=_generator()) for m in (warm, cold)))


@torch.no_grad()
def test_codes_decode_to_the_reconstruction_and_keep_their_order():
    model, x = _model(), _batch().x
    codes = model.encode(x)
    assert codes.shape == (8, 2 * (1 + 16 + 16))
    state, _ = model.decoder(8, model._features(x), draw=lambda mu, log_sigma: mu)
    assert torch.equal(model.reconstruct(x), model._image_given(state).mean())


def _coupled(num_channels: int, *, num_mixtures: int = 2, levels: int = 4, shape=(1, 1), seed: int = 0) -> Coupled:
    values = torch.randn(
        1, num_outputs(num_mixtures, num_channels, num_scales=num_channels), *shape, generator=_generator(seed)
    )
    return Coupled(values, num_mixtures=num_mixtures, num_channels=num_channels, levels=levels)


def _expanded(pixel: Coupled, count: int) -> Coupled:
    for name in ("logits", "mu", "log_scale", "coefficients"):
        value = getattr(pixel, name)
        setattr(pixel, name, value.expand(count, *value.shape[1:]))
    return pixel


def test_probabilities_of_a_coupled_pixel_sum_to_one_and_samples_follow_them():
    colours = torch.cartesian_prod(*[torch.arange(4)] * 3).to(torch.uint8).view(64, 3, 1, 1)
    log_p = _expanded(_coupled(3), 64).log_prob(colours)
    p = log_p.exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    count = 40_000
    drawn = _expanded(_coupled(3), count).sample(generator=_generator(1)).flatten(1).long()
    found = torch.bincount(drawn @ torch.tensor([16, 4, 1]), minlength=64) / count
    assert bool(((found - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt() + 1e-6).all())


def test_means_of_green_and_blue_are_linear_in_the_levels_before_them():
    """Salimans et al., 2017, Eq. 3, with one component: against logistics whose locations are written out."""
    pixel = _coupled(3, num_mixtures=1, levels=256, shape=(2, 2))
    x = torch.randint(0, 256, (1, 3, 2, 2), generator=_generator(2), dtype=torch.uint8)
    r, g, _ = (x.float() / 127.5 - 1)[0]
    (mu,), (a,) = pixel.mu[0], pixel.coefficients[0]
    locations = torch.stack([mu[0], mu[1] + a[0] * r, mu[2] + a[1] * r + a[2] * g])
    expected = logistic.log_prob(x[0], locations, pixel.log_scale[0, 0], levels=256).sum()
    torch.testing.assert_close(pixel.log_prob(x), expected[None])
    assert bool((pixel.coefficients.abs() < 1).all())


def test_channels_that_are_no_colours_are_independent_given_the_component():
    pixel = _coupled(1, num_mixtures=3, levels=17, shape=(2, 2))
    x = torch.randint(0, 17, (1, 1, 2, 2), generator=_generator(2), dtype=torch.uint8)
    mixture = logistic.Mixture(pixel.logits, pixel.mu, pixel.log_scale)
    torch.testing.assert_close(pixel.log_prob(x), logistic.mixture_log_prob(x, mixture, levels=17).sum((1, 2)))
    assert torch.equal(pixel.mean(), logistic.mixture_mean(mixture, levels=17))


def test_shared_scales_are_those_of_the_parameter_and_both_kinds_train():
    values = torch.randn(2, num_outputs(2, 3, num_scales=0), 4, 4, generator=_generator())
    scale = torch.tensor([[-0.1, -0.2, -0.3], [-0.4, -5.0, 0.0]])
    pixel = Coupled(values, scale, num_mixtures=2, num_channels=3, levels=256)
    expected = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -7.0, 0.0]])  # floored at -7
    torch.testing.assert_close(pixel.log_scale[1, :, :, 2, 3], expected)
    assert pixel.coefficients.shape == pixel.mu.shape == (2, 2, 3, 4, 4)
    for scales in ("shared", "predicted"):
        model = _model(scales=scales)
        assert (model.scale is None) == (scales == "predicted")
        model.loss(_batch(), "autoencoder").total.backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_the_mean_of_a_sharp_pixel_is_what_is_drawn_from_it():
    pixel = _coupled(3, num_mixtures=1, levels=256, shape=(4, 4))
    pixel.mu, pixel.log_scale = 0.3 * pixel.mu.tanh(), torch.full_like(pixel.log_scale, -7.0)
    drawn = pixel.sample(generator=_generator()).int()
    assert (pixel.mean().int() - drawn).abs().max() <= 3


@pytest.mark.parametrize(
    ("channels", "side", "levels", "patch"),
    [(1, 28, 256, 2), (3, 32, 2, 4), (1, 8, 17, 1), (3, 7, 256, 1), (1, 2, 2, 2)],
)
def test_images_of_any_side_pass_through_codes_and_back(channels, side, levels, patch):
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    settings = {"num_importance": 2, "patch": patch, "width": 8}
    model = build_model(MODELS.get("vdvae"), spec, preset="smoke", settings=settings, owner="vdvae").eval()
    x = torch.randint(0, levels, (3, *spec.shape), generator=_generator(), dtype=torch.uint8)
    for images in (model.decode(model.encode(x)), model.reconstruct(x), model.sample(3, generator=_generator())):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels
    assert bool(model.log_likelihood(x, generator=_generator()).isfinite().all())


@pytest.mark.slow
def test_the_paper_preset_is_the_authors_network_for_32_pixels():
    with torch.device("meta"):
        model = VDVAE(DataSpec(shape=(3, 32, 32)), VDVAE.presets["paper"])
    num_up, num_down = len(model.encoder.blocks), len(model.decoder.blocks)
    assert (num_up, num_down) == (33, 43)
    assert sorted({step.side for step in model.decoder.steps}) == [1, 4, 8, 16, 32]
    num_parameters = sum(p.numel() for p in model.parameters())
    assert round(num_parameters / 1e6) == 39  # as the authors' README says
    (player,) = model.phases()[0].players
    assert (player.lr, player.betas, player.weight_decay, player.ema_decay) == (2e-4, (0.9, 0.9), 0.01, 0.9999)


def test_blocks_are_read_from_the_papers_notation():
    assert _parsed("1x2,4m1, 4x2", join="m") == _parsed("1 1 4m1 4 4", join="m")
    assert [tuple(step) for step in _parsed("8x1 8d2 4", join="d")] == [(8, None), (8, 2), (4, None)]
    assert [_sides(side) for side in (32, 14, 4, 1)] == [[32, 16, 8, 4, 1], [14, 7, 4, 1], [4, 1], [1]]


def test_grids_of_empty_strings_follow_the_side():
    up, down = _steps(28, VDVAE.Config(num_blocks=2))
    assert [tuple(step) for step in up] == [
        (14, None), (14, 2), (7, None), (7, 2), (4, None), (4, 4), (1, None), (1, None)
    ]  # fmt: skip
    assert [tuple(step) for step in down] == [(1, None), (4, 1), (4, None), (7, 4), (7, None), (14, 7), (14, None)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder": "1 4d1"}, "is not `SIDE`"),
        ({"encoder": "4xx"}, "is not `SIDE`"),
        ({"decoder": "1 4m1 8m4"}, "ends at 8"),
        ({"decoder": "1 2m1 4m2"}, "does not reach"),
        ({"patch": 3}, "does not divide"),
    ],
)
def test_strings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        VDVAE(SPEC, VDVAE.Config(**settings))


def test_the_likelihood_says_how_it_is_made():
    assert _model().likelihood_estimator == "evidence lower bound, 1 draw"
    assert _model(num_importance=5).likelihood_estimator == "importance-weighted bound, 5 draws"


@pytest.mark.slow
def test_training_raises_the_bound_of_held_out_images():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    torch.manual_seed(0)
    model = VDVAE(data.spec, VDVAE.Config(width=16, latent_dim=4, num_blocks=1, learning_rate=5e-3, warmup_steps=10))
    x = data.load("test", range(64)).x
    before = model.log_likelihood(x, generator=_generator()).mean().item()
    train(model, data.load("train", range(512)), samples_seen=80 * 32, seed=0)
    after = model.log_likelihood(x, generator=_generator()).mean().item()
    assert after > before + 0.5 * data.spec.num_dims


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        VDVAE(DataSpec(kind="vector", shape=(2,), levels=None), VDVAE.Config())
