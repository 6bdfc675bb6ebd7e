import dataclasses
import math

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.models.flow.tarflow import Patches, TarFlow, TransformerFlow
from genbench.prob.dequantization import bin_centres

TINY = TarFlow.Config(num_flows=2, num_layers=2, width=8, num_heads=2)
IMAGES = DataSpec(shape=(1, 4, 4))


def moved(spec: DataSpec = IMAGES, **changes: object) -> TarFlow:
    torch.manual_seed(0)
    model = TarFlow(spec, dataclasses.replace(TINY, **changes)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def integers(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8, generator=Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("shape", "patch", "size"), [((3, 4, 6), 2, (6, 12)), ((2, 4, 4), 1, (16, 2)), ((5,), 1, (5, 1))]
)
def test_patches_are_rows_of_squares_and_come_back(shape, patch, size):
    patches = Patches(shape, patch)
    x = torch.randn(3, *shape)
    y, log_det = patches(x)
    assert y.shape == (3, *size)
    assert patches.size() == size
    assert log_det == 0.0
    assert torch.equal(patches.inverse(y), x)
    if len(shape) == 3:
        side = shape[2] // patch
        second = x[:, :, :patch, patch : 2 * patch] if side > 1 else None
        assert torch.equal(y[:, 1].sort(1).values, second.flatten(1).sort(1).values)


def test_a_patch_sees_those_before_it_and_the_first_none():
    torch.manual_seed(0)
    flow = TransformerFlow(5, 2, width=8, num_layers=2, num_heads=2).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(5, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda row: flow(row[None])[0][0], x)  # (5, 2, 5, 2)
    touched = (jacobian != 0).any(3).any(1)
    assert torch.equal(touched, torch.ones(5, 5, dtype=torch.bool).tril())
    assert torch.equal(flow(x[None])[0][:, 0], x[None, 0])


def test_kept_keys_and_values_give_what_whole_passes_give():
    torch.manual_seed(0)
    flow = TransformerFlow(6, 3, width=16, num_layers=2, num_heads=4).double()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    u = torch.randn(4, 6, 3, dtype=torch.float64)
    x = u.clone()
    with torch.no_grad():
        for i in range(1, 6):  # x_i = u_i exp(s_i) + t_i, where u = (x - t) exp(-s) of a pass whose x_i is 0 and 1
            zero, one = x.clone(), x.clone()
            zero[:, i], one[:, i] = 0.0, 1.0
            low, high = flow(zero)[0][:, i], flow(one)[0][:, i]  # -t exp(-s), (1 - t) exp(-s)
            x[:, i] = (u[:, i] - low) / (high - low)
    torch.testing.assert_close(flow.inverse(u), x, rtol=1e-10, atol=1e-10)


def test_the_noise_of_training_is_gaussian_on_the_scale_of_minus_one_to_one():
    model, x = moved(noise="gaussian", sigma=0.3), integers(64)
    torch.manual_seed(1)
    loss = model.loss(Batch(x), "flow").total.item()
    torch.manual_seed(1)
    h = 2.0 * bin_centres(x, 256) - 1.0 + 0.3 * torch.randn(64, 1, 4, 4)
    with torch.no_grad():
        z, log_det = model.flow(h)
    nats = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det + 16 * math.log(2.0) - 16 * math.log(256)
    assert loss == pytest.approx(-nats.mean().item() / (16 * math.log(2.0)), rel=1e-4)


def test_denoising_moves_points_by_the_variance_times_the_score():
    """A flow that is the identity says N(0, I), whose posterior mean under noise of its own is known."""
    model = TarFlow(IMAGES, dataclasses.replace(TINY, noise="gaussian", sigma=0.4)).double()
    h = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    found = 2.0 * model.denoised(0.5 * (h + 1.0)) - 1.0
    torch.testing.assert_close(found, (1.0 - 0.16) * h, rtol=0, atol=1e-12)


def test_denoising_a_flow_away_from_its_start_is_tweedies_formula_on_its_scale():
    model = moved(noise="gaussian", sigma=0.4).double()
    h = torch.randn(3, 1, 4, 4, dtype=torch.float64).requires_grad_()
    z, log_det = model.flow(h)
    log_density = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) + log_det
    (score,) = torch.autograd.grad(log_density.sum(), h)
    found = 2.0 * model.denoised((0.5 * (h + 1.0)).detach()) - 1.0
    torch.testing.assert_close(found, h.detach() + 0.16 * score, rtol=0, atol=1e-10)


def test_samples_are_denoised_where_noise_was_gaussian_and_it_is_asked_for():
    drawn = {}
    for noise, denoise in (("gaussian", True), ("gaussian", False), ("uniform", True)):
        model = moved(noise=noise, denoise=denoise, sigma=0.4)
        drawn[noise, denoise] = model.sample(8, generator=Generator().manual_seed(0))
    assert torch.equal(drawn["gaussian", False], drawn["uniform", True])
    assert not torch.equal(drawn["gaussian", True], drawn["gaussian", False])


def test_the_paper_preset_has_the_papers_network_and_optimiser():
    config = TarFlow.presets["paper"]
    assert (config.patch, config.num_flows, config.num_layers, config.width) == (2, 8, 8, 768)
    (phase,) = moved().phases()
    (player,) = phase.players
    assert (config.lr, config.batch_size, player.betas, player.weight_decay) == (1e-4, 256, (0.9, 0.95), 1e-4)
