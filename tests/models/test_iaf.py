"""Gradients of the density against those through as many passes as there are dimensions, and MAF as its mirror."""

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.models.flow.iaf import IAF, InverseAutoregressive
from genbench.models.flow.maf import MAF
from genbench.nn.autoregressive_flow import Autoregressive
from genbench.nn.elementwise_maps import Standardise
from genbench.nn.made import MADE


def layer_of(num_dims: int, *, std: float = 0.4) -> InverseAutoregressive:
    torch.manual_seed(num_dims)
    layer = InverseAutoregressive(num_dims, width=12, num_layers=2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=std)
    return layer


def batch(num_dims: int, count: int = 6) -> Tensor:
    return torch.randn(count, num_dims, generator=Generator().manual_seed(1), dtype=torch.float64)


def by_passes(layer: InverseAutoregressive, x: Tensor) -> tuple[Tensor, Tensor]:
    """The same by D differentiable passes through the network."""
    z = torch.zeros_like(x)
    for _ in range(x.shape[1]):
        raw = layer.parameters_for(z)
        z = (x - raw[:, 1]) * (-5.0 * (raw[:, 0] / 5.0).tanh()).exp()
    return z, -(5.0 * (layer.parameters_for(z)[:, 0] / 5.0).tanh()).sum(1)


@pytest.mark.parametrize("num_dims", [1, 2, 5, 20])
def test_gradients_are_those_of_as_many_passes_as_dimensions(num_dims):
    layer, x = layer_of(num_dims), batch(num_dims).requires_grad_()
    weights = [x, *layer.parameters()]
    values, gradients = [], []
    for z, log_det in (layer(x), by_passes(layer, x)):
        value = (z.sin().sum(1) + log_det).square().sum()  # any function of both
        values.append(value)
        gradients.append(torch.autograd.grad(value, weights, allow_unused=True))
    torch.testing.assert_close(values[0], values[1])
    for found, expected in zip(*gradients, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_gradients_pass_through_a_stack_of_layers():
    model = IAF(DataSpec(kind="vector", shape=(4,), levels=None), IAF.Config(num_flows=3, width=12)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = batch(4)
    model.density_of(x).sum().backward()
    for parameter in model.parameters():
        with torch.no_grad():
            index = int(parameter.grad.abs().argmax())
            kept, width, values = parameter.view(-1)[index].item(), 1e-6, []
            for sign in (1.0, -1.0):
                parameter.view(-1)[index] = kept + sign * width
                values.append(model.density_of(x).sum().item())
            parameter.view(-1)[index] = kept
        slope = (values[0] - values[1]) / (2.0 * width)
        assert parameter.grad.view(-1)[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_it_is_the_mirror_of_a_masked_autoregressive_flow_with_its_weights():
    """One network: MAF writes from what it has written, IAF from the noise; reading costs the other way round."""
    iaf = layer_of(5)
    maf = Autoregressive(5, Standardise(), width=12, num_layers=2).double()
    maf.load_state_dict({f"made.{k}": v for k, v in iaf.made.state_dict().items()})
    u = batch(5)
    with torch.no_grad():
        x = maf.inverse(u)  # x_i = t_i(x_<i) + exp(s_i(x_<i)) u_i, D steps
        back, log_det = maf(x)
        torch.testing.assert_close(back, u, rtol=0, atol=1e-12)
        data = iaf.inverse(u)  # t_i and s_i of u_<i, one pass
        found, iaf_log_det = iaf(data)
        torch.testing.assert_close(found, u, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            iaf_log_det, -(5.0 * (iaf.parameters_for(u)[:, 0] / 5.0).tanh()).sum(1), rtol=0, atol=1e-12
        )
        torch.testing.assert_close(log_det, -(5.0 * (maf.made(x)[:, 0] / 5.0).tanh()).sum(1), rtol=0, atol=1e-12)
        torch.testing.assert_close(data[:, 0], x[:, 0], rtol=0, atol=1e-12)  # nothing stands before the first


def test_without_gradients_no_graph_is_made():
    layer, x = layer_of(4), batch(4)
    with torch.no_grad():
        z, log_det = layer(x)
    assert not z.requires_grad
    assert not log_det.requires_grad
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert not layer(x)[0].requires_grad


def test_densities_of_data_that_would_never_be_drawn_are_finite():
    """Noise can grow from dimension to dimension; what networks see of it is bounded."""
    model = IAF(DataSpec(shape=(1, 16, 16)), IAF.presets["smoke"])
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8, generator=Generator().manual_seed(0))
    assert model.log_likelihood(x, generator=Generator().manual_seed(0)).isfinite().all()


@pytest.mark.parametrize(("kind", "reads"), [(MAF, "passes"), (IAF, "steps")])
def test_one_flow_reads_in_a_pass_and_writes_in_as_many_steps_as_dimensions_and_the_other_the_reverse(kind, reads):
    """Calls of whole masked networks, and of the rows of their last layer for one dimension alone."""
    model = kind(DataSpec(kind="vector", shape=(5,), levels=None), kind.Config(num_flows=3, width=12))
    counted = {"passes": 0, "steps": 0}

    def count(what: str) -> None:
        counted[what] += 1

    for made in (part for part in model.modules() if isinstance(part, MADE)):
        made.register_forward_hook(lambda *_: count("passes"))
        rows = made.head.rows
        made.head.rows = lambda x, which, rows=rows: (count("steps"), rows(x, which))[1]
    model.log_likelihood(batch(5).float(), generator=Generator())
    after_reading = dict(counted)
    model.sample(6, generator=Generator().manual_seed(0))
    after_writing = {what: counted[what] - after_reading[what] for what in counted}
    one_pass, by_steps = (after_reading, after_writing) if reads == "passes" else (after_writing, after_reading)
    assert one_pass == {"passes": 3, "steps": 0}
    assert by_steps["steps"] == 3 * 5
