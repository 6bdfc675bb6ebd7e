import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.data.toy2d import GAUSSIAN_STD, Toy2D, means_of
from genbench.models.diffusion.score_sde import NOISE_SCALE, ScoreSDE
from genbench.prob.pixels import to_signed

TINY = ScoreSDE.Config(width=8, patch=1, vector_width=16, vector_blocks=1)
MEAN, STD = -0.1, 0.25  # of the Gaussian data that `Exact` denoises
SDES = pytest.mark.parametrize("sde", ["ve", "vp", "subvp"])
OUTPUTS = pytest.mark.parametrize("output", ["noise", "velocity"])
LONG = {"sigma_max": 20_000.0, "beta_max": 40.0}
"""So much noise that nothing is left of the data's mean in x_1."""


def tiny(*, shape: tuple[int, ...] = (1, 4, 4), levels: int | None = 256, **changes: object) -> ScoreSDE:
    """A small model whose zero layers are moved a little, so that the network has a say."""
    torch.manual_seed(0)
    spec = DataSpec(kind="image" if len(shape) == 3 else "vector", shape=shape, levels=levels)
    model = ScoreSDE(spec, dataclasses.replace(TINY, **changes)).eval()
    nn.init.normal_(model.net.out.weight, std=0.1)
    return with_sampling(model, num_steps=5)


def with_sampling(model: ScoreSDE, **changes: object) -> ScoreSDE:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


class Exact(nn.Module):
    """The network whose eps_hat is E[z | x] for a mixture of Gaussians of equal weights, in double precision.

    Args:
        config: of the model, for S and what is returned.
        means: (K, D).
        std: of every component.
    """

    def __init__(self, config: ScoreSDE.Config, means: Tensor, std: float) -> None:
        super().__init__()
        self.output, self.S, self.means, self.std = config.output, config.data_std, means.double(), std

    def forward(self, v: Tensor, time: Tensor) -> Tensor:
        r = (time.double() / NOISE_SCALE).exp()[:, None]
        norm = torch.hypot(r, torch.full_like(r, self.S))
        flat = v.double().flatten(1)
        u = flat * norm  # x / alpha
        gap = u[:, None] - self.means  # (B, K, D)
        variance = self.std**2 + r**2
        share = torch.softmax(-0.5 * gap.square().sum(2) / variance, dim=1)
        eps = r * (share[:, :, None] * gap).sum(1) / variance
        out = eps if self.output == "noise" else (r / norm * flat - eps) / (self.S / norm)
        return out.view(v.shape).to(v.dtype)


def exact(
    *, shape: tuple[int, ...] = (2,), means: Tensor | None = None, std: float = STD, **changes: object
) -> ScoreSDE:
    """The best network of N(MEAN, STD^2), or of another mixture."""
    spec = DataSpec(kind="image" if len(shape) == 3 else "vector", shape=shape, levels=256 if len(shape) == 3 else None)
    model = ScoreSDE(spec, dataclasses.replace(TINY, **changes))
    means = torch.full((1, spec.num_dims), MEAN) if means is None else means
    model.net = Exact(model.config, means, std)
    return model


def normal(mean: float, std: float, x: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, std).log_prob(x).flatten(1).sum(1)


def test_the_paper_preset_has_the_authors_process_training_and_sampler() -> None:
    config, sampling = ScoreSDE.presets["paper"], ScoreSDE.sampling_presets["paper"]
    assert (config.width, config.multipliers, config.num_blocks, config.dropout) == (128, (1, 2, 2, 2), 4, 0.1)
    assert (config.sde, config.beta_min, config.beta_max, config.train_t_min) == ("vp", 0.1, 20.0, 1e-5)
    assert (config.sigma_min, config.sigma_max) == (2 * 0.01, 2 * 50.0)
    assert (config.output, config.weighting, config.dequantised) == ("noise", "score", False)
    assert (sampling.sampler, sampling.num_steps, sampling.t_min, sampling.snr) == ("euler_maruyama", 1000, 1e-3, 0.16)
    (phase,) = ScoreSDE(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8, num_blocks=1)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.warmup_steps, player.clip_norm) == (128, 2e-4, 5000, 1.0)
    assert (player.final_lr_share, player.ema_decay) == (1.0, 0.9999)


# The loss


