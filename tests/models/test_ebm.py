import dataclasses

import pytest
import torch
from torch import nn

from genbench.core.dataset import Batch, DataSpec
from genbench.models.ebm.ebm import EBM, contrastive_divergence
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(1, 8, 8), levels=17)


def model_of(spec=SPEC, preset="smoke", num_steps=10, **changes):
    torch.manual_seed(0)
    model = EBM(spec, dataclasses.replace(EBM.presets[preset], **changes))
    model.sampling = dataclasses.replace(model.sampling, num_steps=num_steps)
    return model


def images(num, spec=SPEC, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8)


def draw(model, num=2, seed=0):
    return model.sample(num, generator=torch.Generator().manual_seed(seed))


def gradients(loss, model):
    return torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, list(model.net.parameters()))])


def test_gradient_equals_that_of_the_log_likelihood_where_samples_are_exact():
    # Five images are the whole space, so the partition function is a sum and exact samples can be laid out: stratified
    # draws give each state its probability to within 1/N.
    model, num = model_of(), 400
    space = to_signed(images(5), SPEC.levels)
    energies = 30 * model.energy(space)
    data = torch.tensor([0, 0, 1, 3])
    exact = gradients(-torch.log_softmax(-energies, 0)[data].mean(), model)
    probability = torch.softmax(-energies.detach(), 0)
    rows = torch.searchsorted(probability.cumsum(0), (torch.arange(num) + 0.5) / num).clamp(max=4)
    energies = 30 * model.energy(space)
    contrast = contrastive_divergence(energies[data], energies[rows], energy_weight=0.0)
    slope = max(gradients(30 * model.energy(x).sum(), model).norm() for x in space.split(1))
    assert probability.max() < 0.9
    assert exact.norm() > 10 * slope * 5 / num
    assert (gradients(contrast, model) - exact).norm() <= slope * 5 / num


def test_gradient_of_a_gaussian_energy_equals_that_of_its_likelihood_by_quadrature():
    # E(x) = theta x^2 / 2 has log Z = log(2 pi / theta) / 2: d/dtheta of -log p is (mean of x_data^2 - 1 / theta) / 2.
    theta = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    x_data = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    midpoints = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    x_model = torch.special.ndtri(midpoints) / theta.detach().sqrt()
    loss = contrastive_divergence(theta * x_data**2 / 2, theta * x_model**2 / 2, energy_weight=0.0)
    (slope,) = torch.autograd.grad(loss, theta)
    assert slope.item() == pytest.approx((x_data.square().mean() - 1 / 1.7).item() / 2, abs=1e-4)


def test_squared_energies_hold_both_energies_near_zero():
    e_data, e_model = torch.tensor([1.0, -2.0]), torch.tensor([0.5])
    assert contrastive_divergence(e_data, e_model, energy_weight=0.0).item() == pytest.approx(-0.5 - 0.5)
    assert contrastive_divergence(e_data, e_model, energy_weight=0.3).item() == pytest.approx(-1.0 + 0.3 * 2.75)


def test_training_lowers_the_energy_of_data_below_that_of_noise():
    model = model_of(chain_steps=5, channels=8)
    x = torch.zeros(16, 1, 8, 8, dtype=torch.uint8)
    x[:, :, 2:6, 2:6] = 16
    for _ in range(20):
        loss = model.loss(Batch(x), "energy").total
        slopes = torch.autograd.grad(loss, list(model.net.parameters()))
        for weight, slope in zip(model.net.parameters(), slopes, strict=True):
            weight.data -= 1e-3 * slope.sign()
    noise = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        e_data, e_noise = model.energy(to_signed(x, 17)), model.energy(noise)
    assert e_data.max() < e_noise.min()


def test_chains_leave_no_gradient_on_the_weights_and_advance_the_buffer():
    model = model_of(buffer_size=64)
    before = model.chains.clone()
    model.loss(Batch(images(16)), "energy")
    assert all(parameter.grad is None for parameter in model.parameters())
    moved = (model.chains != before).flatten(1).any(1)
    assert moved.sum() == 16
    assert model.chains.abs().max() <= 1


def test_a_share_of_the_chains_starts_again_from_noise():
    model = model_of(buffer_size=2000, fresh_share=0.05, chain_steps=0)
    model.chains.fill_(7.0)
    model.loss(Batch(images(2000)), "energy")
    fresh = (model.chains != 7.0).flatten(1).all(1).double().mean().item()
    assert fresh == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 2000) ** 0.5)


def test_a_batch_larger_than_the_buffer_is_trained_on():
    loss = model_of(buffer_size=4).loss(Batch(images(16)), "energy")
    assert loss.total.isfinite()


def test_samples_depend_on_the_generator_alone_and_not_on_the_buffer():
    model = model_of().eval()
    first = draw(model)
    model.chains.zero_()
    assert torch.equal(draw(model), first)
    assert not torch.equal(draw(model, seed=1), first)
    assert first.dtype == torch.uint8
    assert first.max() <= 16


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_sampling_works_where_gradients_are_switched_off(mode):
    model = model_of().eval()
    expected = draw(model)
    with mode():
        assert torch.equal(draw(model), expected)


def test_the_network_is_called_once_for_each_step_of_the_chains():
    model, calls = model_of(num_steps=7).eval(), []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    draw(model)
    assert len(calls) == 7


def test_samples_have_less_energy_than_the_noise_they_start_from():
    model = model_of(num_steps=20).eval()
    noise = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    drawn = draw(model, num=16)
    assert (model.energy(to_signed(drawn, 17)) < model.energy(noise)).all()


def test_the_replay_buffer_is_no_part_of_the_weights():
    model = model_of()
    assert not any("chains" in name for name in model.state_dict())
    assert model.chains.shape == (model.config.buffer_size, 1, 8, 8)


def test_the_energy_of_an_image_does_not_depend_on_its_batch():
    model = model_of(spec=DataSpec(shape=(3, 16, 16)), preset="small")
    x = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(model.energy(x), torch.cat([model.energy(row) for row in x.split(1)]))


@pytest.mark.parametrize("side", [8, 16, 28, 32, 64])
@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
def test_every_preset_takes_every_side(preset, side):
    model = model_of(spec=DataSpec(shape=(1, side, side)), preset=preset, channels=4, buffer_size=2)
    assert model.energy(torch.zeros(2, 1, side, side)).shape == (2,)


def test_float_data_are_refused():
    with pytest.raises(ValueError, match="integer images"):
        model_of(spec=DataSpec(shape=(2,), kind="vector", levels=None))


def test_spectral_normalisation_leaves_every_weight_with_a_largest_singular_value_of_one():
    model = model_of(channels=8, spectrally_normalised=True)
    for _ in range(30):
        model.loss(Batch(images(4)), "energy")
    layers = [layer for layer in model.net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    norms = [torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2).item() for layer in layers]
    assert len(norms) == 5
    assert norms == pytest.approx([1.0] * 5, rel=1e-2)


def test_the_spectrally_normalised_energy_trains_every_weight():
    model = model_of(channels=8, spectrally_normalised=True)
    model.loss(Batch(images(4)), "energy").total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
