"""Flow matching against laws whose velocities and densities are known: mixtures of Gaussians."""

import dataclasses
import math
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.declared import check_settings, declaration
from genbench.core.density import KnownDensity
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.data.toy2d import GAUSSIAN_STD, means_of
from genbench.harness.train import train
from genbench.models.flow_matching.flow_matching import DIFFUSION_END, FlowMatching, diffusion, straight
from genbench.prob.pixels import to_signed

TINY = FlowMatching.Config(width=8, patch=1, vector_width=16, vector_blocks=1)
LINE = DataSpec(kind="vector", shape=(1,), levels=None)
PLANE = DataSpec(kind="vector", shape=(2,), levels=None)
PATHS = ({"path": "straight"}, {"path": "straight", "sigma_min": 0.2}, {"path": "diffusion"})
MEANS, STD = torch.tensor([[-1.0], [1.5]], dtype=torch.float64), 0.3


def tiny(spec: DataSpec | None = None, **changes: object) -> FlowMatching:
    """A small model whose last layer is moved a little, so that the network has a say."""
    torch.manual_seed(0)
    model = FlowMatching(spec or DataSpec(shape=(1, 4, 4)), dataclasses.replace(TINY, **changes)).eval()
    torch.nn.init.normal_(model.net.out.weight, std=0.1)
    return with_sampling(model, num_steps=4, likelihood_steps=4)


def with_sampling(model: FlowMatching, **changes: object) -> FlowMatching:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


class Exact(nn.Module):
    """The velocity of even mixtures of N(means, std^2 I) along a model's path, in double precision.

    Given the component, x_t and u are jointly Gaussian with x_t ~ N(alpha mean, s2), s2 = alpha^2 std^2 + sigma^2.
    """

    def __init__(self, model: FlowMatching, means: Tensor, std: float) -> None:
        super().__init__()
        self.path, self.scale, self.means, self.std = model.path, model.config.time_scale, means, std

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        alpha, sigma, alpha_slope, sigma_slope = (a.view(-1, 1, 1) for a in self.path(time.double() / self.scale))
        s2 = (alpha * self.std).square() + sigma.square()  # (B, 1, 1)
        apart = x.double().flatten(1)[:, None] - alpha * self.means  # (B, K, D)
        share = torch.softmax((-apart.square() / (2.0 * s2)).sum(2), dim=1)[:, :, None]
        slope = (alpha * alpha_slope * self.std**2 + sigma * sigma_slope) / s2
        return (share * (alpha_slope * self.means + slope * apart)).sum(1).view(x.shape).to(x.dtype)


def exact(spec: DataSpec, means: Tensor, std: float, *, path: dict[str, object], **sampling: object) -> FlowMatching:
    model = FlowMatching(spec, dataclasses.replace(TINY, **path))
    model.net = Exact(model, means, std)  # type: ignore[assignment]
    solvers = {"solver": "dopri5", "likelihood_solver": "dopri5", "tolerance": 1e-8, "likelihood_tolerance": 1e-8}
    return with_sampling(model, **{**solvers, **sampling})


def end_std(model: FlowMatching, std: float) -> float:
    """Of each component where the path ends: the data with sigma_min on top."""
    return math.hypot(std, model.config.sigma_min if model.config.path == "straight" else 0.0)


def mixture_cdf(x: Tensor, std: float) -> Tensor:
    return torch.distributions.Normal(MEANS[:, 0], std).cdf(x).mean(1)


def mixture_log_density(x: Tensor, means: Tensor, std: float) -> Tensor:
    return torch.distributions.Normal(means, std).log_prob(x[:, None]).sum(2).logsumexp(1) - math.log(len(means))


def test_the_paper_preset_has_the_papers_network_training_and_solver() -> None:
    config, sampling = FlowMatching.presets["paper"], FlowMatching.sampling_presets["paper"]
    network = (config.width, config.multipliers, config.num_blocks, config.attention_resolution, config.num_heads)
    assert network == (256, (1, 2, 2, 2), 2, 16, 4)
    assert (config.path, config.times, config.dropout, sampling.solver) == ("straight", "uniform", 0.0, "dopri5")
    assert (sampling.tolerance, sampling.likelihood_tolerance) == (1e-5, 1e-5)
    (phase,) = FlowMatching(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.warmup_steps, player.final_lr_share) == (256, 5e-4, 45_000, 0.0)


@pytest.mark.parametrize("changes", PATHS)
def test_slopes_of_a_path_are_its_derivatives(changes: dict[str, object]) -> None:
    t, path = torch.linspace(0.02, 0.98, 20, dtype=torch.float64), tiny(**changes).path
    for factor in (0, 1):
        width = 1e-6
        slope = (path(t + width)[factor] - path(t - width)[factor]) / (2 * width)
        torch.testing.assert_close(path(t)[factor + 2], slope, rtol=1e-6, atol=1e-7)


