import pytest
import torch

from genbench.nn.vector_flow import VectorFlow


def flow(num_dims=2, *, num_couplings=4):
    """With weights that are no longer those of the identity."""
    torch.manual_seed(0)
    made = VectorFlow(num_dims, width=16, num_couplings=num_couplings).double()
    for parameter in made.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return made


def test_the_density_integrates_to_one():
    made, normal = flow(), torch.distributions.Normal(0.0, 1.0)
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    with torch.no_grad():
        z, log_det = made(torch.cartesian_prod(axis, axis))
        density = (normal.log_prob(z).sum(1) + log_det).exp().view(601, 601)
    mass = torch.trapezoid(torch.trapezoid(density, axis), axis).item()
    assert mass == pytest.approx(1.0, abs=1e-3)


def test_the_log_determinant_is_that_of_the_jacobian():
    made, x = flow(3), torch.randn(1, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: made(x)[0], x).reshape(3, 3)
    torch.testing.assert_close(made(x)[1], torch.linalg.slogdet(jacobian).logabsdet[None])


def test_the_inverse_is_the_way_back():
    made, x = flow(3), torch.randn(50, 3, dtype=torch.float64)
    torch.testing.assert_close(made.inverse(made(x)[0]), x, rtol=0, atol=1e-10)
    torch.testing.assert_close(made(made.inverse(x))[0], x, rtol=0, atol=1e-10)


def test_after_initialisation_latents_are_standardised():
    torch.manual_seed(0)
    made = VectorFlow(2, width=8, num_couplings=2)
    x = torch.randn(500, 2) * torch.tensor([2.0, 0.5]) + 1.0
    made.initialise(x)
    z, log_det = made(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2), rtol=1e-4, atol=0)
    expected = -x.std(0, correction=0).log().sum()  # the conditioners start from nothing
    torch.testing.assert_close(log_det, expected.expand(500), rtol=1e-4, atol=1e-4)


def test_every_coordinate_is_changed_by_two_couplings():
    made, x = flow(5, num_couplings=2), torch.zeros(1, 5, dtype=torch.float64)
    assert (made.couplings[1](made.couplings[0](x)[0])[0] != 0).all()
