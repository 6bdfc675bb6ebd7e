"""Rectified flow of Gaussian data, where velocity, pairs and straightness are known, and reflow on what is learned."""

import dataclasses
import math

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.flow_matching.rectified_flow import RectifiedFlow
from genbench.prob.pixels import to_signed

TINY = RectifiedFlow.Config(width=8, patch=1, vector_width=16, vector_blocks=1, pair_steps=4)
PLANE = DataSpec(kind="vector", shape=(2,), levels=None)
MEAN, STD = 1.5, 0.4  # of the Gaussian data


def tiny(spec: DataSpec | None = None, **changes: object) -> RectifiedFlow:
    """A small model whose first flow has a say."""
    torch.manual_seed(0)
    model = RectifiedFlow(spec or DataSpec(shape=(1, 4, 4)), dataclasses.replace(TINY, **changes))
    torch.nn.init.normal_(model.first.out.weight, std=0.1)
    model.sampling = dataclasses.replace(model.sampling, num_steps=4, likelihood_steps=4)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


def saved_weights(model: RectifiedFlow) -> bytes:
    return safetensors.torch.save({name: value.clone().contiguous() for name, value in model.state_dict().items()})


class Exact(nn.Module):
    """E[x1 - x0 | x_t] of independent noise and data N(MEAN, STD^2)."""

    out = nn.Linear(1, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        t = (time / TINY.time_scale).view(-1, *[1] * (x.ndim - 1))
        spread = (1.0 - t).square() + (t * STD).square()
        return MEAN + (t * STD**2 - (1.0 - t)) / spread * (x - t * MEAN)


def exact(**changes: object) -> RectifiedFlow:
    model = RectifiedFlow(PLANE, dataclasses.replace(TINY, **changes))
    model.first = Exact()  # type: ignore[assignment]
    solvers = {"solver": "dopri5", "likelihood_solver": "dopri5", "tolerance": 1e-8, "likelihood_tolerance": 1e-8}
    model.sampling = dataclasses.replace(model.sampling, **solvers)
    return model


def test_the_paper_preset_has_the_authors_network_and_training() -> None:
    config, sampling = RectifiedFlow.presets["paper"], RectifiedFlow.sampling_presets["paper"]
    network = (config.width, config.multipliers, config.num_blocks, config.attention_resolution, config.dropout)
    assert network == (128, (1, 2, 2, 2), 4, 16, 0.15)
    assert (config.time_scale, sampling.solver, sampling.tolerance) == (999.0, "dopri5", 1e-5)
    first, second = RectifiedFlow(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8)).phases()
    assert (first.players[0].name, second.players[0].name) == ("flow", "reflow")
    assert first.share + second.share == pytest.approx(1.0)
    for phase in (first, second):
        (player,) = phase.players
        assert (phase.batch_size, player.lr, player.ema_decay, player.warmup_steps) == (128, 2e-4, 0.999999, 5000)


def test_the_mean_of_the_target_at_a_point_is_the_exact_velocity() -> None:
    """The closed form that the other tests rest on: errors have no part along any function of x_t."""
    count = 200_000
    x0, x1 = torch.randn(count, generator=seeded(1)), MEAN + STD * torch.randn(count, generator=seeded(2))
    for time in (0.2, 0.5, 0.8):
        x_t = torch.lerp(x0, x1, time)
        v = Exact()(x_t[:, None], torch.full((count,), time * TINY.time_scale))[:, 0]
        for along in (torch.ones(count), x_t, x_t.square(), x_t.sin()):
            product = (x1 - x0 - v) * along
            assert product.mean().abs() < 4 * product.std() / math.sqrt(count)