@SDES
@OUTPUTS
def test_the_loss_is_the_weighted_error_of_the_score(sde: str, output: str) -> None:
    model, x_0 = tiny(sde=sde, output=output, weighting="score", dequantised=False), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x_0), "network").total.item()
    torch.manual_seed(3)
    t = 1e-5 + (1.0 - 1e-5) * torch.rand(6)
    z = torch.randn(6, 1, 4, 4)
    alpha, sigma = (a(t)[:, None, None, None] for a in (model.sde.alpha, model.sde.sigma))
    x = alpha * to_signed(x_0, 256) + sigma * z
    expected = (sigma**2 * (model.score(x, t) + z / sigma).square()).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-3)


@SDES
def test_the_loss_of_the_exact_score_is_the_error_that_no_score_escapes(sde: str) -> None:
    """Of Gaussian data Var[z | x] = STD^2 / (STD^2 + r^2); weighed by g^2, its integral is known as well."""
    generator = seeded(1)
    x_0 = MEAN + STD * torch.randn(100_000, 2, generator=generator)
    t = torch.linspace(1e-5, 1.0, 100_001, dtype=torch.float64)
    model = exact(sde=sde, weighting="score")
    r = model.sde.ratio(t)
    left = STD**2 / (STD**2 + r.square())
    torch.manual_seed(0)
    assert model.loss(Batch(x_0), "network").total.item() == pytest.approx(torch.trapezoid(left, t).item(), rel=0.03)
    ends = r[[0, -1]]
    integral = (ends.log() - 0.5 * (STD**2 + ends.square()).log()).diff().item()
    weighted = exact(sde=sde, weighting="likelihood").loss(Batch(x_0), "network")
    assert weighted.parts["nats_per_dim"].item() == pytest.approx(integral, rel=0.01)
    first = torch.linspace(math.log(1e-5), 0.0, 20_001, dtype=torch.float64).exp()  # the integrand grows as 1 / t
    of_log = 0.5 * model.sde.squared_diffusion(first) / model.sde.sigma(first).square()
    of_log = of_log * STD**2 / (STD**2 + model.sde.ratio(first).square()) * first
    assert torch.trapezoid(of_log, first.log()).item() == pytest.approx(integral, rel=1e-4)


@SDES
def test_velocity_weighting_leaves_the_error_of_the_output_that_no_score_escapes(sde: str) -> None:
    """The error of F is that of the noise over cos(phi): Var[z | x] / cos(phi)^2 for Gaussian data, even in phi."""
    x_0 = MEAN + STD * torch.randn(100_000, 2, generator=seeded(1))
    model = exact(sde=sde, weighting="velocity")
    S = model.config.data_std
    start, end = (model.sde.ratio(torch.tensor([1e-5, 1.0], dtype=torch.float64)) / S).atan().tolist()
    phi = torch.linspace(start, end, 20_001, dtype=torch.float64)
    left = STD**2 / (STD**2 + (S * phi.tan()).square()) / phi.cos().square()
    expected = torch.trapezoid(left, phi).item() / (end - start)
    torch.manual_seed(0)
    assert model.loss(Batch(x_0), "network").total.item() == pytest.approx(expected, rel=0.01)


@SDES
def test_velocity_weighting_is_the_plain_error_of_the_output(sde: str) -> None:
    """F of the data is sin(phi) x_0 / S - cos(phi) z, whatever the equation."""
    model, x_0, seen = tiny(sde=sde, weighting="velocity", dequantised=False), integers(64), []
    model.net.register_forward_hook(lambda module, given, result: seen.append((given[1], result)))
    torch.manual_seed(3)
    loss = model.loss(Batch(x_0), "network").total.item()
    ((told, raw),) = seen
    S = model.config.data_std
    phi = ((told / NOISE_SCALE).exp() / S).atan()[:, None, None, None]
    torch.manual_seed(3)
    torch.rand(64)
    z = torch.randn(64, 1, 4, 4)
    expected = (raw - phi.sin() / S * to_signed(x_0, 256) + phi.cos() * z).square().mean()
    assert loss == pytest.approx(expected.item(), rel=1e-3)


