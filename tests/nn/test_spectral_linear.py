import torch

from genbench.nn.spectral_linear import SpectralLinear


def norm_of(weight):
    return torch.linalg.matrix_norm(weight.detach().double(), 2)


def layer_of(inputs=24, outputs=16, seed=0):
    torch.manual_seed(seed)
    return SpectralLinear(inputs, outputs)


def test_the_spectral_norm_is_that_of_the_start_whatever_training_does_to_the_weight():
    layer = layer_of()
    first = norm_of(layer.weight)
    torch.testing.assert_close(norm_of(layer.normalised()), first, rtol=1e-3, atol=0)
    with torch.no_grad():
        layer.weight.copy_(7 * torch.randn(16, 24))
    for _ in range(200):
        layer(torch.randn(2, 24))
    assert norm_of(layer.weight) > 10 * first
    torch.testing.assert_close(norm_of(layer.normalised()), first, rtol=1e-3, atol=0)


def test_a_scaled_weight_is_the_same_layer():
    layer, x = layer_of().eval(), torch.randn(5, 24)
    before = layer(x)
    layer.weight.data.mul_(3.0)
    torch.testing.assert_close(layer(x), before)


def test_gradient_is_that_of_the_weight_over_its_exact_norm():
    torch.manual_seed(0)
    layer = SpectralLinear(6, 5).double()
    for _ in range(500):
        layer.normalised()
    x, target = torch.randn(2, 7, 6, dtype=torch.float64)[0], torch.randn(7, 5, dtype=torch.float64)
    (layer(x) * target).sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    exact = layer.first_norm * weight / torch.linalg.matrix_norm(weight, 2)
    (torch.nn.functional.linear(x, exact) * target).sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad)


def test_evaluation_leaves_the_power_iteration_where_it_was():
    layer = layer_of().eval()
    before = layer.u.clone()
    layer(torch.randn(3, 24))
    assert torch.equal(layer.u, before)
    layer.train()(torch.randn(3, 24))
    assert not torch.equal(layer.u, before)


def test_two_passes_before_one_backward_do_not_disturb_each_other():
    layer, x = layer_of(), torch.randn(3, 24)
    (layer(x).sum() + layer(-2 * x).sum()).backward()
    assert layer.weight.grad.isfinite().all()
