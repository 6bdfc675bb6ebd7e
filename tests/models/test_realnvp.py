import math

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.models.flow.realnvp import RealNVP
from genbench.prob.dequantization import dequantise, integer_log_likelihood

TINY = RealNVP.Config(
    width=6, width_growth=1, num_blocks=1, checkerboard_couplings=2, channel_couplings=2, final_couplings=2
)


def _images(spec: DataSpec, count: int) -> Tensor:
    generator = Generator().manual_seed(5)
    return torch.randint(0, spec.levels or 0, (count, *spec.shape), generator=generator, dtype=torch.uint8)


def _flow(shape: tuple[int, int, int], *, levels: int = 256, config: RealNVP.Config = TINY) -> RealNVP:
    """A flow whose weights are all away from their start, so that no layer is the identity."""
    torch.manual_seed(0)
    model = RealNVP(DataSpec(shape=shape, levels=levels), config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    return model


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (1, 64, 64)])
@pytest.mark.parametrize("preset", ["smoke", "small"])
def test_integers_survive_the_round_trip_at_every_size(shape, preset):
    spec = DataSpec(shape=shape)
    torch.manual_seed(0)
    model = RealNVP(spec, RealNVP.presets[preset])
    x = _images(spec, 2)
    model.prepare(Batch(x))
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        nn.init.normal_(conv.weight, std=0.02)
    z = model.encode(x)
    assert z.shape == (2, spec.num_dims)
    assert torch.equal(model.decode(z), x)
    assert torch.equal(model.reconstruct(x), x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_inverse_of_the_transform_is_the_identity(dtype, tolerance):
    model = _flow((3, 8, 8)).to(dtype)
    y = torch.rand(4, 3, 8, 8, dtype=dtype, generator=Generator().manual_seed(1))
    z, _ = model.transform(y)
    torch.testing.assert_close(model.invert(z), y, atol=tolerance, rtol=0)


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 4, 4), (1, 8, 8)])
def test_log_determinant_is_that_of_the_jacobian(shape):
    model = _flow(shape).double()
    y = torch.rand(shape, dtype=torch.float64, generator=Generator().manual_seed(1))
    _, log_det = model.transform(y[None])
    jacobian = torch.autograd.functional.jacobian(lambda row: model.transform(row[None])[0][0], y)
    expected = torch.linalg.slogdet(jacobian.reshape(y.numel(), -1)).logabsdet
    torch.testing.assert_close(log_det[0], expected, atol=1e-10, rtol=0)


def test_squeezes_stop_where_pixels_would_be_cut_or_too_few():
    small = RealNVP.presets["small"]
    assert [len(RealNVP(DataSpec(shape=(1, side, side)), small).flow.scales) for side in (8, 16, 28, 32)] == [
        1,
        2,
        2,
        2,
    ]


def test_density_over_two_pixels_integrates_to_the_mass_that_the_logit_range_holds():
    """Over [0, 1]^2 the density sums to the base's mass inside the image of the cube, counted here by sampling."""
    model = _flow((1, 1, 2)).double()
    side = (torch.arange(150, dtype=torch.float64) + 0.5) / 150
    y = torch.cartesian_prod(side, side).view(-1, 1, 1, 2)
    with torch.no_grad():
        z, log_det = model.transform(y)
        mass = (-0.5 * z.square().sum(1) - math.log(2 * math.pi) + log_det).exp().mean().item()
        drawn = torch.randn(20_000, 2, dtype=torch.float64, generator=Generator().manual_seed(2))
        pixels = model.invert(drawn).flatten(1)
    inside = ((pixels >= 0) & (pixels <= 1)).all(1).double().mean().item()
    assert 0.5 < inside < 1
    assert mass == pytest.approx(inside, abs=5 * 0.5 / math.sqrt(20_000))  # five standard errors of the count


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_untrained_flow_under_a_uniform_law_costs_exactly_the_logarithm_of_the_levels(levels):
    """The couplings start as the identity; on the logits, the uniform law is a truncated logistic one."""
    spec = DataSpec(shape=(3, 8, 8), levels=levels)
    model = RealNVP(spec, TINY).double()
    y = dequantise(_images(spec, 4), levels, generator=Generator().manual_seed(0)).double()
    z, log_det = model.transform(y)
    logistic = nn.functional.logsigmoid(z) + nn.functional.logsigmoid(-z)
    log_base = (logistic - math.log(1 - 2 * model.config.alpha)).sum(1)
    nats = integer_log_likelihood(log_base + log_det, spec.num_dims, levels)
    bits_per_dim = -nats / (spec.num_dims * math.log(2))
    torch.testing.assert_close(bits_per_dim, torch.full((4,), math.log2(levels), dtype=torch.float64))


