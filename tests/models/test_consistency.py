import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.declared import check_settings, declaration
from genbench.core.model import MODELS
from genbench.models.diffusion.consistency import Consistency
from genbench.prob.karras_levels import karras_sigmas
from genbench.prob.noise_schedule import NoiseLevels
from genbench.prob.pixels import to_signed
from genbench.prob.preconditioning import Preconditioning
from genbench.samplers.heun import heun

TINY = Consistency.Config(width=8, patch=1, sigma_data=0.5, noise_scale=10.0)
MEAN, STD = -0.1, 0.25  # of the Gaussian data of the exact functions
SIGMA_MIN = TINY.sigma_min


def tiny(*, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256, **changes: object) -> Consistency:
    """A small model whose zero layers are moved a little, so that the networks have a say."""
    torch.manual_seed(0)
    model = Consistency(DataSpec(shape=shape, levels=levels), dataclasses.replace(TINY, **changes)).eval()
    for net in (model.net, model.teacher):
        if net is not None:
            torch.nn.init.normal_(net.out.weight, std=0.1)
    return model


def with_sampling(model: Consistency, **changes: object) -> Consistency:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


def ends(x: Tensor, sigma: Tensor | float) -> Tensor:
    """Where the probability flow of N(MEAN, STD^2) takes `x` of level `sigma` at sigma_min."""
    return MEAN + (x - MEAN) * ((STD**2 + SIGMA_MIN**2) / (STD**2 + sigma**2)) ** 0.5


class ExactJump(nn.Module):
    """The network with which f is that flow, tilted: the distance from the mean is (1 + tilt a) times as large.

    `a` falls from 1 at much noise to 0 at sigma_min, as the boundary condition demands.
    """

    def __init__(self, tilt: float = 0.0) -> None:
        super().__init__()
        self.tilt = nn.Parameter(torch.tensor(tilt, dtype=torch.float64))

    def forward(self, v: Tensor, time: Tensor) -> Tensor:
        sigma = (4.0 * time.double() / TINY.noise_scale).exp().view(-1, *[1] * (v.ndim - 1))
        c = Preconditioning.at(sigma, TINY.sigma_data, shift=SIGMA_MIN)
        x = v / c.into
        end = ends(x, sigma)
        end = end + self.tilt * (sigma - SIGMA_MIN) / (sigma + 1.0) * (end - MEAN)
        return ((end - c.skip * x) / c.out.clamp(min=1e-9)).to(v.dtype)


class ExactDenoiser(nn.Module):
    """The network with which D is the best denoiser of N(MEAN, STD^2)."""

    def forward(self, v: Tensor, time: Tensor) -> Tensor:
        sigma = (4.0 * time.double() / TINY.noise_scale).exp().view(-1, *[1] * (v.ndim - 1))
        c = Preconditioning.at(sigma, TINY.sigma_data)
        x = v / c.into
        best = MEAN + STD**2 / (STD**2 + sigma**2) * (x - MEAN)
        return ((best - c.skip * x) / c.out).to(v.dtype)


def exact(*, tilt: float = 0.0, **changes: object) -> Consistency:
    model = tiny(**changes)
    model.net = ExactJump(tilt)  # type: ignore[assignment]
    if model.teacher is not None:
        model.teacher = ExactDenoiser()  # type: ignore[assignment]
        model._taught = True
    return model


def gaussian(num: int) -> Tensor:
    return MEAN + STD * torch.randn(num, 1, 4, 4, generator=seeded(9), dtype=torch.float64)


def test_the_paper_preset_has_the_settings_of_improved_training() -> None:
    config, sampling = Consistency.presets["paper"], Consistency.sampling_presets["paper"]
    assert (config.objective, config.first_intervals, config.last_intervals) == ("training", 10, 1280)
    assert (config.log_sigma_mean, config.log_sigma_std, config.huber) == (-1.1, 2.0, 0.00054)
    assert (config.sigma_data, config.noise_scale, config.dropout, config.curriculum_steps) == (0.5, 1.0, 0.3, 400_000)
    assert sampling.num_steps == 1
    (phase,) = Consistency(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8, num_blocks=1)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.ema_decay, player.clip_norm) == (1024, 1e-4, 0.99993, None)


def test_at_the_least_noise_the_function_is_the_identity() -> None:
    model, x = tiny(), torch.randn(4, 1, 4, 4)
    assert torch.equal(model.jump(x, torch.full((4,), SIGMA_MIN)), x)
    assert not torch.allclose(model.jump(x, torch.full((4,), 0.1)), x, atol=1e-3)