@SDES
def test_velocity_weighting_draws_times_evenly_in_the_angle(sde: str) -> None:
    model, told = tiny(shape=(2,), levels=None, sde=sde, weighting="velocity"), []
    model.net.register_forward_hook(lambda module, given, result: told.append(given[1] / NOISE_SCALE))
    model.loss(Batch(torch.zeros(10_000, 2)), "network")
    ends = model.sde.ratio(torch.tensor([1e-5, 1.0], dtype=torch.float64))
    start, end = (ends / model.config.data_std).atan().tolist()
    share = ((told[0].double().exp() / model.config.data_std).atan() - start) / (end - start)
    even = (torch.arange(10_000) + 0.5) / 10_000
    assert (share.sort().values - even).abs().max().item() < 1.95 / 100


@pytest.mark.parametrize("weighting", ["score", "likelihood"])
@SDES
def test_the_loss_is_stationary_at_the_score_of_a_mixture(sde: str, weighting: str) -> None:
    """E (z - E[z | x]) h(x) = 0 for any h: moving the exact network along h changes the loss by its square alone."""
    num, delta = 50_000, 0.1
    means = torch.tensor([[-1.0], [0.2], [0.9]], dtype=torch.float64)
    piece = torch.randint(0, 3, (num,), generator=seeded(1))
    x_0 = (means[piece] + 0.2 * torch.randn(num, 1, generator=seeded(2))).float()
    model = exact(shape=(1,), means=means, std=0.2, sde=sde, weighting=weighting)
    best = model.noise_in
    for h in (torch.ones_like, lambda x: x / (1 + x.abs()), lambda x: torch.sin(3 * x)):
        losses = []
        for sign in (-1.0, 1.0):
            model.noise_in = lambda x, t, told, h=h, sign=sign: best(x, t) + sign * delta * h(x)
            torch.manual_seed(4)
            losses.append(model.loss(Batch(x_0), "network").total.item())
        slope = (losses[1] - losses[0]) / (4 * delta)  # E (eps_hat - z) h, of terms below 1 in the mean square
        assert abs(slope) < 4 / math.sqrt(num)


def test_the_loss_tells_a_wrong_score_from_the_right_one() -> None:
    """What makes the test above mean something: at another mixture's score the loss is not stationary."""
    num, delta = 50_000, 0.1
    x_0 = (0.9 + 0.2 * torch.randn(num, 1, generator=seeded(2))).float()
    model = exact(shape=(1,), means=torch.tensor([[0.6]]), std=0.2)
    best, losses = model.noise_in, []
    for sign in (-1.0, 1.0):
        model.noise_in = lambda x, t, told, sign=sign: best(x, t) + sign * delta
        torch.manual_seed(4)
        losses.append(model.loss(Batch(x_0), "network").total.item())
    assert abs(losses[1] - losses[0]) / (4 * delta) > 20 / math.sqrt(num)


@SDES
def test_likelihood_weighting_draws_times_evenly_in_the_logarithm_of_the_ratio(sde: str) -> None:
    model, told = tiny(shape=(2,), levels=None, sde=sde, weighting="likelihood"), []
    model.net.register_forward_hook(lambda module, given, result: told.append(given[1] / NOISE_SCALE))
    model.loss(Batch(torch.zeros(10_000, 2)), "network")
    first, last = model.sde.ratio(torch.tensor([1e-5, 1.0], dtype=torch.float64)).log().tolist()
    share = (told[0].double() - first) / (last - first)
    even = (torch.arange(10_000) + 0.5) / 10_000
    assert (share.sort().values - even).abs().max().item() < 1.95 / 100


# The network and its scale


@SDES
@OUTPUTS
def test_noise_score_and_denoised_data_say_the_same(sde: str, output: str) -> None:
    model = tiny(sde=sde, output=output).double()
    t = torch.tensor([1e-4, 0.1, 0.6, 1.0], dtype=torch.float64)
    x = model.sde.prior_std * torch.randn(4, 1, 4, 4, dtype=torch.float64, generator=seeded())
    alpha, sigma = (a(t)[:, None, None, None] for a in (model.sde.alpha, model.sde.sigma))
    eps, score, x_0 = model.noise_in(x, t), model.score(x, t), model.denoise(x, t)
    torch.testing.assert_close(score, -eps / sigma)
    torch.testing.assert_close(score, (alpha * x_0 - x) / sigma**2, rtol=1e-6, atol=1e-6)


