"""Optimal couplings against transport between Gaussians, whose map and velocity are known."""

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
from genbench.harness.train import train
from genbench.models.flow_matching.ot_cfm import OTCFM
from genbench.prob.minibatch_transport import exact_pairing
from genbench.prob.pixels import to_signed

TINY = OTCFM.Config(width=8, patch=1, vector_width=16, vector_blocks=1)
LINE = DataSpec(kind="vector", shape=(1,), levels=None)
PLANE = DataSpec(kind="vector", shape=(2,), levels=None)
MEAN, STD = 1.5, 0.4  # of the Gaussian data; noise goes to MEAN + STD x0


def tiny(spec: DataSpec | None = None, **changes: object) -> OTCFM:
    """A small model whose last layer is moved a little, so that the network has a say."""
    torch.manual_seed(0)
    model = OTCFM(spec or DataSpec(shape=(1, 4, 4)), dataclasses.replace(TINY, **changes)).eval()
    torch.nn.init.normal_(model.net.out.weight, std=0.1)
    model.sampling = dataclasses.replace(model.sampling, num_steps=4, likelihood_steps=4)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


def batches(count: int, *, dims: int = 1) -> tuple[Tensor, Tensor]:
    """Noise and data N(MEAN, STD^2), independent."""
    x0, x1 = (torch.randn(count, dims, generator=seeded(seed), dtype=torch.float64) for seed in (1, 2))
    return x0, MEAN + STD * x1


def monge(x: Tensor, t: Tensor) -> Tensor:
    """Velocity of optimal transport from N(0, 1) to N(MEAN, STD^2): paths x0 + t (MEAN + (STD - 1) x0)."""
    x0 = (x - t * MEAN) / (1.0 + t * (STD - 1.0))
    return MEAN + (STD - 1.0) * x0


