import pytest
import torch

from genbench.nn.time_mlp import TimeBlock, TimeMLP


def network(**changes):
    torch.manual_seed(0)
    net = TimeMLP(**{"in_dim": 3, "out_dim": 2, "width": 16, "num_blocks": 2} | changes).double()
    for layer in (net.out, *(block.out for block in net.blocks)):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return net


def given(count=5):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return x, torch.rand(count, generator=generator, dtype=torch.float64)


def test_a_new_network_is_zero_and_a_new_block_the_identity():
    x, t = (a.float() for a in given())
    assert TimeMLP(3, 2, width=16, num_blocks=2)(x, t).abs().max() == 0.0
    h, embedding = torch.randn(5, 8), torch.randn(5, 4)
    assert torch.equal(TimeBlock(8, 4)(h, embedding), h)


def test_outputs_have_their_own_size_and_depend_on_time_and_condition():
    net, (x, t) = network(), given()
    out = net(x, t)
    assert out.shape == (5, 2)
    assert ((net(x, t + 0.5) - out).abs().amax(1) > 1e-3).all()
    condition = torch.randn(5, net.embedding_dim, dtype=torch.float64)
    assert ((net(x, t, condition) - out).abs().amax(1) > 1e-3).all()
    assert torch.equal(net(x, t, torch.zeros_like(condition)), out)


def test_examples_do_not_see_each_other():
    net, (x, t) = network(), given()
    torch.testing.assert_close(net(x, t)[2:3], net(x[2:3], t[2:3]))


def test_every_parameter_has_a_gradient():
    net, (x, t) = network(), given()
    net(x, t).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")  # torch calls it itself
def test_forward_derivatives_are_those_of_differences():
    net, (x, t) = network(), given()
    direction, width = torch.randn_like(x), 1e-6
    _, found = torch.func.jvp(net, (x, t), (direction, torch.ones_like(t)))
    ahead, behind = net(x + width * direction, t + width), net(x - width * direction, t - width)
    torch.testing.assert_close(found, (ahead - behind) / (2 * width), rtol=1e-6, atol=1e-7)
