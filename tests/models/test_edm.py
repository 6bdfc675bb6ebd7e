import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.data.toy2d import Toy2D
from genbench.harness.train import train
from genbench.models.diffusion.edm import EDM
from genbench.prob.pixels import to_signed
from genbench.prob.preconditioning import Preconditioning

TINY = EDM.Config(width=8, patch=1, sigma_data=0.5, noise_scale=10.0)
MEAN, STD = -0.1, 0.25  # of the Gaussian data that `Exact` denoises


def tiny(*, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256, **changes: object) -> EDM:
    """A small model whose zero layers are moved a little, so that the network has a say."""
    torch.manual_seed(0)
    model = EDM(DataSpec(shape=shape, levels=levels), dataclasses.replace(TINY, **changes)).eval()
    torch.nn.init.normal_(model.net.out.weight, std=0.1)
    return with_sampling(model, num_steps=5)


def with_sampling(model: EDM, **changes: object) -> EDM:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


class Exact(nn.Module):
    """The network F with which D is the best denoiser of N(MEAN, STD^2), in double precision."""

    def __init__(self, sigma_data: float, noise_scale: float) -> None:
        super().__init__()
        self.sigma_data, self.noise_scale = sigma_data, noise_scale

    def forward(self, v: Tensor, time: Tensor) -> Tensor:
        sigma = (4.0 * time.double() / self.noise_scale).exp()
        c = Preconditioning.at(sigma, self.sigma_data)
        sigma, skip, out, into = (a.view(-1, *[1] * (v.ndim - 1)) for a in (sigma, c.skip, c.out, c.into))
        x = v / into
        best = MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)
        return ((best - skip * x) / out).to(v.dtype)


def exact(*, shape: tuple[int, int, int] = (1, 2, 1), **changes: object) -> EDM:
    model = EDM(DataSpec(shape=shape), TINY)
    model.net = Exact(model.config.sigma_data, model.config.noise_scale)  # type: ignore[assignment]
    return with_sampling(model, **changes)


def test_the_paper_preset_has_the_authors_network_training_and_sampler() -> None:
    config, sampling = EDM.presets["paper"], EDM.sampling_presets["paper"]
    assert (config.width, config.multipliers, config.num_blocks, config.dropout) == (128, (2, 2, 2), 4, 0.13)
    assert (config.sigma_data, config.log_sigma_mean, config.log_sigma_std, config.noise_scale) == (0.5, -1.2, 1.2, 1.0)
    assert (sampling.sampler, sampling.num_steps) == ("heun", 18)
    assert (sampling.sigma_min, sampling.sigma_max, sampling.rho) == (0.002, 80.0, 7.0)
    (phase,) = EDM(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8, num_blocks=1)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.final_lr_share) == (512, 1e-3, 1.0)
    assert 512 * math.log(0.5) / math.log(player.ema_decay or 0.0) == pytest.approx(500_000, rel=0.01)
    assert 512 * player.warmup_steps == pytest.approx(10e6, rel=1e-3)