def test_the_number_of_intervals_doubles_at_even_stages_of_training() -> None:
    model = tiny(first_intervals=10, last_intervals=1280, curriculum_steps=800)
    found = []
    for step in (0, 99, 100, 199, 200, 650, 700, 799, 10_000):
        model.step.fill_(step)
        found.append(int(model.intervals()))
    assert found == [10, 10, 20, 20, 40, 640, 1280, 1280, 1280]


def test_only_steps_of_training_move_the_curriculum() -> None:
    model, batch = tiny(), Batch(integers(4))
    model.loss(batch, "student")
    with torch.no_grad():
        model.train().loss(batch, "student")
    assert int(model.step) == 0
    model.loss(batch, "student")
    assert int(model.step) == 1
    assert "step" in model.state_dict()


@pytest.mark.parametrize("intervals", [1, 10, 1280])
def test_levels_are_neighbours_of_karras_grid(intervals: int) -> None:
    model = tiny(first_intervals=intervals, last_intervals=intervals)
    less, sigma, weight = model._levels(2000, torch.device("cpu"))
    grid = karras_sigmas(intervals + 1, sigma_min=0.002, sigma_max=80.0, rho=7.0).flip(0)
    places = torch.searchsorted(grid, less.double() * (1 + 1e-4)) - 1
    torch.testing.assert_close(less.double(), grid[places], rtol=2e-5, atol=0.0)
    torch.testing.assert_close(sigma.double(), grid[places + 1], rtol=2e-5, atol=0.0)
    torch.testing.assert_close(weight, 1 / (sigma - less))


def test_levels_follow_the_log_normal_law_cut_into_intervals() -> None:
    """p(i) is as erf((log sigma_(i+1) - mean) / (sqrt(2) std)) - erf of sigma_i, over its sum."""
    model, num = tiny(first_intervals=12, last_intervals=12), 40_000
    less, _, _ = model._levels(num, torch.device("cpu"))
    grid = karras_sigmas(13, sigma_min=0.002, sigma_max=80.0, rho=7.0).flip(0)
    places = torch.searchsorted(grid, less.double() * (1 + 1e-4)) - 1
    mass = torch.erf((grid.log() + 1.1) / (math.sqrt(2) * 2.0)).diff()
    shares = torch.bincount(places, minlength=12) / num
    assert (shares - mass / mass.sum()).abs().max().item() < 4 * math.sqrt(0.25 / num)


def test_the_uniform_law_draws_and_weighs_all_intervals_alike() -> None:
    model, num = tiny(objective="distillation", teacher_intervals=5, level_law="uniform"), 20_000
    less, _, weight = model._levels(num, torch.device("cpu"))
    values, counts = less.unique(return_counts=True)
    assert len(values) == 5
    assert (counts / num - 0.2).abs().max().item() < 4 * math.sqrt(0.16 / num)
    assert bool((weight == 1.0).all())


def test_the_loss_is_the_weighted_distance_of_neighbours_by_hand() -> None:
    model, x = tiny(first_intervals=10, last_intervals=10), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "student").total.item()
    torch.manual_seed(3)
    less, sigma, _ = model._levels(6, torch.device("cpu"))
    y, eps = to_signed(x, 256), torch.randn(6, 1, 4, 4)
    near, far = (model.jump(y + s[:, None, None, None] * eps, s) for s in (less, sigma))
    c = 0.00054 * math.sqrt(16)
    distance = ((near - far).square().sum((1, 2, 3)) + c**2).sqrt() - c
    assert loss == pytest.approx((distance / (sigma - less)).mean().item(), rel=1e-4)


def test_no_gradient_runs_through_the_target() -> None:
    """Against the derivative with the target held still, by finite differences of the tilt."""
    model, y = exact(tilt=0.1, first_intervals=10, last_intervals=10), gaussian(64)
    torch.manual_seed(3)
    model._student_loss(y).total.backward()
    (parameter,) = model.net.parameters()

    def moved(by: float) -> float:
        torch.manual_seed(3)
        less, sigma, weight = model._levels(64, torch.device("cpu"))
        eps = torch.randn_like(y)
        target = model.jump(y + less.view(-1, 1, 1, 1) * eps, less)
        with torch.no_grad():
            parameter.add_(by)
            guess = model.jump(y + sigma.view(-1, 1, 1, 1) * eps, sigma)
            parameter.sub_(by)
        return (weight * model._distance(guess, target)).mean().item()

    assert parameter.grad is not None
    assert parameter.grad.item() == pytest.approx((moved(1e-5) - moved(-1e-5)) / 2e-5, rel=1e-3)


def test_the_pseudo_huber_distance_is_the_square_near_and_the_length_far() -> None:
    model = tiny(huber=1.0)  # c = 4
    a = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    b = torch.stack([torch.full((1, 4, 4), 1e-3), torch.full((1, 4, 4), 1e4)]).double()
    near, far = model._distance(a, b).tolist()
    assert near == pytest.approx(16e-6 / (2 * 4.0), rel=1e-4)
    assert far == pytest.approx(4e4 - 4.0, rel=1e-6)


