"""What every flow with an exact density must keep: inverse, volumes, mass, samples, codes, units of likelihoods."""

import dataclasses
import math
from typing import cast

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.density import KnownDensity
from genbench.core.errors import SettingError
from genbench.core.model import build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models._exact_flow import ExactFlow
from genbench.models.flow.glow import Glow
from genbench.models.flow.iaf import IAF
from genbench.models.flow.maf import MAF
from genbench.models.flow.neural_spline import NeuralSplineFlow
from genbench.models.flow.nice import NICE
from genbench.models.flow.realnvp import RealNVP
from genbench.models.flow.tarflow import TarFlow
from genbench.nn.invertible_convolution import InvertibleConvolution

TINY: dict[str, tuple[type[ExactFlow], object]] = {
    "nice": (NICE, NICE.Config(num_layers=1, width=8)),
    "nice_gaussian": (NICE, NICE.Config(num_layers=1, width=8, base="gaussian")),
    "realnvp": (
        RealNVP,
        RealNVP.Config(
            width=6,
            num_blocks=1,
            checkerboard_couplings=2,
            channel_couplings=2,
            final_couplings=2,
            vector_couplings=4,
        ),
    ),
    "glow": (Glow, Glow.Config(num_steps=2, num_levels=2, width=8, num_blocks=1)),
    "glow_additive": (Glow, Glow.Config(num_steps=2, num_levels=2, width=8, num_blocks=1, coupling="additive")),
    "neural_spline": (
        NeuralSplineFlow,
        NeuralSplineFlow.Config(num_steps=2, num_levels=2, width=8, num_blocks=1, num_bins=4),
    ),
    "neural_spline_autoregressive": (
        NeuralSplineFlow,
        NeuralSplineFlow.Config(num_steps=2, width=12, num_blocks=1, num_bins=4, transform="autoregressive"),
    ),
    "maf": (MAF, MAF.Config(num_flows=2, width=12, alpha=0.05)),
    "iaf": (IAF, IAF.Config(num_flows=2, width=12, alpha=0.05)),
    "tarflow": (TarFlow, TarFlow.Config(num_flows=2, num_layers=1, width=8, num_heads=2)),
}
KINDS: dict[str, type[ExactFlow]] = {
    "nice": NICE,
    "realnvp": RealNVP,
    "glow": Glow,
    "neural_spline": NeuralSplineFlow,
    "maf": MAF,
    "iaf": IAF,
    "tarflow": TarFlow,
}
PLANE = DataSpec(kind="vector", shape=(2,), levels=None)
SPECS = [PLANE, DataSpec(kind="vector", shape=(5,), levels=None), DataSpec(shape=(1, 4, 4)), DataSpec(shape=(3, 8, 8))]
SMALL_SPECS = [*SPECS[:3], DataSpec(shape=(2, 2, 4), levels=17)]


def moved(name: str, spec: DataSpec, *, std: float = 0.15) -> ExactFlow:
    """A flow whose weights are away from their start: no layer is the identity, and no matrix far from a rotation."""
    torch.manual_seed(0)
    kind, config = TINY[name]
    model = kind(spec, config)  # type: ignore[call-arg, arg-type]
    kept = {id(p) for layer in model.modules() if isinstance(layer, InvertibleConvolution) for p in layer.parameters()}
    for parameter in model.parameters():
        if id(parameter) in kept:
            parameter.data += 0.2 / math.sqrt(len(parameter)) * torch.randn_like(parameter)
        else:
            nn.init.normal_(parameter, std=std)
    return model.eval()