@SDES
def test_the_network_sees_unit_variance_and_the_logarithm_of_the_ratio(sde: str) -> None:
    model, seen = tiny(data_std=0.5, shape=(1, 8, 8), sde=sde), []
    model.net.register_forward_hook(lambda module, given, result: seen.append(given))
    for t in (1e-3, 0.3, 1.0):
        at = torch.full((200,), t)
        alpha, sigma = float(model.sde.alpha(at[:1])), float(model.sde.sigma(at[:1]))
        x = alpha * 0.5 * torch.randn(200, 1, 8, 8) + sigma * torch.randn(200, 1, 8, 8)
        model.denoise(x, at)
        assert seen[-1][0].std().item() == pytest.approx(1.0, abs=0.03)
        assert float(seen[-1][1][0]) == pytest.approx(NOISE_SCALE * math.log(sigma / alpha), rel=1e-4)


@SDES
def test_the_flow_of_the_angle_is_the_probability_flow_of_the_process(sde: str) -> None:
    """dv / dphi against dx / dt = f x - g^2 score / 2, for a network that is no Gaussian's."""
    for output in ("noise", "velocity"):
        model, at, width = tiny(sde=sde, output=output, data_std=0.6).double(), 0.4, 1e-6
        t = torch.full((3,), at, dtype=torch.float64)
        x = model._place(at).norm * torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=seeded())
        f, g2 = float(model.sde.drift(t)[0]), float(model.sde.squared_diffusion(t)[0])
        velocity = f * x - 0.5 * g2 * model.score(x, t)
        here, there = model._place(at), model._place(at + width)
        slope = ((x + width * velocity) / there.norm - x / here.norm) / (there.phi - here.phi)
        found = model._flow(torch.tensor(here.phi, dtype=torch.float64), x / here.norm)
        torch.testing.assert_close(found, slope.detach(), rtol=1e-3, atol=1e-3)


# Likelihood


@SDES
@OUTPUTS
def test_the_likelihood_is_the_density_of_what_the_exact_flow_makes_of_the_prior(sde: str, output: str) -> None:
    """Of Gaussian data the flow is linear: u = x / alpha keeps (u - MEAN) / sqrt(STD^2 + r^2)."""
    model = with_sampling(exact(sde=sde, output=output), solver="dopri5", solver_tolerance=1e-8)
    t = torch.tensor([1e-5, 1.0], dtype=torch.float64)
    r, alpha = model.sde.ratio(t).tolist(), model.sde.alpha(t).tolist()
    kept = math.sqrt((STD**2 + r[0] ** 2) / (STD**2 + r[1] ** 2))
    x = MEAN + STD * torch.randn(20, 2, generator=seeded(), dtype=torch.float64)
    found = model.log_density(x, generator=seeded())
    std = alpha[0] * kept * model.sde.prior_std / alpha[1]
    torch.testing.assert_close(found, normal(alpha[0] * MEAN * (1 - kept), std, x), rtol=0.0, atol=1e-4)


@SDES
@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
@pytest.mark.parametrize("dims", [8, 0])
def test_the_likelihood_of_an_exact_score_is_the_density_of_the_data(sde: str, solver: str, dims: int) -> None:
    """With much noise in the end; without the exact divergence too, as the Jacobian is diagonal."""
    model = exact(sde=sde, sigma_min=1e-4, **LONG)
    with_sampling(model, solver=solver, likelihood_steps=100, solver_tolerance=1e-8, exact_divergence_dims=dims)
    x = MEAN + STD * torch.randn(20, 2, generator=seeded(), dtype=torch.float64)
    found = model.log_density(x, generator=seeded())
    torch.testing.assert_close(found, normal(MEAN, STD, x), rtol=0.0, atol=1e-4)


@SDES
@pytest.mark.slow
def test_the_likelihood_of_the_exact_score_of_eight_modes_is_their_density(sde: str) -> None:
    law, means = Toy2D(law="gaussians8"), torch.from_numpy(means_of("gaussians8"))
    model = exact(means=means, std=GAUSSIAN_STD["gaussians8"], sde=sde, sigma_min=1e-5, **LONG)
    with_sampling(model, solver="dopri5", solver_tolerance=1e-8, likelihood_t_min=1e-8)
    x = torch.cat([law.load("test", range(24)).x, torch.tensor([[0.0, 0.0], [0.7, 0.7]])]).double()
    found = model.log_likelihood(x, generator=seeded())
    torch.testing.assert_close(found, law.log_density(x), rtol=0.0, atol=1e-4)