class Monge(nn.Module):
    """That velocity in place of a network."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return monge(x, (time / TINY.time_scale).view(-1, *[1] * (x.ndim - 1)))


def test_the_paper_preset_has_the_authors_network_and_training() -> None:
    config, sampling = OTCFM.presets["paper"], OTCFM.sampling_presets["paper"]
    network = (config.width, config.multipliers, config.num_blocks, config.attention_resolution, config.dropout)
    assert network == (128, (1, 2, 2, 2), 2, 16, 0.1)
    assert (config.coupling, config.sigma, sampling.solver) == ("exact", 0.0, "dopri5")
    (phase,) = OTCFM(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.ema_decay, player.warmup_steps) == (128, 2e-4, 0.9999, 5000)
    assert (player.clip_norm, player.final_lr_share) == (1.0, 1.0)


def test_exact_coupling_permutes_the_noise_and_shortens_the_way() -> None:
    (x0, x1), model = batches(200, dims=2), tiny(PLANE)
    paired = model.coupled(x0, x1)
    assert torch.equal(paired.sort(dim=0).values, x0.sort(dim=0).values)
    assert torch.equal(paired, x0[exact_pairing(x0, x1)])
    assert (paired - x1).square().sum() < 0.8 * (x0 - x1).square().sum()


def test_entropic_coupling_lies_between_the_exact_and_the_independent() -> None:
    x0, x1 = batches(200, dims=2)
    costs = []
    for changes in (
        {},
        {"coupling": "entropic"},
        {"coupling": "entropic", "epsilon": 2.0},
        {"coupling": "independent"},
    ):
        torch.manual_seed(0)
        paired = tiny(PLANE, **changes).coupled(x0, x1)
        assert (paired[:, None] == x0).all(2).any(1).all()  # rows of x0, some of them twice
        costs.append((paired - x1).square().sum(1).mean().item())
    assert costs == sorted(costs)
    assert torch.equal(tiny(PLANE, coupling="independent").coupled(x0, x1), x0)


def test_on_a_line_the_target_of_optimal_pairs_is_the_velocity_of_optimal_transport() -> None:
    """It is then known from x_t, where that of independent pairs varies."""
    x0, x1 = batches(400)
    t = torch.rand(400, 1, generator=seeded(3), dtype=torch.float64)
    errors = {}
    for coupling in ("exact", "independent"):
        paired = tiny(LINE, coupling=coupling).coupled(x0, x1)
        u, v = x1 - paired, monge(torch.lerp(paired, x1, t), t)
        errors[coupling] = (u - v).square().mean().sqrt().item()
    assert errors["exact"] < 0.2 * errors["independent"]


def test_the_velocity_of_optimal_transport_carries_noise_to_the_data_and_their_density() -> None:
    model = OTCFM(PLANE, TINY)
    model.net = Monge()  # type: ignore[assignment]
    solvers = {"solver": "dopri5", "likelihood_solver": "dopri5", "tolerance": 1e-8, "likelihood_tolerance": 1e-8}
    model.sampling = dataclasses.replace(model.sampling, **solvers)
    x0 = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(model.flow(x0), MEAN + STD * x0, rtol=0.0, atol=1e-5)
    x = MEAN + STD * torch.randn(20, 2, generator=seeded(1), dtype=torch.float64)
    expected = torch.distributions.Normal(MEAN, STD).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_density(x), expected, rtol=0.0, atol=1e-4)


def test_one_step_along_straight_paths_is_enough() -> None:
    model = OTCFM(PLANE, TINY)
    model.net = Monge()  # type: ignore[assignment]
    model.sampling = dataclasses.replace(model.sampling, solver="euler", num_steps=1)
    x0 = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(model.flow(x0), MEAN + STD * x0)


@pytest.mark.parametrize("changes", [{}, {"sigma": 0.3}, {"coupling": "independent"}])
def test_the_loss_is_the_mean_squared_error_along_the_lines(changes: dict[str, object]) -> None:
    model, x = tiny(dequantised=False, **changes), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "network").total.item()
    torch.manual_seed(3)
    x0, x1 = torch.randn(6, 1, 4, 4), to_signed(x, 256)
    if model.config.coupling == "exact":
        x0 = x0[exact_pairing(x0, x1)]
    t = torch.rand(6)
    x_t = (1 - t).view(6, 1, 1, 1) * x0 + t.view(6, 1, 1, 1) * x1 + model.config.sigma * torch.randn(6, 1, 4, 4)
    v = model.net(x_t, 100.0 * t)
    assert loss == pytest.approx((v - (x1 - x0)).square().mean().item(), rel=1e-5)


def test_points_have_the_mean_and_variance_of_the_path() -> None:
    """Of independent pairs: N(t MEAN, (1 - t)^2 + t^2 STD^2 + sigma^2), seen where the network is asked."""
    asked: list[tuple[Tensor, Tensor]] = []
    model = tiny(PLANE, sigma=0.5, coupling="independent")
    model.net.register_forward_hook(lambda module, given, result: asked.append(given))
    torch.manual_seed(0)
    model.loss(Batch(MEAN + STD * torch.randn(100_000, 2)), "network")
    ((x_t, time),) = asked
    t = (time / TINY.time_scale)[:, None]
    white = (x_t - t * MEAN) / ((1 - t).square() + (t * STD).square() + 0.25).sqrt()
    for part in white.view(10, -1, 2)[time.view(10, -1).mean(1).argsort()]:
        assert part.mean().abs() < 4 / math.sqrt(part.numel())
        assert part.std().item() == pytest.approx(1.0, abs=4 / math.sqrt(2 * part.numel()))


@pytest.mark.parametrize("spec", [DataSpec(shape=(1, 4, 4), levels=17), PLANE])
def test_samples_and_likelihoods_use_the_given_generator_alone(spec: DataSpec) -> None:
    model = tiny(spec)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    likelihood = model.log_likelihood(first, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (7, *spec.shape)
    assert first.dtype == (torch.float32 if spec.levels is None else torch.uint8)
    assert likelihood.shape == (7,)
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert torch.equal(likelihood, model.log_likelihood(first, generator=seeded()))


def test_settings_can_be_read_off_the_file_and_are_checked() -> None:
    path = MODELS.path("ot_cfm")
    assert path is not None
    settings = {"coupling": "entropic", "epsilon": 0.5, "sigma": 0.1, "solver": "heun2"}
    check_settings(declaration(path, "ot_cfm"), settings, owner="ot_cfm")
    model = build_model(OTCFM, PLANE, preset="vector", settings=settings, owner="ot_cfm")
    assert isinstance(model, OTCFM)
    assert (model.config.coupling, model.sampling.solver) == ("entropic", "heun2")
    for wrong in ({"coupling": "sinkhorn"}, {"epsilon": 0.0}, {"sigma": -0.1}):
        with pytest.raises(SettingError):
            build_model(OTCFM, PLANE, preset="vector", settings=wrong, owner="ot_cfm")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small", "vector"):
        model = OTCFM(DataSpec(shape=shape), OTCFM.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "network").total.isfinite()


@pytest.mark.slow
def test_optimal_pairs_make_a_trained_flow_straighter_than_independent_ones() -> None:
    """How far one step of Euler's method is from the end of the path."""
    data, missed = build_dataset(parse_ref("toy2d[law=gaussians8]")), {}
    for coupling in ("exact", "independent"):
        model = build_model(OTCFM, data.spec, preset="vector", settings={"coupling": coupling}, owner="ot_cfm")
        train(model, data.load("train", range(20_000)), samples_seen=256 * 400, seed=0)
        assert isinstance(model, OTCFM)
        x0 = torch.randn(500, 2, generator=seeded())
        with torch.no_grad():
            end = model.flow(x0)
            model.sampling = dataclasses.replace(model.sampling, solver="euler", num_steps=1)
            missed[coupling] = (model.flow(x0) - end).square().mean().item()
    assert missed["exact"] < 0.3 * missed["independent"]