def test_paths_begin_with_noise_and_end_with_data() -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    alpha, sigma, *_ = straight(ends, sigma_min=0.05)
    torch.testing.assert_close(alpha, ends)
    torch.testing.assert_close(sigma, torch.tensor([1.0, 0.05], dtype=torch.float64))
    t = torch.tensor([0.0, 0.3, 0.9, DIFFUSION_END], dtype=torch.float64)
    alpha, sigma, *_ = diffusion(t)
    torch.testing.assert_close(alpha.square() + sigma.square(), torch.ones_like(t))
    assert alpha[0].item() == pytest.approx(math.exp(-0.5 * 10.05))  # half the integral of beta from 0.1 to 20
    assert sigma[-1].item() == pytest.approx(math.sqrt(0.1 * 1e-5), rel=1e-2)


@pytest.mark.parametrize("path", PATHS)
def test_points_given_an_example_have_the_mean_and_variance_of_the_path(path: dict[str, object]) -> None:
    model, count = tiny(PLANE, **path), 40_000
    x1 = torch.tensor([[0.7, -1.2]], dtype=torch.float64).expand(count, -1)
    for time in (0.0, 0.4, 0.95):
        model.times = lambda num, device, time=time: torch.full((num,), time, dtype=torch.float64)  # type: ignore[method-assign]
        x_t, t, _ = model.regression(torch.randn(x1.shape, generator=seeded(), dtype=torch.float64), x1)
        alpha, sigma, *_ = (float(a[0]) for a in model.path(t))
        error = 4 * sigma / math.sqrt(count)
        torch.testing.assert_close(x_t.mean(0), alpha * x1[0], rtol=0.0, atol=error + 1e-12)
        torch.testing.assert_close(
            x_t.std(0), torch.full((2,), sigma).double(), rtol=4 / math.sqrt(2 * count), atol=1e-9
        )


@pytest.mark.parametrize("path", PATHS)
def test_the_mean_of_the_target_at_a_point_is_the_velocity_of_the_law(path: dict[str, object]) -> None:
    """In bins of x_t, of one time: the mean target against the mean of the closed form, within its error."""
    model, count = exact(LINE, MEANS, STD, path=path), 200_000
    x1 = MEANS[torch.randint(2, (count,), generator=seeded(1))] + STD * torch.randn(
        count, 1, generator=seeded(2), dtype=torch.float64
    )
    for time in (0.1, 0.5, 0.9):
        model.times = lambda num, device, time=time: torch.full((num,), time, dtype=torch.float64)  # type: ignore[method-assign]
        x_t, t, u = model.regression(torch.randn(x1.shape, generator=seeded(3), dtype=torch.float64), x1)
        excess = (u - model.velocity(x_t, t))[x_t[:, 0].argsort(), 0].view(20, -1)  # equally full bins
        error = excess.std(1) / math.sqrt(excess.shape[1])
        assert (excess.mean(1).abs() < 4 * error).all()
        assert error.max() < 0.1 * u.std()