def test_log_likelihoods_of_integers_carry_the_volume_of_their_bins() -> None:
    """Against the mass of each bin of the known law: uniform noise can only lose a little."""
    model = with_sampling(exact(shape=(1, 2, 1), beta_max=40.0), solver="dopri5")
    x = torch.tensor([[100, 90], [60, 128], [101, 30]], dtype=torch.uint8).view(3, 1, 2, 1)
    law = torch.distributions.Normal(MEAN, STD)
    centre = to_signed(x, 256).double()
    mass = (law.cdf(centre + 1 / 255) - law.cdf(centre - 1 / 255)).log().flatten(1).sum(1)
    torch.testing.assert_close(model.log_likelihood(x, generator=seeded()).double(), mass, rtol=0.0, atol=0.05)


@SDES
def test_all_integers_together_have_at_most_the_probability_one(sde: str) -> None:
    """Of two pixels of three levels: exp(E log p) summed over all nine pictures."""
    model = with_sampling(tiny(shape=(1, 2, 1), levels=3, sde=sde), likelihood_steps=12)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3)).to(torch.uint8).view(9, 1, 2, 1)
    mean = model.log_likelihood(every.repeat(10, 1, 1, 1), generator=seeded()).view(10, 9).mean(0)
    assert 0.0 < float(mean.exp().sum()) < 1.0


def test_the_density_of_vectors_integrates_to_one() -> None:
    """Of a network that is nobody's, over a wide grid in the plane."""
    model = with_sampling(tiny(shape=(2,), levels=None, output="velocity"), likelihood_steps=24)
    line = torch.linspace(-4.0, 4.0, 81)
    log_density = model.log_likelihood(torch.cartesian_prod(line, line), generator=seeded())
    assert log_density.exp().sum().item() * 0.1**2 == pytest.approx(1.0, abs=0.01)


@SDES
def test_fixed_steps_of_the_angle_reach_what_the_adaptive_solver_finds(sde: str) -> None:
    model, found = tiny(shape=(6,), levels=None, sde=sde), {}
    x = 0.5 * torch.randn(4, 6, generator=seeded())
    for solver, steps in (("dopri5", 1), ("rk4", 16), ("heun2", 64)):
        with_sampling(model, solver=solver, likelihood_steps=steps, solver_tolerance=1e-6)
        found[solver] = model.log_likelihood(x, generator=seeded())
    torch.testing.assert_close(found["rk4"], found["dopri5"], rtol=1e-3, atol=0.02)
    torch.testing.assert_close(found["heun2"], found["dopri5"], rtol=1e-3, atol=0.05)


def test_hutchinsons_estimate_has_the_exact_divergence_for_its_mean() -> None:
    model, x = tiny(shape=(6,), levels=None), 0.5 * torch.randn(1, 6, generator=seeded())
    exactly = with_sampling(model, exact_divergence_dims=6).log_density(x, generator=seeded())
    with_sampling(model, exact_divergence_dims=5)
    estimates = model.log_density(x.expand(400, -1), generator=seeded())
    assert estimates.std() > 0.0
    assert abs((estimates.mean() - exactly).item()) < 4 * estimates.std().item() / 20


@pytest.mark.parametrize(
    ("shape", "changes", "words"),
    [
        (
            (1, 4, 4),
            {"likelihood_steps": 8},
            "rk4, 32 evaluations, Hutchinson's divergence, uniform dequantisation, 1 draw",
        ),
        ((2,), {"solver": "dopri5"}, "dopri5, tolerance 1e-05, exact divergence"),
    ],
)
def test_the_estimator_is_named_with_what_it_depends_on(
    shape: tuple[int, ...], changes: dict[str, object], words: str
) -> None:
    model = tiny(shape=shape, levels=256 if len(shape) == 3 else None)
    assert with_sampling(model, **changes).likelihood_estimator == f"probability-flow ODE, {words}"


# Samples


@SDES
@pytest.mark.parametrize("sampler", ["euler_maruyama", "predictor_corrector", "ode", "dpm_solver_pp"])
def test_samples_are_integers_made_by_the_given_generator_alone(sde: str, sampler: str) -> None:
    model = with_sampling(tiny(levels=17, sde=sde), sampler=sampler)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.shape) == (torch.uint8, (7, 1, 4, 4))
    assert int(first.max()) <= 16
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))