def points(spec: DataSpec, count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.randn if spec.levels is None else torch.rand
    return draw(count, *spec.shape, generator=Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def data(spec: DataSpec, count: int) -> Tensor:
    generator = Generator().manual_seed(5)
    if spec.levels is None:
        return torch.randn(count, *spec.shape, generator=generator)
    return torch.randint(0, spec.levels, (count, *spec.shape), generator=generator, dtype=torch.uint8)


def shaped(spec: DataSpec) -> str:
    return "x".join(map(str, spec.shape))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("spec", SPECS, ids=shaped)
@pytest.mark.parametrize("name", TINY)
def test_inverse_of_the_transform_is_the_identity(name, spec, dtype, tolerance):
    model, y = moved(name, spec, std=0.1).to(dtype), points(spec, 4, dtype)
    with torch.no_grad():
        z, _ = model.transform(y)
        assert z.shape == (4, spec.num_dims)
        assert not torch.isclose(z, y.flatten(1), atol=1e-2).all()
        torch.testing.assert_close(model.invert(z), y, atol=tolerance, rtol=0)
        z = torch.randn(4, spec.num_dims, generator=Generator().manual_seed(2), dtype=torch.float64).to(dtype)
        if dtype == torch.float64 and spec.levels is None:
            torch.testing.assert_close(model.transform(model.invert(z))[0], z, atol=tolerance, rtol=0)


@pytest.mark.parametrize("spec", SMALL_SPECS, ids=shaped)
@pytest.mark.parametrize("name", TINY)
def test_log_determinant_is_that_of_the_jacobian(name, spec):
    model, y = moved(name, spec).double(), points(spec, 2)
    _, log_det = model.transform(y)
    for row, value in zip(y, log_det, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda r: model.transform(r[None])[0][0], row)
        expected = torch.linalg.slogdet(jacobian.reshape(spec.num_dims, -1)).logabsdet
        torch.testing.assert_close(value, expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", TINY)
def test_density_over_the_plane_integrates_to_one(name):
    model = moved(name, PLANE, std=0.2).double()
    side = torch.linspace(-25, 25, 501, dtype=torch.float64)
    with torch.no_grad():
        log_density = model.density_of(torch.cartesian_prod(side, side))
    mass = log_density.exp().sum() * (side[1] - side[0]) ** 2
    assert mass.item() == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", TINY)
def test_samples_follow_the_density_that_the_likelihood_reports(name):
    """Shares of the four quadrants around a point, against quadrature of the density."""
    model = moved(name, PLANE, std=0.2)
    side = torch.linspace(-25, 25, 501) + 0.05
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        density = torch.cat([model.density_of(part).exp() for part in grid.split(50_000)]).double() * 0.01
    drawn = model.sample(20_000, generator=Generator().manual_seed(0))
    for first in (1.0, -1.0):
        for second in (1.0, -1.0):
            sign = torch.tensor([first, second])
            expected = density[((grid - 0.2) * sign > 0).all(1)].sum().item()
            found = ((drawn - 0.2) * sign > 0).all(1).float().mean().item()
            assert found == pytest.approx(expected, abs=0.02)  # five standard errors of the count, and the grid's


@pytest.mark.parametrize("spec", [SPECS[1], DataSpec(shape=(3, 8, 8), levels=17)], ids=shaped)
@pytest.mark.parametrize("name", TINY)
def test_sampling_is_a_function_of_the_generator_alone(name, spec):
    model = moved(name, spec)
    before = torch.get_rng_state()
    first, again, other = (model.sample(6, generator=Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (6, *spec.shape)
    if spec.levels is None:
        assert first.dtype == torch.float32
        assert first.isfinite().all()
    else:
        assert first.dtype == torch.uint8
        assert first.max() < 17


@pytest.mark.parametrize("spec", [SPECS[1], DataSpec(shape=(3, 8, 8), levels=17)], ids=shaped)
@pytest.mark.parametrize("name", TINY)
def test_data_survive_the_round_trip_through_their_codes(name, spec):
    model, x = moved(name, spec), data(spec, 3)
    z = model.encode(x)
    assert z.shape == (3, spec.num_dims)
    if spec.levels is None:
        torch.testing.assert_close(model.reconstruct(x), x, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(model.decode(z), x)
        assert torch.equal(model.reconstruct(x), x)


@pytest.mark.parametrize("name", TINY)
def test_log_likelihood_is_base_plus_log_determinant_less_the_volume_of_a_bin(name):
    spec = DataSpec(shape=(1, 4, 4), levels=17)
    model, x = moved(name, spec), data(spec, 3)
    y = (x.float() + torch.rand(x.shape, generator=Generator().manual_seed(4))) / 17
    with torch.no_grad():
        z, log_det = model.transform(y)
    base = -z - 2.0 * nn.functional.softplus(-z) if name == "nice" else torch.distributions.Normal(0.0, 1.0).log_prob(z)
    found = model.log_likelihood(x, generator=Generator().manual_seed(4))
    torch.testing.assert_close(found, base.sum(1) + log_det - 16 * math.log(17), atol=1e-3, rtol=1e-4)
    assert model.likelihood_estimator == "uniform dequantisation, 1 draw"


@pytest.mark.parametrize("name", TINY)
def test_likelihoods_of_vectors_are_exact_and_of_the_example_alone(name):
    model, x = moved(name, SPECS[1]), data(SPECS[1], 6)
    found = model.log_likelihood(x, generator=Generator().manual_seed(0))
    assert not found.requires_grad
    assert torch.equal(found, model.log_likelihood(x, generator=Generator().manual_seed(1)))
    torch.testing.assert_close(model.log_likelihood(x[2:4], generator=Generator()), found[2:4], atol=1e-5, rtol=1e-5)
    assert model.likelihood_estimator == "exact density"


@pytest.mark.parametrize("name", TINY)
def test_the_loss_is_the_likelihood_in_its_unit(name):
    model, x = moved(name, SPECS[1]), data(SPECS[1], 6)
    loss = model.loss(Batch(x), "flow")
    expected = -model.log_likelihood(x, generator=Generator()).mean().item()
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    spec = DataSpec(shape=(1, 4, 4), levels=17)
    model, x = moved(name, spec), data(spec, 6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "flow")
    nats = model.log_likelihood(x, generator=Generator().manual_seed(3)).mean().item()
    assert loss.total.item() == pytest.approx(-nats / (16 * math.log(2.0)), rel=1e-4)
    assert set(loss.parts) == {"bits_per_dim"}


@pytest.mark.parametrize("spec", [SPECS[1], DataSpec(shape=(3, 8, 8))], ids=shaped)
@pytest.mark.parametrize("name", TINY)
def test_training_in_half_precision_rounds_networks_and_never_data(name, spec):
    model, batch = moved(name, spec, std=0.1), Batch(data(spec, 16))
    torch.manual_seed(3)
    single = model.loss(batch, "flow").total
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(batch, "flow").total
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(single.item(), rel=3e-3)
    half.backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("name", ["neural_spline_autoregressive", "maf", "iaf", "tarflow"])
def test_an_untrained_flow_is_the_identity_on_the_line(name, levels):
    spec = DataSpec(shape=(1, 4, 4), levels=levels)
    kind, config = TINY[name]
    changes = {} if name == "tarflow" else {"alpha": None}
    model = kind(spec, dataclasses.replace(config, **changes)).double()  # type: ignore[call-arg, type-var]
    y = points(spec, 3)
    z, log_det = model.transform(y)
    assert torch.allclose(z.sort(1).values, (2.0 * y - 1.0).flatten(1).sort(1).values, atol=1e-6)
    torch.testing.assert_close(log_det, torch.full((3,), 16 * math.log(2.0), dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["nice", "realnvp", "glow", "neural_spline", "maf", "iaf"])
def test_first_batch_brings_every_latent_to_the_scale_of_the_base(name):
    spec = DataSpec(shape=(3, 4, 4))
    kind, config = TINY[name]
    torch.manual_seed(0)
    model = kind(spec, config)  # type: ignore[call-arg, arg-type]
    x = data(spec, 256) // 4  # far from the middle of the range
    model.prepare(Batch(x))
    z = model.encode(x)
    assert z.std(0).mean().item() == pytest.approx(math.pi / math.sqrt(3.0) if name == "nice" else 1.0, abs=0.15)


@pytest.mark.parametrize("side", [8, 16, 28])
@pytest.mark.parametrize("preset", ["smoke", "small"])
@pytest.mark.parametrize("name", KINDS)
def test_presets_fit_every_size(name, preset, side):
    spec = DataSpec(shape=(1, side, side))
    model = build_model(KINDS[name], spec, preset=preset, settings={}, owner=name)
    x = data(spec, 2)
    model.prepare(Batch(x))
    with torch.no_grad():
        assert model.loss(Batch(x), "flow").total.isfinite()


@pytest.mark.parametrize("name", KINDS)
def test_presets_of_vectors_fit_many_dimensions(name):
    for dims in (2, 3, 13):
        spec = DataSpec(kind="vector", shape=(dims,), levels=None)
        model = build_model(KINDS[name], spec, preset="vector", settings={}, owner=name)
        x = data(spec, 8)
        model.prepare(Batch(x))
        assert model.loss(Batch(x), "flow").total.isfinite()


@pytest.mark.parametrize("kind", ["waveform", "vector", "image"])
@pytest.mark.parametrize("name", TINY)
def test_data_of_another_kind_are_refused(name, kind):
    wrong = {"waveform": ((1, 8), None), "vector": ((2,), 4), "image": ((1, 4, 4), None)}
    shape, levels = wrong[kind]
    with pytest.raises(SettingError, match=f"found {kind} data"):
        TINY[name][0](DataSpec(kind=kind, shape=shape, levels=levels), TINY[name][1])  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("name", ["glow", "neural_spline"])
def test_odd_sides_are_refused_by_what_halves_them(name):
    with pytest.raises(SettingError, match="must be even, found 7x7"):
        TINY[name][0](DataSpec(shape=(1, 7, 7)), TINY[name][1])  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("name", ["nice", "realnvp", "glow", "neural_spline", "tarflow"])
def test_a_single_dimension_is_refused_by_what_needs_two(name):
    with pytest.raises(SettingError, match="dimension"):
        TINY[name][0](DataSpec(kind="vector", shape=(1,), levels=None), TINY[name][1])  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize("name", ["neural_spline_autoregressive", "maf", "iaf"])
def test_a_single_dimension_is_modelled_by_what_needs_no_other(name):
    line = DataSpec(kind="vector", shape=(1,), levels=None)
    model = moved(name, line, std=0.3).double()
    x = torch.linspace(-30, 30, 6001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        assert model.density_of(x).exp().sum().item() * 0.01 == pytest.approx(1.0, abs=1e-3)


GAPS = {"nice": 1.9, "realnvp": 1.2, "glow": 0.65, "neural_spline": 0.12, "maf": 1.3, "iaf": 0.8, "tarflow": 1.1}
"""Nats that a flow may lose on eight Gaussians after 300 steps; one normal law loses 2.5."""


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_trained_flow_knows_the_density_of_eight_gaussians(name):
    law = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    model = build_model(KINDS[name], law.spec, preset="vector", settings={}, owner=name)
    train(model, law.load("train", range(20_000)), samples_seen=256 * 300, seed=0)
    x = law.load("test", range(2000)).x
    known = cast("KnownDensity", law)
    flow = cast("ExactFlow", model)
    gap = (known.log_density(x) - flow.log_likelihood(x, generator=Generator())).mean().item()
    assert 0.0 < gap < GAPS[name]
    drawn = model.sample(2000, generator=Generator().manual_seed(0))
    mode = (torch.atan2(drawn[:, 1], drawn[:, 0]) / (math.pi / 4)).round().long() % 8
    shares = mode.bincount(minlength=8) / 2000
    assert (shares - 0.125).abs().max() < 0.08  # no mode is lost and none takes over