def test_the_exact_function_maps_all_points_of_a_path_to_its_end() -> None:
    model, x = exact(), gaussian(5)
    for sigma in (0.01, 0.5, 80.0):
        on_path = MEAN + (x - MEAN) * math.sqrt((STD**2 + sigma**2) / (STD**2 + SIGMA_MIN**2))
        found = model.jump(on_path, torch.full((5,), sigma, dtype=torch.float64))
        torch.testing.assert_close(found, x, rtol=0.0, atol=1e-6)


def test_distillation_from_an_exact_teacher_is_least_at_the_exact_function() -> None:
    """Fine steps of the teacher stay on the path, so that nothing but rounding and Heun's error is left."""
    y, losses = gaussian(400), {}
    for tilt in (-0.1, -0.01, 0.0, 0.01, 0.1):
        model = exact(tilt=tilt, objective="distillation", teacher_intervals=200)
        torch.manual_seed(3)
        losses[tilt] = model._student_loss(y).parts["distance"].item()
    assert losses[0.0] < 0.1 * min(losses[-0.01], losses[0.01])
    assert losses[-0.1] > losses[-0.01]
    assert losses[0.1] > losses[0.01]


def test_training_from_data_pulls_towards_the_exact_function() -> None:
    """Neighbours share image and noise, so that single pairs do not agree; the gradient vanishes in the mean.

    With the squared distance, which a wide pseudo-Huber is, its mean at the exact function falls as intervals shrink.
    """
    pull: dict[tuple[int, float], float] = {}
    for intervals in (80, 320):
        for tilt in (-0.1, 0.0, 0.1):
            model = exact(
                tilt=tilt, huber=1e4, first_intervals=intervals, last_intervals=intervals, log_sigma_mean=-0.5
            )
            torch.manual_seed(3)
            loss = model._student_loss(gaussian(20_000)).total
            (gradient,) = torch.autograd.grad(loss, list(model.net.parameters()))
            pull[intervals, tilt] = gradient.item()
    for intervals in (80, 320):
        assert pull[intervals, -0.1] < 0.0 < pull[intervals, 0.1]
    share = {n: abs(pull[n, 0.0]) / (pull[n, 0.1] - pull[n, -0.1]) for n in (80, 320)}
    assert share[320] < 0.5 * share[80]
    assert share[320] < 0.1


@pytest.mark.parametrize("step", ["heun", "euler"])
def test_the_teachers_step_is_one_of_its_method(step: str) -> None:
    model = tiny(objective="distillation", teacher_step=step)
    x, sigma, less = torch.randn(3, 1, 4, 4), torch.tensor([2.0, 0.5, 0.1]), torch.tensor([1.0, 0.3, 0.05])
    found = model.teach(x, sigma, less)
    for i in range(3):
        s, r, x_i = sigma[i : i + 1], less[i : i + 1], x[i : i + 1]
        slope = (x_i - model._denoise(x_i, s)) / s
        expected = x_i + (r - s) * slope
        if step == "heun":
            expected = x_i + (r - s) * 0.5 * (slope + (expected - model._denoise(expected, r)) / r)
        torch.testing.assert_close(found[i : i + 1], expected)


def test_the_teachers_step_is_that_of_the_sampler() -> None:
    """Heun's first step of two, read off the input of the network's third call."""
    model, x = tiny(objective="distillation"), torch.randn(4, 1, 4, 4)
    asked: list[Tensor] = []

    def denoise(x_t: Tensor, t: Tensor, /) -> Tensor:
        asked.append(x_t)
        return model._denoise(x_t, t.float())

    levels = NoiseLevels(
        t=torch.tensor([1.5, 0.6]), alpha=torch.ones(3), sigma=torch.tensor([1.5, 0.6, 0.0], dtype=torch.float64)
    )
    heun(denoise, x, levels)
    taught = model.teach(x, torch.full((4,), 1.5), torch.full((4,), 0.6))
    torch.testing.assert_close(taught, asked[2], rtol=1e-4, atol=1e-5)


def test_steps_of_an_exact_teacher_stay_on_the_path() -> None:
    x, errors = 2.0 * gaussian(6), {}
    for step in ("heun", "euler"):
        model = exact(objective="distillation", teacher_step=step)
        for width in (0.2, 0.1):
            sigma, less = (torch.full((6,), s, dtype=torch.float64) for s in (1.0, 1.0 - width))
            exactly = MEAN + (x - MEAN) * math.sqrt((STD**2 + (1.0 - width) ** 2) / (STD**2 + 1.0))
            errors[step, width] = (model.teach(x, sigma, less) - exactly).abs().max().item()
    assert math.log2(errors["euler", 0.2] / errors["euler", 0.1]) == pytest.approx(2.0, abs=0.3)
    assert math.log2(errors["heun", 0.2] / errors["heun", 0.1]) == pytest.approx(3.0, abs=0.4)