def test_log_likelihood_is_the_gaussian_base_plus_log_determinant_less_the_bin_volume():
    spec = DataSpec(shape=(1, 8, 8), levels=17)
    model = _flow(spec.shape, levels=17)
    x = _images(spec, 3)
    z, log_det = model.transform(dequantise(x, 17, generator=Generator().manual_seed(4)))
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    found = model.log_likelihood(x, generator=Generator().manual_seed(4))
    torch.testing.assert_close(found, base + log_det - 64 * math.log(17))


def test_bound_averages_below_the_probability_that_the_same_density_gives_the_integer():
    """One pixel pair, four levels: the bin's probability by fine quadrature, the bound by its own noise."""
    spec = DataSpec(shape=(1, 1, 2), levels=4)
    model = _flow(spec.shape, levels=4)
    x = torch.tensor([[0, 0], [1, 3], [3, 2]], dtype=torch.uint8).view(3, 1, 1, 2)
    fine = (torch.arange(200) + 0.5) / 200
    offsets = torch.cartesian_prod(fine, fine).view(-1, 1, 1, 2)
    for row in x:
        with torch.no_grad():
            z, log_det = model.transform((row + offsets) / 4)
        log_density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det
        log_probability = torch.logsumexp(log_density, 0) - math.log(len(offsets)) - 2 * math.log(4)
        draws = model.log_likelihood(row.expand(20_000, 1, 1, 2), generator=Generator().manual_seed(0))
        assert draws.mean() < log_probability
        assert draws.mean() == pytest.approx((log_density.mean() - 2 * math.log(4)).item(), abs=0.02)


def test_first_batch_brings_every_latent_to_unit_scale():
    spec = DataSpec(shape=(3, 8, 8))
    model = RealNVP(spec, TINY)
    x = _images(spec, 256) // 4  # far from the middle of the range
    model.prepare(Batch(x))
    z = model.encode(x)
    assert z.mean().abs() < 0.05
    assert z.std().item() == pytest.approx(1.0, abs=0.05)


def test_sampling_is_a_function_of_the_generator_alone():
    model = _flow((3, 8, 8), levels=17)
    before = torch.get_rng_state()
    first, again, other = (model.sample(8, generator=Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.uint8
    assert first.max() < 17


def test_pushforward_of_the_base_follows_the_density_that_the_likelihood_reports():
    """Share of samples in each bin of a pixel pair against quadrature of the same density."""
    spec = DataSpec(shape=(1, 1, 2), levels=3)
    model = _flow(spec.shape, levels=3)
    side = (torch.arange(150) + 0.5) / 150
    y = torch.cartesian_prod(side, side).view(-1, 1, 1, 2)
    with torch.no_grad():
        z, log_det = model.transform(y)
    density = (torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det).exp()
    middle = ((y.flatten(1) * 3).floor() == 1).all(1)
    expected = density[middle].sum().item() / len(y)
    drawn = model.sample(20_000, generator=Generator().manual_seed(0)).flatten(1)
    found = (drawn == 1).all(1).float().mean().item()
    assert found == pytest.approx(expected, abs=5 * math.sqrt(expected / 20_000))


def test_training_on_one_picture_lowers_its_cost():
    spec = DataSpec(shape=(1, 8, 8), levels=17)
    torch.manual_seed(0)
    model = RealNVP(spec, RealNVP.presets["smoke"])
    batch = Batch(_images(spec, 1).expand(32, 1, 8, 8))
    model.prepare(batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        loss = model.loss(batch, "flow").total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1.0
