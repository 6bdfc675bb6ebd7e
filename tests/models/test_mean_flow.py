"""Average velocities against flows in closed form and by integration."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, LikelihoodEstimate, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.flow_matching.mean_flow import MeanFlow
from genbench.prob.pixels import to_signed

TINY = MeanFlow.Config(width=8, patch=1, vector_width=16, vector_blocks=1)
PLANE = DataSpec(kind="vector", shape=(2,), levels=None)
MEAN, STD = -0.8, 0.4  # of the Gaussian data


def tiny(spec: DataSpec | None = None, **changes: object) -> MeanFlow:
    """A small model whose zero layers are moved a little, so that the network has a say."""
    torch.manual_seed(0)
    model = MeanFlow(spec or DataSpec(shape=(1, 4, 4)), dataclasses.replace(TINY, **changes)).eval()
    for name, parameter in model.named_parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1, generator=seeded(len(name)))
    return model


def with_sampling(model: MeanFlow, **changes: object) -> MeanFlow:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


def spread(t: Tensor) -> Tensor:
    """Standard deviation of z_t of Gaussian data."""
    return ((1.0 - t).square() * STD**2 + t.square()).sqrt()


class Gaussian(nn.Module):
    """u of data N(MEAN, STD^2), whose flow is z_r = (1 - r) MEAN + s_r / s_t (z_t - (1 - t) MEAN)."""

    def forward(self, z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        r, t = (a.view(-1, *[1] * (z.ndim - 1)) for a in (r, t))
        apart = z - (1.0 - t) * MEAN
        same = t - r == 0.0
        width = torch.where(same, 1.0, t - r)
        slope = (spread(t) - spread(r)) / (width * spread(t))
        instant = (t - (1.0 - t) * STD**2) / spread(t).square()
        return -MEAN + apart * torch.where(same, instant, slope)


class Integrated(nn.Module):
    """u of two Gaussians on a line, (z_t - z_r) / (t - r) from many steps of Runge and Kutta."""

    means, std, num_steps = (-1.0, 1.2), 0.5, 64

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """E[eps - x | z_t]."""
        s2, means = ((1 - t) * self.std).square() + t.square(), torch.tensor(self.means, dtype=z.dtype)
        apart = z - (1 - t) * means  # (B, 2)
        share = torch.softmax(-apart.square() / (2 * s2), dim=1)
        slope = (t - (1 - t) * self.std**2) / s2
        return (share * (slope * apart - means)).sum(1, keepdim=True)

    def forward(self, z: Tensor, r: Tensor, t: Tensor) -> Tensor:
        r, t, start = r[:, None], t[:, None], z
        h = (r - t) / self.num_steps
        for k in range(self.num_steps):
            now = t + k * h
            k1 = self.velocity(z, now)
            k2 = self.velocity(z + 0.5 * h * k1, now + 0.5 * h)
            k3 = self.velocity(z + 0.5 * h * k2, now + 0.5 * h)
            k4 = self.velocity(z + h * k3, now + h)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return (start - z) / (t - r)


def exact(spec: DataSpec = PLANE, network: nn.Module | None = None, **sampling: object) -> MeanFlow:
    model = MeanFlow(spec, TINY)
    model.average = network or Gaussian()  # type: ignore[assignment]
    return with_sampling(model, **sampling)


def times(num: int) -> tuple[Tensor, Tensor]:
    """Times r < t, apart by at least 0.05."""
    r = 0.05 + 0.6 * torch.rand(num, generator=seeded(7), dtype=torch.float64)
    return r, r + 0.05 + 0.25 * torch.rand(num, generator=seeded(8), dtype=torch.float64)


def test_the_paper_preset_has_the_papers_training_on_cifar10() -> None:
    config, sampling = MeanFlow.presets["paper"], MeanFlow.sampling_presets["paper"]
    network = (config.width, config.multipliers, config.num_blocks, config.dropout, config.time_scale)
    assert network == (128, (2, 2, 2), 4, 0.2, 1.0)
    assert (config.interval_share, config.logit_mean, config.logit_std, config.power) == (0.75, -2.0, 2.0, 0.75)
    assert (sampling.solver, sampling.num_steps) == ("mean", 1)
    (phase,) = MeanFlow(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8, num_blocks=1)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.ema_decay, player.warmup_steps) == (1024, 6e-4, 0.99995, 10_000)


@pytest.mark.parametrize(
    ("spec", "network"), [(PLANE, Gaussian()), (DataSpec(kind="vector", shape=(1,), levels=None), Integrated())]
)
def test_the_identity_holds_for_the_average_of_a_known_velocity(spec: DataSpec, network: nn.Module) -> None:
    """With the velocity of the law in place of that of an example, the target is u itself."""
    model, (r, t) = exact(spec, network), times(40)
    z = 1.5 * torch.randn(40, *spec.shape, generator=seeded(), dtype=torch.float64)
    v = network.velocity(z, t[:, None]) if isinstance(network, Integrated) else network(z, t, t)
    torch.testing.assert_close(model.target(z, v, r, t), network(z, r, t), rtol=1e-6, atol=1e-7)


def test_the_mean_target_at_a_point_obeys_the_identity() -> None:
    """Over examples given z_t, as du/dt is linear in v: errors have no part along any function of z_t."""
    model, count = exact(DataSpec(kind="vector", shape=(1,), levels=None)), 100_000
    x = MEAN + STD * torch.randn(count, 1, generator=seeded(1), dtype=torch.float64)
    eps = torch.randn(count, 1, generator=seeded(2), dtype=torch.float64)
    r, t = torch.full((count,), 0.2, dtype=torch.float64), torch.full((count,), 0.7, dtype=torch.float64)
    z = torch.lerp(x, eps, 0.7)
    excess = (model.target(z, eps - x, r, t) - model.average(z, r, t))[:, 0]
    for along in (torch.ones_like(excess), z[:, 0], z[:, 0].square(), z[:, 0].sin()):
        product = excess * along
        assert product.mean().abs() < 4 * product.std() / math.sqrt(count)
    assert excess.std() > 0.1


def test_one_step_of_the_exact_average_lands_where_the_flow_ends() -> None:
    model = exact(solver="dopri5", tolerance=1e-9)
    z = torch.randn(30, 2, generator=seeded(), dtype=torch.float64)
    zero, one = torch.zeros(30, dtype=torch.float64), torch.ones(30, dtype=torch.float64)
    end = model.jump(z, zero, one)
    torch.testing.assert_close(end, MEAN + STD * z, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(model.flow(z), end, rtol=0.0, atol=1e-6)
    drawn = with_sampling(model, solver="mean").sample(20_000, generator=seeded())
    assert drawn.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(40_000))
    assert drawn.std().item() == pytest.approx(STD, rel=4 / math.sqrt(80_000))


def test_averages_over_a_part_add_up_to_the_whole() -> None:
    model = exact(DataSpec(kind="vector", shape=(1,), levels=None), Integrated())
    z = torch.randn(20, 1, generator=seeded(), dtype=torch.float64)
    start, middle, end = (torch.full((20,), at, dtype=torch.float64) for at in (1.0, 0.4, 0.0))
    halves = model.jump(model.jump(z, middle, start), end, middle)
    torch.testing.assert_close(model.jump(z, end, start), halves, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_steps_of_the_average_cover_the_way_from_noise_to_data(num_steps: int) -> None:
    asked: list[float] = []
    model = with_sampling(tiny(PLANE), num_steps=num_steps)
    model.network.register_forward_hook(lambda module, given, result: asked.extend([given[2][0], given[1][0]]))
    model.sample(5, generator=seeded())
    ends = [1.0 - k / num_steps for k in range(num_steps + 1)]
    assert asked == pytest.approx([ends[0], *(end for end in ends[1:-1] for _ in range(2)), 0.0])


def test_the_likelihood_of_the_exact_velocity_is_the_density_of_the_data() -> None:
    model = exact(likelihood_solver="dopri5", likelihood_tolerance=1e-8)
    x = MEAN + STD * torch.randn(20, 2, generator=seeded(1), dtype=torch.float64)
    expected = torch.distributions.Normal(MEAN, STD).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_density(x), expected, rtol=0.0, atol=1e-4)
    assert isinstance(model, LikelihoodEstimate)


@pytest.mark.parametrize("spec", [DataSpec(shape=(1, 8, 8)), PLANE])
def test_derivatives_through_the_network_are_those_of_differences(spec: DataSpec) -> None:
    model, (r, t), width = tiny(spec).double(), times(6), 1e-6
    z, v = (torch.randn(6, *spec.shape, generator=seeded(seed), dtype=torch.float64) for seed in (1, 2))
    ahead = model.average(z + width * v, r, t + width)
    behind = model.average(z - width * v, r, t - width)
    slope = (ahead - behind) / (2 * width)
    expected = v - (t - r).view(6, *[1] * (z.ndim - 1)) * slope
    found = model.target(z, v, r, t)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_network_is_told_both_times() -> None:
    model, (r, t) = tiny(PLANE).double(), times(6)
    z = torch.randn(6, 2, dtype=torch.float64)
    u = model.average(z, r, t)
    assert ((model.average(z, r - 0.05, t) - u).abs().amax(1) > 1e-6).all()
    assert ((model.average(z, r, t + 0.05) - u).abs().amax(1) > 1e-6).all()


def test_without_intervals_or_weights_the_loss_is_that_of_flow_matching() -> None:
    model, x = tiny(dequantised=False, interval_share=0.0, power=0.0), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "network").total.item()
    torch.manual_seed(3)
    data, eps = to_signed(x, 256), torch.randn(6, 1, 4, 4)
    _, t = model.times(6, data.device)
    z = torch.lerp(data, eps, t.view(6, 1, 1, 1))
    error = (model.average(z, t, t) - (eps - data)).square().flatten(1).sum(1)
    assert loss == pytest.approx(error.mean().item(), rel=1e-5)


def test_the_loss_is_the_weighted_error_of_the_identity() -> None:
    model, x = tiny(PLANE, interval_share=0.5, power=0.75), torch.randn(8, 2, generator=seeded())
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "network")
    torch.manual_seed(3)
    eps = torch.randn(8, 2)
    r, t = model.times(8, x.device)
    z, v = torch.lerp(x, eps, t[:, None]), eps - x
    with torch.no_grad():
        error = (model.average(z, r, t) - model.target(z, v, r, t)).square().sum(1)
    assert loss.total.item() == pytest.approx((error / (error + 1e-3) ** 0.75).mean().item(), rel=1e-5)
    assert loss.parts["squared_error"].item() == pytest.approx(error.mean().item() / 2, rel=1e-5)
    loss.total.backward()
    by_loss = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    delta = model.average(z, r, t) - model.target(z, v, r, t)
    ((delta.square().sum(1) / (error + 1e-3) ** 0.75).mean()).backward()  # the weight has no gradient
    for name, p in model.named_parameters():
        torch.testing.assert_close(by_loss[name], p.grad, rtol=1e-4, atol=1e-7)


def test_times_are_a_logit_normal_pair_and_equal_in_their_share() -> None:
    torch.manual_seed(0)
    model = tiny(interval_share=0.25, logit_mean=-0.4, logit_std=1.0)
    r, t = model.times(40_000, torch.device("cpu"))
    apart = r < t
    assert (r <= t).all()
    assert int(apart.sum()) == 10_000
    both = torch.cat([r[apart], t[apart]]).double().logit()
    assert both.mean().item() == pytest.approx(-0.4, abs=4 / math.sqrt(20_000))
    assert both.std().item() == pytest.approx(1.0, rel=4 / math.sqrt(40_000))


@pytest.mark.parametrize("solver", ["mean", "euler", "dopri5"])
@pytest.mark.parametrize("spec", [DataSpec(shape=(1, 4, 4), levels=17), PLANE])
def test_samples_and_likelihoods_use_the_given_generator_alone(spec: DataSpec, solver: str) -> None:
    model = with_sampling(tiny(spec), solver=solver, num_steps=2, tolerance=1e-2, likelihood_steps=4)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    likelihood = model.log_likelihood(first, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (7, *spec.shape)
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))
    assert torch.equal(likelihood, model.log_likelihood(first, generator=seeded()))


def test_settings_can_be_read_off_the_file_and_are_checked() -> None:
    path = MODELS.path("mean_flow")
    assert path is not None
    settings = {"interval_share": 0.25, "power": 1.0, "solver": "mean", "num_steps": 2}
    check_settings(declaration(path, "mean_flow"), settings, owner="mean_flow")
    model = build_model(MeanFlow, PLANE, preset="vector", settings=settings, owner="mean_flow")
    assert isinstance(model, MeanFlow)
    assert (model.config.power, model.sampling.num_steps) == (1.0, 2)
    for wrong in ({"interval_share": 1.5}, {"power": -1.0}, {"solver": "ddim"}, {"num_steps": 0}):
        with pytest.raises(SettingError):
            build_model(MeanFlow, PLANE, preset="vector", settings=wrong, owner="mean_flow")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small", "vector"):
        model = MeanFlow(DataSpec(shape=shape), MeanFlow.presets[preset])
        assert model.loss(Batch(integers(4, shape=shape)), "network").total.isfinite()


@pytest.mark.slow
def test_one_trained_step_draws_eight_gaussians_better_than_one_step_of_its_velocity() -> None:
    data = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    model = build_model(MeanFlow, data.spec, preset="vector", settings={}, owner="mean_flow")
    train(model, data.load("train", range(20_000)), samples_seen=256 * 300, seed=0)
    assert isinstance(model, MeanFlow)
    missed = {}
    for solver in ("mean", "euler"):
        drawn = with_sampling(model, solver=solver).sample(1000, generator=seeded())
        missed[solver] = (drawn.square().sum(1).sqrt() - math.sqrt(2.0)).square().mean().item()  # of the circle
    assert missed["mean"] < 0.3 * missed["euler"]