def test_the_loss_is_the_weighted_error_of_the_denoiser() -> None:
    """E lambda(sigma) |D(y + n; sigma) - y|^2, lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
    model, x = tiny(dequantised=False), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "denoiser").total.item()
    torch.manual_seed(3)
    sigma = (-1.2 + 1.2 * torch.randn(6)).exp()
    n = sigma[:, None, None, None] * torch.randn(6, 1, 4, 4)
    y = to_signed(x, 256)
    weight = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2
    error = (model.denoise(y + n, sigma) - y).square().flatten(1).mean(1)
    assert loss == pytest.approx((weight * error).mean().item(), rel=1e-4)


def test_a_new_network_costs_the_unit_variance_of_its_target() -> None:
    """Data of the standard deviation `sigma_data`, and a network that says 0."""
    torch.manual_seed(0)
    x = (127.5 + 0.5 * 127.5 * torch.randn(400, 1, 8, 8)).round().clamp(0, 255).to(torch.uint8)
    std = to_signed(x, 256).std().item()
    model = EDM(DataSpec(shape=(1, 8, 8)), dataclasses.replace(TINY, sigma_data=std))
    assert model.loss(Batch(x), "denoiser").total.item() == pytest.approx(1.0, abs=0.03)


def test_the_network_sees_inputs_of_unit_variance_at_every_level() -> None:
    seen: list[Tensor] = []
    model = tiny(shape=(1, 8, 8))
    model.net.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    for sigma in (0.01, 0.5, 80.0):
        x = 0.5 * torch.randn(200, 1, 8, 8) + sigma * torch.randn(200, 1, 8, 8)
        model.denoise(x, torch.full((200,), sigma))
        assert seen[-1].std().item() == pytest.approx(1.0, abs=0.03)


def test_the_denoiser_is_the_identity_where_the_noise_ends() -> None:
    model, x = tiny(), torch.randn(4, 1, 4, 4)
    for sigma in (1e-2, 1e-4, 1e-6):
        assert (model.denoise(x, torch.full((4,), sigma)) - x).abs().max().item() < 10 * sigma


def test_the_network_is_told_a_quarter_of_the_logarithm_of_the_noise() -> None:
    model, told = tiny(noise_scale=1.0), []
    model.net.register_forward_hook(lambda module, given, result: told.append(given[1]))
    sigma = torch.tensor([0.002, 1.0, 80.0])
    model.denoise(torch.zeros(3, 1, 4, 4), sigma)
    torch.testing.assert_close(told[0], sigma.log() / 4)


def test_training_draws_log_normal_levels() -> None:
    model, told = tiny(noise_scale=1.0, log_sigma_mean=-0.5, log_sigma_std=0.8), []
    model.net.register_forward_hook(lambda module, given, result: told.append(4 * given[1]))
    for _ in range(4):
        model.loss(Batch(integers(1000)), "denoiser")
    log_sigma = torch.cat(told)
    assert log_sigma.mean().item() == pytest.approx(-0.5, abs=4 * 0.8 / math.sqrt(4000))
    assert log_sigma.std().item() == pytest.approx(0.8, rel=4 / math.sqrt(8000))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_noised_integers_fill_the_bins_around_their_places(levels: int) -> None:
    """Bins of width 2 / (levels - 1): the noise rounds away, and has the variance of its bin."""
    model, x = tiny(levels=levels), integers(500, levels=levels)
    noise = (model._points(x, seeded(), dequantised=True) - to_signed(x, levels)) * (levels - 1) / 2
    assert float(noise.abs().max()) <= 0.5
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.03)


@pytest.mark.parametrize("sampler", ["heun", "euler", "churn"])
def test_samples_are_integers_made_by_the_given_generator_alone(sampler: str) -> None:
    model = with_sampling(tiny(levels=17), sampler=sampler)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.shape) == (torch.uint8, (7, 1, 4, 4))
    assert int(first.max()) <= 16
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))


@pytest.mark.parametrize(("sampler", "calls"), [("heun", 9), ("churn", 9), ("euler", 5)])
def test_the_network_is_called_twice_a_step_but_by_euler(sampler: str, calls: int) -> None:
    model, counted = with_sampling(tiny(), sampler=sampler), []
    model.network.register_forward_hook(lambda module, given, result: counted.append(1))
    model.sample(3, generator=seeded())
    assert len(counted) == calls


@pytest.mark.parametrize(("sampler", "num_steps"), [("heun", 64), ("euler", 500), ("churn", 100)])
def test_with_the_exact_denoiser_samples_have_the_moments_of_the_data(sampler: str, num_steps: int) -> None:
    model = exact(shape=(1, 50, 50), sampler=sampler, num_steps=num_steps, churn_noise=1.0)
    x = to_signed(model.sample(16, generator=seeded()), 256)
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(40_000) + 1e-3)
    assert x.std().item() == pytest.approx(STD, rel=4 / math.sqrt(80_000) + 0.004)


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
@pytest.mark.parametrize("dims", [8, 0])
def test_the_likelihood_of_an_exact_denoiser_is_the_density_of_the_data(solver: str, dims: int) -> None:
    """Exact but for the ends of the path, moved apart here; the Jacobian is diagonal, so that no estimate has noise."""
    ends = {"sigma_min": 2e-4, "sigma_max": 4000.0}
    model = exact(
        exact_divergence_dims=dims, likelihood_solver=solver, likelihood_steps=60, likelihood_tolerance=1e-8, **ends
    )
    y = MEAN + STD * torch.randn(20, 1, 2, 1, generator=seeded(), dtype=torch.float64)
    found = model.log_density(y, generator=seeded())
    expected = torch.distributions.Normal(MEAN, STD).log_prob(y).flatten(1).sum(1)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-4)


def test_the_likelihood_is_that_of_the_flow_from_the_noise_that_sampling_starts_from() -> None:
    """The flow of N(MEAN, STD^2) is x - MEAN growing with sqrt(STD^2 + sigma^2), here to N(0, 80^2)."""
    model = exact(likelihood_solver="dopri5", likelihood_tolerance=1e-9)
    y = MEAN + STD * torch.randn(20, 1, 2, 1, generator=seeded(), dtype=torch.float64)
    growth = math.sqrt((STD**2 + 80.0**2) / (STD**2 + 0.002**2))
    z = MEAN + (y - MEAN) * growth
    expected = torch.distributions.Normal(0.0, 80.0).log_prob(z) + math.log(growth)
    torch.testing.assert_close(
        model.log_density(y, generator=seeded()), expected.flatten(1).sum(1), rtol=0.0, atol=1e-6
    )


def test_the_flow_of_the_angle_is_that_of_the_noise_level() -> None:
    """dv / dphi = -F against dx / dsigma = (x - D) / sigma, for a network that is no Gaussian's."""
    model, sigma_data, sigma, width = tiny(sigma_data=0.6).double(), 0.6, 0.7, 1e-5
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    level = torch.full((3,), sigma, dtype=torch.float64)
    slope = (x - model.denoise(x, level)) / sigma
    v, ahead = (y / math.hypot(s, sigma_data) for y, s in ((x, sigma), (x + width * slope, sigma + width)))
    raw = model._raw(v, Preconditioning.at(level, sigma_data).noise)
    angle = math.atan((sigma + width) / sigma_data) - math.atan(sigma / sigma_data)
    torch.testing.assert_close((ahead - v) / angle, -raw, rtol=1e-3, atol=1e-4)