def test_the_exact_flow_reaches_the_data_and_their_density() -> None:
    model = exact()
    x0 = torch.randn(50, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(model.flow(x0), MEAN + STD * x0, rtol=0.0, atol=1e-5)
    x = MEAN + STD * torch.randn(20, 2, generator=seeded(1), dtype=torch.float64)
    expected = torch.distributions.Normal(MEAN, STD).log_prob(x).sum(1)
    torch.testing.assert_close(model.log_density(x), expected, rtol=0.0, atol=1e-4)


def test_pairs_are_a_function_of_the_noise_and_cost_less_than_independent_ones() -> None:
    model = exact(pair_solver="rk4", pair_steps=50)
    x0, x1 = torch.randn(2000, 2, generator=seeded()), MEAN + STD * torch.randn(2000, 2, generator=seeded(1))
    same, ends = model.pairs(x0, x1)
    assert torch.equal(same, x0)
    torch.testing.assert_close(ends, MEAN + STD * x0, rtol=0.0, atol=1e-4)  # whatever x1 is
    assert torch.equal(model.pairs(x0, torch.zeros_like(x1))[1], ends)
    assert (ends - x0).square().mean() < (x1 - x0).square().mean()


def test_straightness_is_the_variation_of_the_velocity_along_the_paths() -> None:
    """Of the exact flow, Z_t = t MEAN + s_t Z_0 with s_t^2 = (1 - t)^2 + t^2 STD^2, so that S = E Z_0^2 times the
    integral of (STD - 1 - s_t')^2; of the pairs it makes, the flow of the line to MEAN + STD Z_0, S = 0."""
    t = torch.linspace(0.0, 1.0, 100_001, dtype=torch.float64)
    spread = ((1.0 - t).square() + (t * STD).square()).sqrt()
    expected = (STD - 1.0 - (t * STD**2 - (1.0 - t)) / spread).square().mean().item()
    model = exact()
    found = model.straightness(20_000, generator=seeded(), num_steps=200).item()
    assert found == pytest.approx(expected, rel=0.03)

    class Line(nn.Module):
        def forward(self, x: Tensor, time: Tensor) -> Tensor:
            t = (time / TINY.time_scale)[:, None]
            return MEAN + (STD - 1.0) * (x - t * MEAN) / (1.0 + t * (STD - 1.0))

    model.second, model.begun = Line(), True  # type: ignore[assignment]
    assert model.straightness(1000, generator=seeded()).item() < 1e-10


def test_the_first_flow_learns_from_independent_pairs() -> None:
    model, x = tiny(dequantised=False), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "flow").total.item()
    torch.manual_seed(3)
    x0, x1, t = torch.randn(6, 1, 4, 4), to_signed(x, 256), torch.rand(6)
    v = model.first(torch.lerp(x0, x1, t.view(6, 1, 1, 1)), 100.0 * t)
    assert loss == pytest.approx((v - (x1 - x0)).square().mean().item(), rel=1e-5)


def test_the_second_flow_learns_from_the_pairs_of_the_first() -> None:
    model, x = tiny(dequantised=False), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "reflow").total.item()
    torch.manual_seed(3)
    x0, x1 = model.pairs(torch.randn(6, 1, 4, 4), to_signed(x, 256))
    assert not torch.allclose(x1, to_signed(x, 256))
    torch.randint(1, ())  # which of the batches of pairs
    t = torch.rand(6)
    v = model.second(torch.lerp(x0, x1, t.view(6, 1, 1, 1)), 100.0 * t)
    assert loss == pytest.approx((v - (x1 - x0)).square().mean().item(), rel=1e-5)


def test_a_first_flow_that_has_learned_nothing_couples_nothing() -> None:
    model = RectifiedFlow(PLANE, TINY)
    x0, x1 = torch.randn(3, 2), torch.randn(3, 2)
    assert model.pairs(x0, x1)[1] is x1
    model.loss(Batch(x1), "reflow")
    assert not model.begun


def test_the_second_flow_starts_as_the_first_and_is_then_the_one_in_use() -> None:
    model, x = tiny(), Batch(integers(6))
    assert model.network is model.first
    with torch.no_grad():
        model.loss(x, "reflow")
    assert not model.begun  # looking is not training
    loss = model.loss(x, "reflow")
    assert model.begun
    assert model.network is model.second
    for name, value in model.first.state_dict().items():
        assert torch.equal(value, model.second.state_dict()[name])
    loss.total.backward()
    assert all(p.grad is None for p in model.first.parameters())
    with torch.no_grad():
        model.second.out.weight.mul_(2.0)
    model.loss(x, "reflow")
    assert not torch.equal(model.first.out.weight, model.second.out.weight)  # copied once only


