"""What every model keeps that may be told a class or a caption: who is followed, who is asked, what it costs."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, GenerativeModel, build_model
from genbench.models.diffusion.edm import EDM
from genbench.models.diffusion.score_sde import NOISE_SCALE, ScoreSDE
from genbench.models.flow_matching.flow_matching import FlowMatching
from genbench.prob.preconditioning import Preconditioning

WORDS = ("", "low", "high")
IMAGES = DataSpec(shape=(1, 4, 4), num_classes=3, vocabulary=WORDS)
PLANE = DataSpec(kind="vector", shape=(2,), levels=None, num_classes=3, vocabulary=WORDS)
SHORT = {
    "ddpm": {"num_steps": 4, "likelihood_steps": 2},
    "dit": {"num_steps": 4, "likelihood_steps": 2},
    "edm": {"num_steps": 4, "likelihood_steps": 2},
    "flow_matching": {"num_steps": 4, "likelihood_steps": 2},
    "score_sde": {"num_steps": 4, "likelihood_steps": 2},
}
CONTINUOUS = ("edm", "flow_matching", "score_sde")
KINDS = pytest.mark.parametrize("kind", ["class", "text"])
ROWS = pytest.mark.parametrize(
    ("name", "spec"), [*((name, IMAGES) for name in SHORT), *((name, PLANE) for name in CONTINUOUS)]
)
STEPS = [
    ("edm", {"sampler": "heun"}),
    ("edm", {"sampler": "euler"}),
    ("edm", {"sampler": "churn"}),
    ("score_sde", {"sampler": "dpm_solver_pp"}),
    ("score_sde", {"sampler": "euler_maruyama"}),
    ("score_sde", {"sampler": "predictor_corrector"}),
    ("score_sde", {"sampler": "ode"}),
    ("score_sde", {"sampler": "ode", "output": "noise"}),
    ("flow_matching", {"solver": "midpoint"}),
    ("flow_matching", {"solver": "rk4", "path": "diffusion"}),
]


def made(name: str, spec: DataSpec = IMAGES, kind: str = "class", **settings: object) -> Any:
    """A model away from its start, where networks answer 0."""
    torch.manual_seed(0)
    given = {**SHORT[name], "condition": kind, **settings}
    model = build_model(MODELS.get(name), spec, preset="smoke", settings=given, owner=name)  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def guided(model: Any, scale: float) -> Any:
    model.sampling = dataclasses.replace(model.sampling, guidance=scale)
    return model


def batch(spec: DataSpec, num: int = 6) -> Batch:
    labels = torch.arange(num) % 3
    shape = (num, *spec.shape)
    x = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded(5))
    x = x if spec.levels else torch.randn(shape, generator=seeded(5))
    return Batch(x, y=labels, text=torch.stack([labels, labels * 0], dim=1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def player_of(model: GenerativeModel) -> str:
    return model.phases()[0].players[0].name


@pytest.mark.parametrize("name", SHORT)
def test_guidance_of_a_model_that_is_told_nothing_is_refused(name: str) -> None:
    with pytest.raises(SettingError, match=f"`{name}` is told nothing with `condition=none`"):
        made(name, kind="none", guidance=2.0)


@ROWS
@KINDS
def test_a_condition_changes_samples_and_so_does_its_guidance(name: str, spec: DataSpec, kind: str) -> None:
    model = made(name, spec, kind).eval()
    assert model.condition_kind == kind
    told = model.conditioner.of_batch(batch(spec))
    one, other = told[[1]].repeat_interleave(4, 0), told[[2]].repeat_interleave(4, 0)
    drawn = {}
    for scale in (0.0, 1.0, 3.0):
        guided(model, scale)
        drawn[scale] = [model.sample_given(asked, generator=seeded()) for asked in (one, other)]
    assert torch.equal(*drawn[0.0])
    assert not torch.equal(*drawn[1.0])
    assert not torch.equal(drawn[3.0][0], drawn[1.0][0])
    assert torch.equal(model.sample_given(one, generator=seeded()), drawn[3.0][0])


@ROWS
@KINDS
def test_everything_learns_beside_the_network(name: str, spec: DataSpec, kind: str) -> None:
    model = made(name, spec, kind)
    (phase,) = model.phases()
    learned = {id(p) for module in phase.players[0].modules for p in module.parameters()}
    assert learned == {id(p) for p in model.parameters()}
    model.loss(batch(spec, 60), player_of(model)).total.backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", SHORT)
@KINDS
def test_samples_that_nobody_asks_for_take_conditions_of_training(name: str, kind: str) -> None:
    model = made(name, kind=kind)
    with pytest.raises(RuntimeError, match="never trained"):
        model.sample(2, generator=seeded())
    model.prepare(batch(IMAGES, 3))
    assert model.sample(2, generator=seeded()).shape == (2, 1, 4, 4)
    model.loss(batch(IMAGES, 2), player_of(model))
    model.eval()
    generator = seeded(1)
    conditions = model.conditioner.drawn(50, generator=generator)
    trained = model.conditioner.of_batch(batch(IMAGES, 2))[:, : conditions.shape[1]] if kind == "text" else None
    kept = torch.arange(2) if trained is None else trained
    assert {str(row) for row in conditions.tolist()} == {str(row) for row in kept.tolist()}
    expected = model.sample_given(conditions, generator=generator)
    assert torch.equal(model.sample(50, generator=seeded(1)), expected)


@ROWS
def test_the_likelihood_is_that_without_a_condition(name: str, spec: DataSpec) -> None:
    model, x = made(name, spec).eval(), batch(spec).x
    found = guided(model, 4.0).log_likelihood(x, generator=seeded())
    for parameter in model.conditioner.embedding.parameters():
        parameter.data.add_(1.0)
    assert torch.equal(guided(model, 1.0).log_likelihood(x, generator=seeded()), found)
    model.conditioner.nothing.data.add_(1.0)
    assert not torch.equal(model.log_likelihood(x, generator=seeded()), found)


@pytest.mark.parametrize(("name", "settings"), [*STEPS, ("ddpm", {}), ("dit", {})])
def test_a_guided_evaluation_counts_as_two(name: str, settings: dict[str, object]) -> None:
    model = made(name, **settings).eval()
    rows: list[int] = []
    model.network.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    counted = {}
    for scale in (0.0, 1.0, 2.5):
        rows.clear()
        guided(model, scale).sample_given(torch.tensor([0, 1, 2]), generator=seeded())
        counted[scale] = list(rows)
    assert set(counted[1.0]) == {3}
    assert counted[0.0] == counted[1.0]
    assert counted[2.5] == [6] * len(counted[1.0])


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("spec", [IMAGES, PLANE])
def test_guidance_extrapolates_from_without_to_with_the_condition(name: str, spec: DataSpec) -> None:
    model = made(name, spec).double().eval()
    x, t = torch.randn(5, *spec.shape, dtype=torch.float64), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    told = model.told(torch.arange(5) % 3)

    def estimate(told: Tensor | None, scale: float = 1.0) -> Tensor:
        if isinstance(model, FlowMatching):
            return model.velocity_given(x, t, told, guidance=scale)
        assert isinstance(model, EDM | ScoreSDE)
        return model.denoise(x, t, told, guidance=scale)

    without, given = estimate(None), estimate(told)
    assert (given - without).abs().max() > 1e-4
    assert torch.equal(estimate(told, 0.0), without)
    for scale in (-1.0, 0.5, 3.0):
        torch.testing.assert_close(estimate(told, scale), without + scale * (given - without))


@pytest.mark.parametrize("name", SHORT)
def test_a_model_of_nothing_cannot_be_told_anything_and_data_without_classes_are_refused(name: str) -> None:
    model = made(name, kind="none")
    assert model.condition_kind == "none"
    with pytest.raises(SettingError, match="this model is unconditional"):
        model.sample_given(torch.zeros(2, dtype=torch.int64), generator=seeded())
    with pytest.raises(SettingError, match=f"`{name}` cannot be conditioned on `class`"):
        made(name, DataSpec(shape=(1, 4, 4)))


# Exact networks of two classes, in double precision

MEANS, STDS = torch.tensor([[-1.0, 0.4], [0.8, -0.6]]).double(), torch.tensor([[0.3], [0.5]]).double()


def best(x: Tensor, alpha: Tensor, sigma: Tensor, told: Tensor) -> Tensor:
    """E[x_0 | alpha x_0 + sigma z = x] of the class whose entry of `told` (B, dim) is 1, or of both: (B, 2)."""
    alpha, sigma = alpha.view(-1, 1, 1), sigma.view(-1, 1, 1)
    variance, gap = (alpha * STDS).square() + sigma.square(), x[:, None] - alpha * MEANS
    log_share = -0.5 * (gap.square() / variance + variance.log()).sum(2)
    named = told[:, :2] > 0.5
    log_share = log_share.masked_fill(~named & named.any(1, keepdim=True), -torch.inf)
    each = MEANS + alpha * STDS.square() / variance * gap
    return (log_share.softmax(1)[:, :, None] * each).sum(1)


class ExactF(nn.Module):
    """F of `edm`."""

    def __init__(self, model: EDM) -> None:
        super().__init__()
        self.sigma_data, self.scale = model.config.sigma_data, model.config.noise_scale

    def forward(self, v: Tensor, time: Tensor, told: Tensor) -> Tensor:
        sigma = (4.0 * time.double() / self.scale).exp()
        c = Preconditioning.at(sigma, self.sigma_data)
        x = v.double() / c.into[:, None]
        y = best(x, torch.ones_like(sigma), sigma, told)
        return ((y - c.skip[:, None] * x) / c.out[:, None]).to(v.dtype)


class ExactNoise(nn.Module):
    """eps_hat of `score_sde`."""

    def __init__(self, model: ScoreSDE) -> None:
        super().__init__()
        self.S = model.config.data_std

    def forward(self, v: Tensor, time: Tensor, told: Tensor) -> Tensor:
        r = (time.double() / NOISE_SCALE).exp()
        u = v.double() * torch.hypot(r, torch.full_like(r, self.S))[:, None]  # x / alpha
        return ((u - best(u, torch.ones_like(r), r, told)) / r[:, None]).to(v.dtype)


class ExactVelocity(nn.Module):
    """E[x1 - x0 | x_t] of `flow_matching` on the straight path."""

    def __init__(self, model: FlowMatching) -> None:
        super().__init__()
        self.scale = model.config.time_scale

    def forward(self, x: Tensor, time: Tensor, told: Tensor) -> Tensor:
        t = (time.double() / self.scale).clamp(max=1.0 - 1e-6)
        x1 = best(x.double(), t, 1.0 - t, told)
        return ((x1 - x.double()) / (1.0 - t[:, None])).to(x.dtype)


EXACT = {"edm": ExactF, "score_sde": ExactNoise, "flow_matching": ExactVelocity}


def exact(name: str, **settings: object) -> Any:
    """A model of two classes whose network knows both laws, and the law of all without a condition."""
    spec = dataclasses.replace(PLANE, num_classes=2)
    model = made(name, spec, **settings)
    model.net = EXACT[name](model)
    model.conditioner.nothing.data.zero_()
    weight = model.conditioner.embedding.weight
    weight.data.copy_(torch.eye(*weight.shape))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("edm", {"num_steps": 40}),
        ("score_sde", {"output": "noise", "num_steps": 60}),
        ("score_sde", {"output": "noise", "num_steps": 40, "sampler": "ode"}),
        ("flow_matching", {"num_steps": 60}),
    ],
)
def test_exact_networks_of_classes_draw_the_laws_of_the_classes(name: str, settings: dict[str, object]) -> None:
    model, count = exact(name, **settings), 4000
    drawn = {}
    for label in (0, 1):
        for scale in (0.0, 1.0):
            asked = torch.full((count,), label)
            drawn[scale, label] = guided(model, scale).sample_given(asked, generator=seeded()).double()
        x, std = drawn[1.0, label], STDS[label].item()
        torch.testing.assert_close(x.mean(0), MEANS[label], rtol=0.0, atol=4 * std / math.sqrt(count) + 0.01)
        torch.testing.assert_close(x.std(0), STDS[label].expand(2), rtol=4 / math.sqrt(2 * count) + 0.02, atol=0.0)
    assert torch.equal(drawn[0.0, 0], drawn[0.0, 1])
    together = STDS.square().mean() + MEANS.var(0, unbiased=False)
    error = 4 * together.max().sqrt().item() / math.sqrt(count) + 0.02
    torch.testing.assert_close(drawn[0.0, 0].mean(0), MEANS.mean(0), rtol=0.0, atol=error)
    torch.testing.assert_close(drawn[0.0, 0].var(0), together, rtol=0.1, atol=0.0)