def test_log_likelihoods_of_integers_carry_the_volume_of_their_bins() -> None:
    """Against the mass of each bin of the known law: uniform noise can only lose a little."""
    model = exact(shape=(1, 2, 1), likelihood_solver="dopri5", sigma_max=400.0)
    x = torch.tensor([[100, 90], [60, 128], [101, 30]], dtype=torch.uint8).view(3, 1, 2, 1)
    law = torch.distributions.Normal(MEAN, STD)
    centre = to_signed(x, 256).double()
    mass = (law.cdf(centre + 1 / 255) - law.cdf(centre - 1 / 255)).log().flatten(1).sum(1)
    torch.testing.assert_close(model.log_likelihood(x, generator=seeded()).double(), mass, rtol=0.0, atol=0.05)


def test_all_integers_together_have_at_most_the_probability_one() -> None:
    """Of two pixels of three levels: exp(E log p) summed over all nine pictures."""
    model = with_sampling(tiny(shape=(1, 2, 1), levels=3), likelihood_steps=8)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3)).to(torch.uint8).view(9, 1, 2, 1)
    mean = model.log_likelihood(every.repeat(30, 1, 1, 1), generator=seeded()).view(30, 9).mean(0)
    assert 0.0 < float(mean.exp().sum()) < 1.0


@pytest.mark.slow
def test_fixed_steps_reach_what_the_adaptive_solver_finds() -> None:
    model, x = tiny(), integers(4)
    torch.nn.init.normal_(model.net.out.weight, std=0.02)
    found = {}
    for solver, steps in (("dopri5", 1), ("rk4", 24), ("heun2", 80)):
        with_sampling(model, likelihood_solver=solver, likelihood_steps=steps, likelihood_tolerance=1e-4)
        found[solver] = model.log_likelihood(x, generator=seeded())
    torch.testing.assert_close(found["rk4"], found["dopri5"], rtol=1e-3, atol=0.02)
    torch.testing.assert_close(found["heun2"], found["dopri5"], rtol=1e-3, atol=0.05)


