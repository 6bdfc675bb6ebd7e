"""Continuous flows against linear fields, exact traces, Jacobians by autograd, and mass over the plane."""

import dataclasses
import math
from typing import cast

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.declared import check_settings, declaration
from genbench.core.density import KnownDensity
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import TimingEffort, parse_ref
from genbench.harness.sample import draw
from genbench.harness.train import train
from genbench.models.continuous_flow.ffjord import FFJORD, Course, Dynamics, Equation
from genbench.samplers.ode import Solver

PLANE = DataSpec(kind="vector", shape=(2,), levels=None)
SPACE = DataSpec(kind="vector", shape=(3,), levels=None)
IMAGES = DataSpec(shape=(1, 4, 4), levels=17)
TINY = FFJORD.Config(width=8)
A = torch.tensor([[-0.5, 1.0, 0.0], [0.2, 0.3, -0.4], [0.0, 0.7, 0.1]], dtype=torch.float64)


class Linear(nn.Module):
    """v = A x, whatever the time."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(A.clone())

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x @ self.weight.T


def moved(spec: DataSpec, *, std: float = 0.3, **changes: object) -> FFJORD:
    torch.manual_seed(0)
    model = FFJORD(spec, dataclasses.replace(TINY, **changes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=std)
    return model


def sampled_by(model: FFJORD, **changes: object) -> FFJORD:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def linear(**changes: object) -> FFJORD:
    model = sampled_by(moved(SPACE, **changes), tolerance=1e-10, likelihood_tolerance=1e-10)
    for part in model.modules():
        if isinstance(part, Equation):
            part.dynamics = Linear()  # type: ignore[assignment]
    return model


def points(spec: DataSpec, count: int) -> Tensor:
    draws = torch.randn if spec.levels is None else torch.rand
    return draws(count, *spec.shape, generator=Generator().manual_seed(1), dtype=torch.float64)


def integers(count: int) -> Tensor:
    return torch.randint(0, 17, (count, *IMAGES.shape), dtype=torch.uint8, generator=Generator().manual_seed(5))


@pytest.mark.parametrize("num_equations", [1, 2])
def test_a_linear_field_carries_a_gaussian_of_known_covariance(num_equations):
    model, x = linear(num_equations=num_equations), points(SPACE, 6)
    carried = torch.matrix_exp(num_equations * A)
    law = torch.distributions.MultivariateNormal(torch.zeros(3, dtype=torch.float64), carried @ carried.T)
    course = Course("density", Solver(rtol=1e-10, atol=1e-10), "exact")
    with torch.no_grad(), model.courses.take(course):
        torch.testing.assert_close(model.density_of(x), law.log_prob(x), rtol=0, atol=1e-7)
    z = points(SPACE, 6) - 0.5
    torch.testing.assert_close(model.invert(z), z @ carried.T, rtol=0, atol=1e-7)
    model = sampled_by(model.float(), likelihood_tolerance=1e-5)
    assert model.likelihood_estimator == "flow ODE, dopri5, tolerance 1e-05, exact trace"
    found = model.log_likelihood(x.float(), generator=Generator())
    torch.testing.assert_close(found.double(), law.log_prob(x), rtol=1e-3, atol=1e-3)


def test_the_regularisers_of_a_linear_field_are_its_energy_and_its_norm():
    model, x = linear(train_steps=40), points(SPACE, 4)
    model = model.float()
    torch.manual_seed(0)
    loss = model.loss(Batch(x.float()), "flow")
    assert loss.parts["jacobian"].item() > 0.0
    exact = dataclasses.replace(model.config, exact_training_dims=3)
    model.config = exact
    loss = model.loss(Batch(x.float()), "flow")
    assert loss.parts["jacobian"].item() == pytest.approx(A.square().sum().item() / 3.0, rel=1e-4)
    times = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    energy = torch.stack([(x @ torch.matrix_exp(-A * t).T @ A.T).square().sum(1) for t in times]).mean()
    assert loss.parts["kinetic"].item() == pytest.approx(energy.item() / 3.0, rel=1e-4)
    expected = loss.parts["nll"] + 0.01 * loss.parts["kinetic"] + 0.01 * loss.parts["jacobian"]
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "fine"), [(PLANE, 0), (SPACE, 0), (DataSpec(shape=(1, 2, 2)), 0), (DataSpec(shape=(1, 2, 2)), 1)]
)
def test_log_determinant_is_that_of_the_jacobian_by_autograd(spec, fine):
    model, y = moved(spec, num_equations=2 - fine, num_fine_equations=fine).double(), points(spec, 2)
    course = Course("training", Solver(method="rk4", num_steps=40), "exact")
    with model.courses.take(course):
        _, log_det = model.transform(y)
        for row, value in zip(y, log_det, strict=True):
            jacobian = torch.autograd.functional.jacobian(lambda r: model.transform(r[None])[0][0], row)
            expected = torch.linalg.slogdet(jacobian.reshape(spec.num_dims, -1)).logabsdet
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "solver_tolerance", "tolerance"), [("float32", 1e-7, 1e-5), ("float64", 1e-12, 1e-10)]
)
@pytest.mark.parametrize(("spec", "fine"), [(SPACE, 0), (IMAGES, 0), (IMAGES, 1)])
def test_the_inverse_undoes_the_flow_to_the_tolerance_of_the_solver(spec, fine, dtype, solver_tolerance, tolerance):
    model = moved(spec, std=0.2, num_fine_equations=fine).to(getattr(torch, dtype))
    sampled_by(model, tolerance=solver_tolerance)
    y = points(spec, 3).to(getattr(torch, dtype))
    solver = Solver(rtol=solver_tolerance, atol=solver_tolerance)
    with torch.no_grad(), model.courses.take(Course("points", solver, "exact")):
        z, _ = model.transform(y)
    assert not torch.isclose(z, y.flatten(1), atol=1e-2).all()
    torch.testing.assert_close(model.invert(z), y, rtol=0, atol=tolerance)


def test_density_over_the_plane_integrates_to_one():
    model = sampled_by(moved(PLANE, std=0.6), likelihood_solver="rk4", likelihood_steps=10, tolerance=1e-5)
    side = torch.linspace(-12, 12, 161)
    grid = torch.cartesian_prod(side, side)
    density = model.log_likelihood(grid, generator=Generator()).double().exp() * (side[1] - side[0]) ** 2
    assert density.sum().item() == pytest.approx(1.0, abs=2e-3)
    drawn = model.sample(20_000, generator=Generator().manual_seed(0))
    inside = (grid[:, 0] > 0.375) & (grid[:, 1] < 0.075)  # edges of cells
    found = ((drawn[:, 0] > 0.375) & (drawn[:, 1] < 0.075)).float().mean().item()
    assert found == pytest.approx(density[inside].sum().item(), abs=0.02)


def test_hutchinsons_likelihood_has_the_exact_one_for_its_mean():
    model, x = sampled_by(moved(IMAGES), likelihood_solver="rk4", likelihood_steps=8), integers(1)
    y = model.as_points(x, Generator().manual_seed(0))
    solver = Solver(method="rk4", num_steps=8)
    with torch.no_grad():
        with model.courses.take(Course("density", solver, "exact")):
            exact = model.density_of(y)
        with model.courses.take(Course("density", solver, "hutchinson", Generator().manual_seed(2))):
            found = model.density_of(y.expand(400, -1, -1, -1))
    assert found.std() > 0.0
    assert abs((found.mean() - exact).item()) < 4.0 * found.std().item() / math.sqrt(400)


def test_one_draw_of_signs_serves_a_whole_solve():
    """With new signs at every step, the likelihood of one generator would not settle as steps become finer."""
    model, x = moved(IMAGES), integers(4)
    found = []
    for num_steps in (20, 40):
        sampled_by(model, likelihood_solver="rk4", likelihood_steps=num_steps)
        found.append(model.log_likelihood(x, generator=Generator().manual_seed(3)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=2e-3)
    other = model.log_likelihood(x, generator=Generator().manual_seed(4))
    assert (other - found[1]).abs().min() > 1e-3


@pytest.mark.parametrize("spec", [PLANE, IMAGES])
def test_the_loss_is_the_likelihood_of_the_same_solve(spec):
    model = moved(spec, kinetic=0.0, jacobian=0.0, train_steps=10)
    sampled_by(model, likelihood_solver="rk4", likelihood_steps=10)
    x = integers(5) if spec is IMAGES else points(spec, 5).float()
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "flow").total.item()
    nats = model.log_likelihood(x, generator=Generator().manual_seed(3)).mean().item()
    assert loss == pytest.approx(-nats / (16 * math.log(2.0)) if spec is IMAGES else -nats, rel=1e-4)


def test_training_by_the_adjoint_has_the_gradients_of_fine_steps():
    gradients = []
    for solver in ("rk4", "dopri5"):
        model = moved(PLANE, train_solver=solver, train_steps=40, train_tolerance=1e-7)
        model.loss(Batch(points(PLANE, 8).float()), "flow").total.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_evaluations_are_counted_in_training_and_for_samples():
    model = moved(IMAGES, train_steps=3, num_equations=2)  # two scales of two equations
    parts = model.loss(Batch(integers(2)), "flow").parts
    assert parts["evaluations"].item() == 4 * 4 * 3
    model = moved(IMAGES, train_steps=3, num_equations=2, num_fine_equations=1)  # before two squeezes, and at the end
    assert model.loss(Batch(integers(2)), "flow").parts["evaluations"].item() == 4 * (4 + 3) * 3
    model = sampled_by(moved(IMAGES, num_equations=2), solver="midpoint", num_steps=5)
    drawing = draw(model, 4, seed=0, effort=TimingEffort(warmup_steps=1, min_block_seconds=0.001, latency_requests=1))
    assert drawing.network_evaluations == 4 * 2 * 5
    adaptive = moved(PLANE, train_solver="dopri5")
    assert adaptive.loss(Batch(points(PLANE, 4).float()), "flow").parts["evaluations"].item() >= 7


@pytest.mark.parametrize("spec", [PLANE, IMAGES])
def test_training_in_half_precision_rounds_velocities_and_never_data(spec):
    model, batch = moved(spec), Batch(integers(8) if spec is IMAGES else points(spec, 8).float())
    torch.manual_seed(3)
    single = model.loss(batch, "flow").total
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(batch, "flow").total
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(single.item(), rel=3e-3)
    half.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_new_model_is_the_identity_and_its_loss_that_of_a_gaussian():
    model = FFJORD(PLANE, TINY)
    x = points(PLANE, 500).float()
    loss = model.loss(Batch(x), "flow")
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(1).mean()
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5)
    z = torch.randn(3, 2)
    torch.testing.assert_close(model.invert(z), z)


@pytest.mark.parametrize("spec", [PLANE, IMAGES])
def test_samples_codes_and_likelihoods_read_no_global_stream(spec):
    model = moved(spec)
    x = integers(3) if spec is IMAGES else points(spec, 3).float()
    before = torch.get_rng_state()
    first = model.sample(4, generator=Generator().manual_seed(0))
    assert torch.equal(first, model.sample(4, generator=Generator().manual_seed(0)))
    z = model.encode(x)
    again = model.reconstruct(x)
    model.log_likelihood(x, generator=Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert z.shape == (3, spec.num_dims)
    if spec is IMAGES:
        assert torch.equal(again, x)
        assert int(first.max()) < 17
    else:
        torch.testing.assert_close(again, x, rtol=0, atol=1e-2)


def test_the_estimator_is_named_with_what_it_depends_on():
    model = moved(IMAGES)
    assert model.likelihood_estimator == (
        "flow ODE, dopri5, tolerance 0.0001, Hutchinson's trace, uniform dequantisation, 1 draw"
    )
    sampled_by(model, likelihood_solver="rk4", likelihood_steps=8, exact_divergence_dims=16)
    assert model.likelihood_estimator == "flow ODE, rk4, 32 evaluations, exact trace, uniform dequantisation, 1 draw"


def test_settings_can_be_read_off_the_file_and_are_checked():
    path = MODELS.path("ffjord")
    assert path is not None
    settings = {"kinetic": 0.0, "train_solver": "dopri5", "solver": "rk4", "tolerance": 1e-6}
    check_settings(declaration(path, "ffjord"), settings, owner="ffjord")
    model = cast("FFJORD", build_model(FFJORD, PLANE, preset="vector", settings=settings, owner="ffjord"))
    assert (model.config.train_solver, model.sampling.solver, model.sampling.tolerance) == ("dopri5", "rk4", 1e-6)
    for wrong in ({"train_solver": "ddpm"}, {"kinetic": -1.0}, {"num_layers": 1}):
        with pytest.raises(SettingError):
            build_model(FFJORD, PLANE, preset="vector", settings=wrong, owner="ffjord")
    with pytest.raises(SettingError, match="must be even, found 7x7"):
        FFJORD(DataSpec(shape=(1, 7, 7)), TINY)


def test_the_paper_preset_is_that_of_mnist():
    model = FFJORD(DataSpec(shape=(1, 28, 28)), FFJORD.presets["paper"])
    widths = [
        [layer.conv.out_channels for layer in part.layers] for part in model.modules() if isinstance(part, Dynamics)
    ]
    assert widths == [[64, 64, 64, c] for c in (1, 1, 2, 2, 4, 4, 8, 8, 4, 4)]
    config = model.config
    assert (config.lr, config.batch_size, config.alpha, config.train_tolerance) == (1e-3, 200, 1e-6, 1e-5)


@pytest.mark.slow
def test_a_trained_flow_knows_the_density_of_eight_gaussians():
    law = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    settings = {"train_steps": 3, "batch_size": 128}
    model = build_model(FFJORD, law.spec, preset="vector", settings=settings, owner="ffjord")
    train(model, law.load("train", range(20_000)), samples_seen=128 * 200, seed=0)
    x = law.load("test", range(1000)).x
    known, flow = cast("KnownDensity", law), cast("FFJORD", model)
    gap = (known.log_density(x) - flow.log_likelihood(x, generator=Generator())).mean().item()
    assert 0.0 < gap < 0.3
    drawn = model.sample(1000, generator=Generator().manual_seed(0))
    assert known.log_density(drawn).median() > known.log_density(x).median() - 2.0