def test_distillation_trains_a_teacher_and_then_a_student_that_starts_as_its_teacher() -> None:
    model = tiny(objective="distillation", teacher_share=0.6).train()
    assert model.teacher is not None
    teacher, student = model.phases()
    assert (teacher.share, student.share) == (0.6, pytest.approx(0.4))
    assert [player.name for phase in (teacher, student) for player in phase.players] == ["teacher", "student"]
    batch = Batch(integers(4))
    model.loss(batch, "teacher").total.backward()
    assert all(parameter.grad is None for parameter in model.net.parameters())
    before = model.net.stem.weight.clone()
    model.loss(batch, "student").total.backward()
    assert not torch.equal(before, model.net.stem.weight)
    torch.testing.assert_close(model.net.stem.weight, model.teacher.stem.weight, rtol=0.0, atol=0.0)
    with torch.no_grad():
        model.net.stem.weight.add_(1.0)
    model.loss(batch, "student")
    assert not torch.equal(model.net.stem.weight, model.teacher.stem.weight)  # it is begun once


def test_the_teachers_loss_is_the_weighted_error_of_its_denoiser() -> None:
    model, x = tiny(objective="distillation"), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "teacher").total.item()
    torch.manual_seed(3)
    sigma = (-1.2 + 1.2 * torch.randn(6)).exp()
    y = to_signed(x, 256)
    error = model._denoise(y + sigma[:, None, None, None] * torch.randn(6, 1, 4, 4), sigma) - y
    weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
    assert loss == pytest.approx((weight * error.square().mean((1, 2, 3))).mean().item(), rel=1e-4)


def test_training_alone_has_no_teacher() -> None:
    model = tiny()
    assert model.teacher is None
    (phase,) = model.phases()
    assert [player.name for player in phase.players] == ["student"]


def test_both_neighbours_have_the_same_dropout() -> None:
    model, masks = tiny(dropout=0.5).train(), []
    block = model.net.middle1
    block.dropout.register_forward_hook(lambda module, given, result: masks.append(result == 0))
    model.loss(Batch(integers(4)), "student")
    assert len(masks) == 2
    assert torch.equal(masks[0], masks[1])
    model.loss(Batch(integers(4)), "student")
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_samples_are_integers_made_by_the_given_generator_alone(num_steps: int) -> None:
    model, counted = with_sampling(tiny(levels=17), num_steps=num_steps), []
    model.network.register_forward_hook(lambda module, given, result: counted.append(1))
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.shape, len(counted)) == (torch.uint8, (7, 1, 4, 4), num_steps)
    assert int(first.max()) <= 16
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))


@pytest.mark.parametrize("num_steps", [1, 2, 6])
def test_with_the_exact_function_samples_of_any_number_of_steps_have_the_moments_of_the_data(num_steps: int) -> None:
    """f(sigma_max eps) lacks the spread of the data by STD^2 / (2 sigma_max^2); noise put on again changes nothing."""
    model = with_sampling(exact(), num_steps=num_steps)
    x = to_signed(model.sample(4000, generator=seeded()), 256)
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(64_000))
    assert x.std().item() == pytest.approx(STD, rel=4 / math.sqrt(128_000) + 1e-3)


def test_a_last_grid_with_fewer_intervals_than_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="found 10 and then 5"):
        Consistency.Config(first_intervals=10, last_intervals=5)


def test_a_plan_can_read_every_setting_off_the_file() -> None:
    path = MODELS.path("consistency")
    assert path is not None
    settings = {"objective": "distillation", "teacher_step": "euler", "num_steps": 3, "huber": 0.1}
    check_settings(declaration(path, "consistency"), settings, owner="consistency")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small"):
        model = Consistency(DataSpec(shape=shape), Consistency.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "student").total.isfinite()


def test_vectors_are_mapped_as_images_are() -> None:
    torch.manual_seed(0)
    model = Consistency(DataSpec(kind="vector", shape=(2,), levels=None), TINY).eval()
    model.net = ExactJump()  # type: ignore[assignment]
    drawn = with_sampling(model, num_steps=3).sample(20_000, generator=seeded())
    assert (drawn.dtype, drawn.shape) == (torch.float32, (20_000, 2))
    assert drawn.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(40_000))
    assert drawn.std().item() == pytest.approx(STD, rel=4 / math.sqrt(80_000) + 1e-3)
    with pytest.raises(ValueError, match="images of integers and vectors of floats"):
        Consistency(DataSpec(kind="waveform", shape=(1, 8), levels=None), TINY)