@pytest.mark.parametrize("path", PATHS)
def test_the_exact_velocity_carries_noise_to_the_quantiles_of_the_data(path: dict[str, object]) -> None:
    """Paths on a line do not cross, so that each point keeps its quantile."""
    model = exact(LINE, MEANS, STD, path=path)
    x0 = torch.linspace(-2.5, 2.5, 21, dtype=torch.float64)[:, None]
    found = mixture_cdf(model.flow(x0), end_std(model, STD))
    start = torch.distributions.Normal(0.0, 1.0).cdf(x0[:, 0])
    tolerance = 1e-4 if path["path"] == "straight" else 5e-3  # the diffusion path begins with a little data: exp(-5)
    torch.testing.assert_close(found, start, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("path", PATHS[:2])
def test_the_likelihood_of_the_exact_velocity_is_the_density_of_the_data(path: dict[str, object]) -> None:
    means = torch.from_numpy(means_of("gaussians8"))
    model = exact(PLANE, means, GAUSSIAN_STD["gaussians8"], path=path)
    x = means[torch.arange(24) % 8] + 0.15 * torch.randn(24, 2, generator=seeded(), dtype=torch.float64)
    expected = mixture_log_density(x, means, end_std(model, GAUSSIAN_STD["gaussians8"]))
    torch.testing.assert_close(model.log_density(x), expected, rtol=0.0, atol=1e-4)
    if not model.config.sigma_min:
        law = cast("KnownDensity", build_dataset(parse_ref("toy2d[law=gaussians8]")))
        torch.testing.assert_close(law.log_density(x), expected, rtol=0.0, atol=1e-9)
        found = model.log_likelihood(x.float(), generator=seeded())  # in single precision
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_the_likelihood_on_the_diffusion_path_is_that_of_its_flow() -> None:
    """Of N(m, s^2) the flow moves quantiles, from N(alpha_0 m, .) read as N(0, 1)."""
    model = exact(LINE, MEANS[1:], STD, path={"path": "diffusion"})
    x = MEANS[1:] + STD * torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    alpha, sigma, *_ = model.path(torch.tensor([0.0, model.last_time], dtype=torch.float64))
    spread = ((alpha * STD).square() + sigma.square()).sqrt()  # of the law at both ends
    x0 = alpha[0] * MEANS[1] + spread[0] / spread[1] * (x - alpha[1] * MEANS[1])
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x0)[:, 0] + (spread[0] / spread[1]).log()
    torch.testing.assert_close(model.log_density(x), expected, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun2", "rk4", "dopri5"])
def test_every_solver_reaches_the_data(solver: str) -> None:
    model = exact(LINE, MEANS, STD, path=PATHS[0], solver=solver, num_steps=200, likelihood_solver=solver)
    with_sampling(model, likelihood_steps=400)
    x0 = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    tolerance = 0.02 if solver == "euler" else 1e-3
    start = torch.distributions.Normal(0.0, 1.0).cdf(x0[:, 0])
    torch.testing.assert_close(mixture_cdf(model.flow(x0), STD), start, rtol=0.0, atol=tolerance)
    x = MEANS + 0.2
    torch.testing.assert_close(model.log_density(x), mixture_log_density(x, MEANS, STD), rtol=0.0, atol=5 * tolerance)


def test_log_likelihoods_of_integers_carry_the_volume_of_their_bins() -> None:
    """Against the mass of each bin of the known law: uniform noise can only lose a little."""
    mean, std = -0.1, 0.25
    model = exact(DataSpec(shape=(1, 2, 1)), torch.full((1, 2), mean, dtype=torch.float64), std, path=PATHS[0])
    x = torch.tensor([[100, 90], [60, 128], [101, 130]], dtype=torch.uint8).view(3, 1, 2, 1)
    law, centre = torch.distributions.Normal(mean, std), to_signed(x, 256).double()
    mass = (law.cdf(centre + 1 / 255) - law.cdf(centre - 1 / 255)).log().flatten(1).sum(1)
    found = model.log_likelihood(x, generator=seeded()).double()
    torch.testing.assert_close(found, mass, rtol=0.0, atol=0.05)
    y = model.as_points(x.repeat(200, 1, 1, 1), seeded())
    assert torch.equal(model.as_data(y), x.repeat(200, 1, 1, 1))


def test_hutchinsons_estimate_has_the_exact_divergence_for_its_mean() -> None:
    model, x = tiny(), integers(1)
    y = model.as_points(x, seeded())
    exactly = with_sampling(model, exact_divergence_dims=16).log_density(y, generator=seeded())
    with_sampling(model, exact_divergence_dims=8)
    estimates = model.log_density(y.expand(300, -1, -1, -1), generator=seeded())
    assert estimates.std() > 0.0
    assert abs((estimates.mean() - exactly).item()) < 4 * estimates.std().item() / math.sqrt(300)


def test_the_estimator_is_named_with_what_it_depends_on() -> None:
    model = with_sampling(tiny(), likelihood_steps=8)
    hutchinson = "flow ODE, rk4, 32 evaluations, Hutchinson's divergence, uniform dequantisation, 1 draw"
    assert model.likelihood_estimator == hutchinson
    model = with_sampling(tiny(PLANE), likelihood_solver="dopri5")
    assert model.likelihood_estimator == "flow ODE, dopri5, tolerance 1e-05, exact divergence"


@pytest.mark.parametrize("path", PATHS)
def test_the_loss_is_the_mean_squared_error_of_the_velocity(path: dict[str, object]) -> None:
    model, x = tiny(dequantised=False, **path), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "network").total.item()
    torch.manual_seed(3)
    x0, x1 = torch.randn(6, 1, 4, 4), to_signed(x, 256)
    t = model.last_time * torch.rand(6)
    alpha, sigma, alpha_slope, sigma_slope = (a.view(6, 1, 1, 1) for a in model.path(t))
    v = model.net(alpha * x1 + sigma * x0, 100.0 * t)
    assert loss == pytest.approx((v - alpha_slope * x1 - sigma_slope * x0).square().mean().item(), rel=1e-5)


def test_a_new_network_costs_the_variance_of_noise_and_data() -> None:
    model = FlowMatching(PLANE, TINY)
    x = torch.randn(20_000, 2, generator=seeded()) * 2.0
    assert model.loss(Batch(x), "network").total.item() == pytest.approx(5.0, abs=0.15)