def test_a_batch_of_pairs_is_made_now_and_then_and_the_last_ones_are_kept() -> None:
    model, calls = tiny(PLANE, pair_every=3, pair_batches=2, pair_solver="euler", pair_steps=5), []
    x = Batch(torch.randn(4, 2))
    model.loss(x, "reflow")
    model.first.register_forward_hook(lambda module, given, result: calls.append(1))
    for _ in range(11):
        model.loss(x, "reflow")
    assert len(calls) == 3 * 5  # after steps 3, 6 and 9
    assert len(model._pairs) == 2


def test_pairs_are_made_without_dropout_and_the_mode_is_given_back() -> None:
    model = tiny(dropout=0.5).train()
    x0 = torch.randn(4, 1, 4, 4)
    assert torch.equal(model.pairs(x0, x0)[1], model.pairs(x0, x0)[1])
    assert model.first.training


def test_saved_weights_remember_which_flow_is_in_use() -> None:
    model = tiny().eval()
    kept = saved_weights(model)
    model.train().loss(Batch(integers(4)), "reflow")
    model.eval()
    with torch.no_grad():
        model.second.out.weight.mul_(3.0)
    for saved, begun in ((kept, False), (saved_weights(model), True)):
        other = tiny().eval()
        other.begun = not begun
        other.load_state_dict(safetensors.torch.load(saved))
        assert other.begun is begun
        model.begun = begun
        assert torch.equal(other.sample(4, generator=seeded()), model.sample(4, generator=seeded()))


def test_without_reflow_there_is_one_flow() -> None:
    model = tiny(reflow_share=0.0)
    (phase,) = model.phases()
    assert (phase.name, phase.share, model.second) == ("flow", 1.0, None)
    assert model.network is model.first


@pytest.mark.parametrize("spec", [DataSpec(shape=(1, 4, 4), levels=17), PLANE])
def test_samples_and_likelihoods_use_the_given_generator_alone(spec: DataSpec) -> None:
    model = tiny(spec).eval()
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    likelihood = model.log_likelihood(first, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (7, *spec.shape)
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert torch.equal(likelihood, model.log_likelihood(first, generator=seeded()))


def test_settings_can_be_read_off_the_file_and_are_checked() -> None:
    path = MODELS.path("rectified_flow")
    assert path is not None
    settings = {"reflow_share": 0.2, "pair_solver": "rk4", "pair_every": 2, "solver": "euler", "num_steps": 1}
    check_settings(declaration(path, "rectified_flow"), settings, owner="rectified_flow")
    model = build_model(RectifiedFlow, PLANE, preset="vector", settings=settings, owner="rectified_flow")
    assert isinstance(model, RectifiedFlow)
    assert (model.config.pair_every, model.sampling.num_steps) == (2, 1)
    for wrong in ({"reflow_share": 1.0}, {"pair_solver": "dopri5"}, {"pair_every": 0}):
        with pytest.raises(SettingError):
            build_model(RectifiedFlow, PLANE, preset="vector", settings=wrong, owner="rectified_flow")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small", "vector"):
        model = RectifiedFlow(DataSpec(shape=shape), RectifiedFlow.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "flow").total.isfinite()


@pytest.mark.slow
def test_reflow_makes_paths_straighter_and_keeps_the_samples() -> None:
    data = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    model = build_model(RectifiedFlow, data.spec, preset="vector", settings={}, owner="rectified_flow")
    assert isinstance(model, RectifiedFlow)
    train(model, data.load("train", range(20_000)), samples_seen=256 * 600, seed=0)
    x0, found, ends = torch.randn(500, 2, generator=seeded()), {}, {}
    for flow in ("second", "first"):
        model.begun = flow == "second"
        found[flow] = model.straightness(500, generator=seeded(1)).item()
        with torch.no_grad():
            ends[flow] = model.flow(x0)
    assert found["second"] < 0.3 * found["first"]
    assert (ends["second"] - ends["first"]).square().sum(1).median() < 0.1
