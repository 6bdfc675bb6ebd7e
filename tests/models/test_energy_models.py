"""What all tilted Gaussians share: the law, its samplers, and its log-likelihood."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness import densities
from genbench.harness.train import train
from genbench.prob.intervals import Z95

NAMES = [
    "contrastive_divergence",
    "persistent_cd",
    "denoising_score_matching",
    "sliced_score_matching",
    "noise_contrastive",
]
IMAGES = DataSpec(shape=(1, 8, 8), levels=17)
VECTORS = DataSpec(kind="vector", shape=(2,), levels=None)


def model_of(name, spec=VECTORS, *, preset=None, **settings):
    torch.manual_seed(0)
    preset = preset or ("vector" if spec is VECTORS else "smoke")
    return build_model(MODELS.get(name), spec, preset=preset, settings=settings, owner=name)


def batch_of(spec, num=64):
    generator = torch.Generator().manual_seed(1)
    if spec.levels is None:
        return Batch(torch.randn(num, *spec.shape, generator=generator) * torch.tensor([1.0, 0.5]) + 1.0)
    return Batch(torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8))


def bent(name, spec=VECTORS, *, size=2.0, **settings):
    """A model whose energy is far from its base, without training."""
    model = model_of(name, spec, **settings)
    model.prepare(batch_of(spec))
    last = list(model.net.modules())[-1]
    last.weight.data.mul_(size)
    return model.eval()


@pytest.mark.parametrize("spec", [IMAGES, VECTORS], ids=["images", "vectors"])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_trains_samples_and_scores(name, spec):
    model = model_of(name, spec, num_steps=10, hold=2, normaliser="ais", ais_steps=10, ais_chains=8)
    train(model, batch_of(spec), samples_seen=10 * 64, seed=0)
    drawn = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, *spec.shape)
    assert drawn.dtype == (torch.float32 if spec.levels is None else torch.uint8)
    nats = model.log_likelihood(batch_of(spec).x, generator=torch.Generator().manual_seed(0))
    assert nats.shape == (64,)
    assert nats.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_the_base_has_the_moments_of_the_first_batch(name):
    model, batch = model_of(name), batch_of(VECTORS)
    model.prepare(batch)
    torch.testing.assert_close(model.base_mean, batch.x.mean(0))
    spread = (batch.x - batch.x.mean(0)).square().mean().sqrt()
    torch.testing.assert_close(model.base_std, 1.5 * spread)
    drawn = model.base_draws(5000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.std(0), model.base_std.expand(2), rtol=0.05, atol=0)


@pytest.mark.slow
def test_the_density_by_quadrature_integrates_to_one():
    model = bent("persistent_cd", normaliser="quadrature")
    axis = torch.linspace(-9, 11, 401)
    x = torch.cartesian_prod(axis, axis)
    density = model.log_likelihood(x, generator=torch.Generator().manual_seed(0)).double().exp().view(401, 401)
    mass = torch.trapezoid(torch.trapezoid(density, axis.double()), axis.double()).item()
    assert mass == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_annealed_importance_sampling_finds_what_quadrature_finds():
    exact, estimated = (
        bent("persistent_cd", size=6.0, normaliser=how, ais_steps=200, ais_chains=500) for how in ("quadrature", "ais")
    )
    generator = torch.Generator().manual_seed(0)
    truth = exact.log_partition(generator=generator)
    found = estimated.log_partition(generator=generator)
    assert truth.low == truth.value == truth.high
    error = (found.high - found.low) / (2 * Z95)
    assert abs(found.value - truth.value) < 4 * error < 0.1
    assert abs(truth.value - exact.base_log_partition) > 1.0  # f matters
    assert "optimistic" in estimated.likelihood_estimator
    assert "quadrature" in exact.likelihood_estimator


def test_a_network_of_nothing_leaves_the_density_of_the_base():
    model = model_of("persistent_cd", normaliser="ais", ais_steps=5, ais_chains=4)
    batch = batch_of(VECTORS)
    model.prepare(batch)
    for parameter in model.net.parameters():
        parameter.data.zero_()
    nats = model.log_likelihood(batch.x, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal(model.base_mean, model.base_std)
    torch.testing.assert_close(nats, normal.log_prob(batch.x).sum(1))


def test_the_log_likelihood_of_integers_holds_the_volume_of_a_bin():
    model = model_of("persistent_cd", IMAGES, ais_steps=3, ais_chains=4)
    model.prepare(batch_of(IMAGES))
    for parameter in model.net.parameters():
        parameter.data.zero_()
    x = batch_of(IMAGES).x[:3]
    nats = model.log_likelihood(x, generator=torch.Generator().manual_seed(4))
    y = model.as_points(x, torch.Generator().manual_seed(4))
    normal = torch.distributions.Normal(model.base_mean, model.base_std)
    density = normal.log_prob(y).flatten(1).sum(1)
    torch.testing.assert_close(nats, density + 64 * math.log(2 / 16))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["annealed", "mala", "hmc", "langevin"])
def test_every_sampler_draws_the_law(sampler):
    num_steps = 80 if sampler == "hmc" else 400
    settings = {"sampler": sampler, "num_steps": num_steps, "step_size": 0.05, "normaliser": "quadrature"}
    model = bent("persistent_cd", size=1.0, **settings)
    axis = torch.linspace(-9, 11, 301)
    x = torch.cartesian_prod(axis, axis)
    p = model.log_likelihood(x, generator=torch.Generator().manual_seed(0)).double().softmax(0)
    mean = p @ x.double()
    second = p @ x.double().square()
    drawn = model.draw(1000, generator=torch.Generator().manual_seed(0))
    values = drawn.x.double()
    bias = 0.03 if sampler == "langevin" else 0.0  # of the step
    for found, truth in ((values, mean), (values.square(), second)):
        error = 4 * found.std(0) / math.sqrt(len(values))
        assert ((found.mean(0) - truth).abs() < error + bias * truth.abs()).all()
    assert 0.3 < drawn.acceptance.mean() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_samples_depend_on_the_generator_alone_where_gradients_are_off(name):
    model = bent(name, num_steps=5, hold=1)
    first = model.sample(4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    with torch.inference_mode():
        again = model.sample(4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first, again)
    assert not torch.equal(first, model.sample(4, generator=torch.Generator().manual_seed(1)))


def test_the_noise_of_training_is_taken_off_as_its_mean_says():
    # Of data N(m, v) with noise sigma the energy is that of N(m, v + sigma^2), the mean m + (x - m) v / (v + sigma^2).
    model = model_of("denoising_score_matching", data_noise=0.5, base_scale=1.0)
    model.prepare(batch_of(VECTORS))
    for parameter in model.net.parameters():
        parameter.data.zero_()
    x, total = torch.randn(5, 2), model.base_std.square()
    expected = model.base_mean + (x - model.base_mean) * (total - 0.25) / total
    torch.testing.assert_close(model.without_noise(x), expected)


def test_quadrature_of_pictures_is_refused():
    model = model_of("persistent_cd", IMAGES, normaliser="quadrature")
    with pytest.raises(SettingError, match="at most 2 dimensions"):
        model.log_likelihood(batch_of(IMAGES).x, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_waveforms_are_refused(name):
    with pytest.raises(SettingError, match="images of integers and vectors of floats"):
        model_of(name, DataSpec(kind="waveform", shape=(1, 16), levels=None))


@pytest.mark.parametrize("name", ["contrastive_divergence", "persistent_cd"])
def test_chains_of_training_leave_no_gradient_and_tune_their_step(name):
    model, batch = model_of(name, chain_steps=5), batch_of(VECTORS)
    model.prepare(batch)
    before = model.step_size.clone()
    found = model.loss(batch, "energy")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.step_size != before
    assert "step_size" in model.state_dict()
    assert 0 < found.parts["acceptance"] <= 1


def test_chains_of_contrastive_divergence_start_at_the_data():
    model, batch = model_of("contrastive_divergence", chain_steps=1), batch_of(VECTORS)
    model.prepare(batch)
    model.step_size.fill_(1e-12)
    found = model.loss(batch, "energy")
    torch.testing.assert_close(found.parts["energy_of_model"], found.parts["energy_of_data"], rtol=1e-3, atol=1e-4)


def test_persistent_chains_go_on_and_are_no_part_of_the_weights():
    model, batch = model_of("persistent_cd", buffer_size=300), batch_of(VECTORS)
    model.prepare(batch)
    before = model.chains.clone()
    model.loss(batch, "energy")
    moved = (model.chains != before).any(1)
    assert 0 < moved.sum() <= 64
    assert not any("chains" in name for name in model.state_dict())
    (off,) = (model.chains.std() / model.base_std,)
    assert off.item() == pytest.approx(1.0, abs=0.15)


def test_a_share_of_the_persistent_chains_starts_again_from_the_base():
    model = model_of("persistent_cd", buffer_size=4000, fresh_share=0.1, chain_steps=1)
    model.prepare(batch_of(VECTORS))
    model.chains.fill_(50.0)  # so far off that no step brings them back
    model.step_size.fill_(1e-12)
    model.loss(batch_of(VECTORS, num=4000), "energy")
    fresh = (model.chains < 40).all(1).double().mean().item()
    assert fresh == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / 4000))


@pytest.mark.parametrize("noise", ["gaussian", "flow"])
def test_the_noise_is_near_the_data(noise):
    model, batch = model_of("noise_contrastive", noise=noise), batch_of(VECTORS, num=512)
    model.prepare(batch)
    drawn = model.noise.draw(4000)
    torch.testing.assert_close(drawn.mean(0), batch.x.mean(0), rtol=0, atol=0.1)
    torch.testing.assert_close(drawn.std(0), batch.x.std(0), rtol=0.1, atol=0)
    normal = torch.distributions.Normal(batch.x.mean(0), batch.x.std(0))
    torch.testing.assert_close(model.noise(batch.x).mean(), normal.log_prob(batch.x).sum(1).mean(), rtol=0.05, atol=0)


@pytest.mark.slow
def test_noise_contrast_learns_the_density_with_its_constant():
    settings = {"noise_ratio": 2, "vector_width": 32, "vector_layers": 2, "lr": 5e-3}
    model = model_of("noise_contrastive", **settings)
    data = Batch(torch.randn(4000, 2) * torch.tensor([0.4, 0.2]) + torch.tensor([1.0, 0.0]))
    train(model, data, samples_seen=256 * 400, seed=0)
    learned = model.log_partition(generator=torch.Generator().manual_seed(0)).value
    exact_model = model
    exact_model.sampling = dataclasses.replace(model.sampling, normaliser="quadrature")
    exact = exact_model.log_partition(generator=torch.Generator().manual_seed(0)).value
    assert learned.item() == pytest.approx(exact.item(), abs=0.05)
    truth = torch.distributions.Normal(torch.tensor([1.0, 0.0]), torch.tensor([0.4, 0.2]))
    x = data.x[:1000]
    gap = (truth.log_prob(x).sum(1) - model.log_likelihood(x, generator=torch.Generator().manual_seed(0))).mean()
    assert abs(gap.item()) < 0.05


def mode_shares(x, means, weights=None):
    """Share of the points (N, 2), or of their weights (N,), that is nearest to each mean."""
    nearest = torch.cdist(x.double(), means).argmin(1)
    weights = torch.full((len(x),), 1.0 / len(x), dtype=torch.float64) if weights is None else weights
    return torch.zeros(len(means), dtype=torch.float64).index_add(0, nearest, weights)


@pytest.mark.slow
def test_chains_from_noise_and_from_the_buffer_agree_with_the_energy_on_every_mode():
    dataset = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    data = dataset.load("train", range(20_000))
    model = model_of("persistent_cd", vector_width=64, buffer_size=1000, normaliser="quadrature")
    train(model, data, samples_seen=256 * 400, seed=0)
    model.eval()
    means = torch.stack([data.x[data.y == k].double().mean(0) for k in range(8)])
    axis = torch.linspace(-4, 4, 301)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        believed = mode_shares(grid, means, (-model.energy(grid).double()).softmax(0))
    chains = (model.draw(1000, generator=torch.Generator().manual_seed(0)).x, model.chains)
    assert believed.min() > 0.03  # the energy is low at every mode
    for found in (mode_shares(points, means) for points in chains):
        assert found.min() > 0.03  # and samples go to each
        assert 0.5 * (found - believed).abs().sum() < 0.15
    half, blocks = 2.4, 10
    law = densities.masses(densities.density_of_model(model, half), half, blocks=blocks)
    from_noise, from_buffer = (densities.shares(points, half, blocks=blocks) for points in chains)
    draws = np.random.default_rng(0).multinomial(1000, law.flatten(), size=100).reshape(-1, blocks, blocks) / 1000
    by_chance = np.mean([densities.apart(draw, law) for draw in draws])  # of draws of the law itself: 0.07
    for visited in (from_noise, from_buffer):
        assert densities.apart(visited, law) < 1.5 * by_chance
        assert densities.unvisited(law, visited) < 0.01  # no low energy without a sample
    assert densities.apart(from_noise, from_buffer) < 1.5 * math.sqrt(2.0) * by_chance


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_training_brings_the_density_near_the_law(name):
    dataset = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    data, held_out = dataset.load("train", range(20_000)), dataset.load("test", range(1000)).x
    torch.manual_seed(0)
    kind = MODELS.get(name)
    model = build_model(kind, dataset.spec, preset="vector", settings={"normaliser": "quadrature"}, owner=name)
    gaps = []
    for steps in (1, 150):
        train(model, data, samples_seen=256 * steps, seed=0)
        nats = model.log_likelihood(held_out, generator=torch.Generator().manual_seed(0))
        gaps.append((dataset.log_density(held_out.double()) - nats.double()).mean().item())
    assert 0 < gaps[1] < 0.5 * gaps[0]