@pytest.mark.parametrize(
    ("sampler", "calls"), [("euler_maruyama", 5), ("predictor_corrector", 15), ("ode", 21), ("dpm_solver_pp", 5)]
)
def test_the_network_is_called_as_often_as_the_settings_say(sampler: str, calls: int) -> None:
    model, counted = with_sampling(tiny(), sampler=sampler, corrector_steps=2), []
    model.network.register_forward_hook(lambda module, given, result: counted.append(1))
    model.sample(3, generator=seeded())
    assert len(counted) == calls


@SDES
@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "num_steps"),
    [("euler_maruyama", 500), ("predictor_corrector", 500), ("ode", 60), ("dpm_solver_pp", 60)],
)
def test_with_the_exact_score_samples_have_the_moments_of_the_data(sde: str, sampler: str, num_steps: int) -> None:
    """Noise of t_min that the denoising step takes away has less than a thousandth of the variance."""
    model = with_sampling(exact(shape=(1, 50, 50), sde=sde), sampler=sampler, num_steps=num_steps, snr=0.05)
    x = to_signed(model.sample(8, generator=seeded()), 256)
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(20_000) + 2e-3)
    assert x.std().item() == pytest.approx(STD, rel=4 / math.sqrt(40_000) + 0.01)


def test_vectors_are_drawn_as_floats_on_their_own_scale() -> None:
    model = with_sampling(exact(shape=(2,)), num_steps=60)
    x = model.sample(20_000, generator=seeded())
    assert (x.dtype, x.shape) == (torch.float32, (20_000, 2))
    assert x.std(0).tolist() == pytest.approx([STD] * 2, rel=0.03)
    assert x.mean(0).tolist() == pytest.approx([MEAN] * 2, abs=0.01)


@pytest.mark.slow
@SDES
def test_a_trained_model_knows_the_density_of_eight_modes_and_draws_them(sde: str) -> None:
    """1,500 steps on the plane: the mean excess of nats over the law's own, and all modes in about equal numbers."""
    torch.manual_seed(0)
    law = Toy2D(law="gaussians8")
    config = dataclasses.replace(TINY, sde=sde, vector_width=64, vector_blocks=2, data_std=1.0, sigma_max=20.0)
    model = ScoreSDE(law.spec, config)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1500)
    x = law.load("train", range(30_000)).x
    for step in range(1500):
        loss = model.loss(Batch(x[step % 60 :: 60]), "network").total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    held_out = law.load("test", range(500)).x
    gap = (law.log_density(held_out) - model.log_likelihood(held_out, generator=seeded())).mean().item()
    assert -0.1 < gap < 0.5
    drawn = model.sample(2000, generator=seeded())
    nearest = torch.cdist(drawn.double(), torch.from_numpy(means_of("gaussians8"))).argmin(1)
    counts = torch.bincount(nearest, minlength=8)
    assert int(counts.min()) > 150
    assert int(counts.max()) < 350


# Settings


def test_settings_can_be_read_off_the_file_and_are_checked() -> None:
    path = MODELS.path("score_sde")
    assert path is not None
    given = {"sde": "subvp", "weighting": "likelihood", "sampler": "ode", "snr": 0.1}
    check_settings(declaration(path, "score_sde"), given, owner="score_sde")
    spec = DataSpec(shape=(1, 8, 8))
    model = build_model(ScoreSDE, spec, preset="smoke", settings={"num_steps": 3, "sde": "ve"}, owner="score_sde")
    assert isinstance(model, ScoreSDE)
    assert (model.sampling.num_steps, model.sde.prior_std) == (3, 100.0)
    with pytest.raises(SettingError, match="expected one of"):
        build_model(ScoreSDE, spec, preset="smoke", settings={"sde": "vpsde"}, owner="score_sde")


@pytest.mark.parametrize(("kind", "levels"), [("waveform", None), ("image", None), ("vector", 256)])
def test_other_data_are_refused(kind: str, levels: int | None) -> None:
    shape = (2,) if kind == "vector" else (1, 8, 8)
    with pytest.raises(ValueError, match="images of integers and vectors of floats"):
        ScoreSDE(DataSpec(kind=kind, shape=shape, levels=levels), TINY)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small"):
        model = ScoreSDE(DataSpec(shape=shape), ScoreSDE.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "network").total.isfinite()