def test_hutchinsons_estimate_has_the_exact_divergence_for_its_mean() -> None:
    """On the same path, of a few steps."""
    model, x = with_sampling(tiny(), likelihood_solver="heun2", likelihood_steps=3), integers(1)
    y = model._points(x, seeded(), dequantised=True)
    exactly = with_sampling(model, exact_divergence_dims=16).log_density(y, generator=seeded())
    with_sampling(model, exact_divergence_dims=0)
    estimates = model.log_density(y.expand(200, -1, -1, -1), generator=seeded())
    assert estimates.std() > 0.0
    assert abs((estimates.mean() - exactly).item()) < 4 * estimates.std().item() / math.sqrt(200)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"likelihood_solver": "rk4", "likelihood_steps": 8}, "rk4, 32 evaluations, Hutchinson's divergence"),
        ({"likelihood_solver": "dopri5", "exact_divergence_dims": 16}, "dopri5, tolerance 1e-05, exact divergence"),
    ],
)
def test_the_estimator_is_named_with_what_it_depends_on(changes: dict[str, object], words: str) -> None:
    name = with_sampling(tiny(), **changes).likelihood_estimator
    assert name == f"probability-flow ODE, {words}, uniform dequantisation, 1 draw"


def test_the_likelihood_uses_the_given_generator_alone() -> None:
    model, x = with_sampling(tiny(), likelihood_steps=2), integers(4)
    before = torch.get_rng_state()
    first = model.log_likelihood(x, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, model.log_likelihood(x, generator=seeded()))
    assert not first.requires_grad


def test_settings_can_be_read_off_the_file_and_are_checked() -> None:
    path = MODELS.path("edm")
    assert path is not None
    check_settings(declaration(path, "edm"), {"sampler": "churn", "churn": 40.0, "sigma_data": 0.3}, owner="edm")
    model = build_model(EDM, DataSpec(shape=(1, 8, 8)), preset="smoke", settings={"num_steps": 3}, owner="edm")
    assert isinstance(model, EDM)
    assert model.sampling.num_steps == 3
    with pytest.raises(SettingError, match="expected one of"):
        build_model(EDM, DataSpec(shape=(1, 8, 8)), preset="smoke", settings={"sampler": "ddpm"}, owner="edm")


def test_data_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="images of integers and vectors of floats"):
        EDM(DataSpec(kind="waveform", shape=(1, 8), levels=None), TINY)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small"):
        model = EDM(DataSpec(shape=shape), EDM.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "denoiser").total.isfinite()


def test_vectors_have_their_exact_density_and_float_samples() -> None:
    torch.manual_seed(0)
    model = EDM(DataSpec(kind="vector", shape=(2,), levels=None), EDM.presets["smoke"]).eval()
    model.net = Exact(model.config.sigma_data, model.config.noise_scale)  # type: ignore[assignment]
    with_sampling(model, likelihood_solver="dopri5", likelihood_tolerance=1e-7, sigma_max=1000.0, num_steps=120)
    x = MEAN + STD * torch.randn(20, 2, generator=seeded())
    expected = torch.distributions.Normal(MEAN, math.sqrt(STD**2 + 0.002**2)).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_likelihood(x, generator=seeded()), expected, rtol=0.0, atol=2e-3)
    assert model.likelihood_estimator == "probability-flow ODE, dopri5, tolerance 1e-07, exact divergence"
    drawn = model.sample(20_000, generator=seeded())
    assert drawn.dtype == torch.float32
    assert drawn.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(40_000) + 1e-3)
    assert drawn.std().item() == pytest.approx(STD, rel=4 / math.sqrt(80_000) + 0.01)


@pytest.mark.slow
def test_vectors_are_learned_to_within_a_fraction_of_a_nat() -> None:
    dataset = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    assert isinstance(dataset, Toy2D)
    settings = {"batch_size": 128, "likelihood_steps": 12, "vector_width": 64, "vector_blocks": 2}
    model = build_model(EDM, dataset.spec, preset="smoke", settings=settings, owner="edm")
    assert isinstance(model, EDM)
    train(model, dataset.load("train", range(20_000)), samples_seen=128 * 600, seed=0)
    held_out = dataset.load("test", range(1000)).x
    excess = dataset.log_density(held_out) - model.log_likelihood(held_out, generator=seeded())
    assert -0.05 < excess.mean().item() < 0.8  # the network that says 0 has a normal law, and 2.5