@pytest.mark.parametrize("path", PATHS)
def test_times_lie_within_the_path_and_follow_their_law(path: dict[str, object]) -> None:
    torch.manual_seed(0)
    even = tiny(**path).times(20_000, torch.device("cpu"))
    model = tiny(times="logit_normal", logit_mean=0.5, logit_std=0.8, **path)
    middle = model.times(20_000, torch.device("cpu"))
    for t in (even, middle):
        assert float(t.min()) >= 0.0
        assert float(t.max()) <= model.last_time
    assert even.mean().item() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 20_000))
    logits = (middle / model.last_time).double().logit()
    assert logits.mean().item() == pytest.approx(0.5, abs=4 * 0.8 / math.sqrt(20_000))
    assert logits.std().item() == pytest.approx(0.8, rel=4 / math.sqrt(40_000))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun2", "rk4", "dopri5"])
@pytest.mark.parametrize("spec", [DataSpec(shape=(1, 4, 4), levels=17), PLANE])
def test_samples_are_data_made_by_the_given_generator_alone(spec: DataSpec, solver: str) -> None:
    model = with_sampling(tiny(spec), solver=solver)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (7, *spec.shape)
    if spec.levels is None:
        assert first.dtype == torch.float32
    else:
        assert first.dtype == torch.uint8
        assert int(first.max()) <= 16
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))


@pytest.mark.parametrize(("solver", "calls"), [("euler", 7), ("midpoint", 14), ("heun2", 14), ("rk4", 28)])
def test_the_network_is_called_as_often_as_the_solver_says(solver: str, calls: int) -> None:
    model, counted = with_sampling(tiny(), solver=solver, num_steps=7), []
    model.network.register_forward_hook(lambda module, given, result: counted.append(1))
    model.sample(3, generator=seeded())
    assert len(counted) == calls


def test_the_likelihood_uses_the_given_generator_alone() -> None:
    model, x = tiny(), integers(4)
    before = torch.get_rng_state()
    first = model.log_likelihood(x, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, model.log_likelihood(x, generator=seeded()))
    assert not torch.equal(first, model.log_likelihood(x, generator=seeded(1)))
    assert not first.requires_grad


def test_settings_can_be_read_off_the_file_and_are_checked() -> None:
    path = MODELS.path("flow_matching")
    assert path is not None
    settings = {"path": "diffusion", "sigma_min": 0.01, "times": "logit_normal", "solver": "rk4", "num_steps": 3}
    check_settings(declaration(path, "flow_matching"), settings, owner="flow_matching")
    model = build_model(FlowMatching, PLANE, preset="vector", settings=settings, owner="flow_matching")
    assert isinstance(model, FlowMatching)
    assert (model.config.path, model.sampling.solver, model.sampling.num_steps) == ("diffusion", "rk4", 3)
    for wrong in ({"solver": "ddpm"}, {"sigma_min": 1.0}, {"path": "curved"}):
        with pytest.raises(SettingError):
            build_model(FlowMatching, PLANE, preset="vector", settings=wrong, owner="flow_matching")


@pytest.mark.parametrize("kind", ["waveform", "vector", "image"])
def test_data_of_another_kind_are_refused(kind: str) -> None:
    wrong = {"waveform": ((1, 8), None), "vector": ((2,), 4), "image": ((1, 4, 4), None)}
    shape, levels = wrong[kind]
    with pytest.raises(SettingError, match=f"found {kind} data"):
        FlowMatching(DataSpec(kind=kind, shape=shape, levels=levels), TINY)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small", "vector"):
        model = FlowMatching(DataSpec(shape=shape), FlowMatching.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "network").total.isfinite()


@pytest.mark.slow
@pytest.mark.parametrize(("path", "most"), [("straight", 0.5), ("diffusion", 1.0)])
def test_a_trained_flow_knows_the_density_of_eight_gaussians(path: str, most: float) -> None:
    data = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    settings = {"path": path, "likelihood_steps": 30}
    model = build_model(FlowMatching, data.spec, preset="vector", settings=settings, owner="flow_matching")
    train(model, data.load("train", range(20_000)), samples_seen=256 * 600, seed=0)
    assert isinstance(model, FlowMatching)
    x = data.load("test", range(1000)).x
    gap = cast("KnownDensity", data).log_density(x) - model.log_likelihood(x, generator=seeded())
    assert 0.0 < gap.mean().item() < most  # 2.5 nats of a standard normal law
    drawn = model.sample(1000, generator=seeded())
    assert cast("KnownDensity", data).log_density(drawn).median() > -3.0  # 0.6 less than between the centre and the rim
