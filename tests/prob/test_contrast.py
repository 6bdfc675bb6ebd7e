"""Contrastive divergence against the exact gradient, on energies of three spins whose every state is known."""

import itertools

import pytest
import torch

from genbench.prob.contrast import contrast

STATES = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)  # (8, 3)
DATA = torch.tensor([0, 0, 3, 5, 7])


def parameters():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, generator=generator, dtype=torch.float64).mul(0.5).requires_grad_()


def energies(theta):
    """A Boltzmann machine: three fields, three couplings."""
    x = STATES
    pairs = torch.stack([x[:, 0] * x[:, 1], x[:, 1] * x[:, 2], x[:, 0] * x[:, 2]], dim=1)
    return -torch.cat([x, pairs], dim=1) @ theta


def exact_gradient(theta):
    log_p = torch.log_softmax(-energies(theta), 0)
    return torch.autograd.grad(-log_p[DATA].mean(), theta)[0]


def gibbs_kernel(theta):
    """(8, 8): flip one spin of three, chosen at random, by its conditional law."""
    e = energies(theta).detach()
    kernel = torch.zeros(8, 8, dtype=torch.float64)
    for i, spin in itertools.product(range(8), range(3)):
        flipped = STATES[i].clone()
        flipped[spin] *= -1
        j = int((flipped == STATES).all(1).nonzero())
        share = torch.sigmoid(e[i] - e[j])
        kernel[i, j] += share / 3
        kernel[i, i] += (1 - share) / 3
    return kernel


def gradient(theta, law_of_model, law_of_data=None):
    """Mean gradient of the contrast over every pair of states, each as likely as the two laws (8,) say."""
    e = energies(theta)
    law_of_data = torch.bincount(DATA, minlength=8).double() / len(DATA) if law_of_data is None else law_of_data
    pairs = itertools.product(enumerate(law_of_data), enumerate(law_of_model))
    total = sum(p * q * contrast(e[i : i + 1], e[j : j + 1]) for (i, p), (j, q) in pairs)
    return torch.autograd.grad(total, theta)[0]


def test_with_the_law_of_the_model_it_is_the_exact_gradient():
    theta = parameters()
    p = torch.softmax(-energies(theta).detach(), 0)
    torch.testing.assert_close(gradient(theta, p), exact_gradient(theta))


def test_k_steps_from_the_data_come_to_the_exact_gradient_as_k_grows():
    theta = parameters()
    exact, kernel = exact_gradient(theta), gibbs_kernel(theta)
    p = torch.softmax(-energies(theta).detach(), 0)
    torch.testing.assert_close(p @ kernel, p)  # the chain keeps the law of the model
    start = torch.bincount(DATA, minlength=8).double() / len(DATA)
    off = []
    for k in (0, 1, 5, 25, 200):
        law = start @ torch.linalg.matrix_power(kernel, k)
        off.append((gradient(theta, law) - exact).norm().item())
    assert off == sorted(off, reverse=True)
    assert off[1] > 1e-2  # one step is not the gradient
    assert off[-1] < 1e-10


def test_where_the_model_is_the_data_any_number_of_steps_has_no_gradient():
    theta = parameters()
    p = torch.softmax(-energies(theta).detach(), 0)
    slope = gradient(theta, p @ gibbs_kernel(theta), law_of_data=p)
    assert slope.abs().max() < 1e-12
    assert gradient(theta, p @ gibbs_kernel(parameters() + 1.0), law_of_data=p).abs().max() > 1e-3


def test_samples_stand_for_the_law_they_come_from():
    theta = parameters()
    p = torch.softmax(-energies(theta).detach(), 0)
    rows = torch.searchsorted(p.cumsum(0), (torch.arange(4000) + 0.5) / 4000).clamp(max=7)  # stratified
    e = energies(theta)
    (slope,) = torch.autograd.grad(contrast(e[DATA], e[rows]), theta)
    assert (slope - exact_gradient(theta)).abs().max().item() == pytest.approx(0.0, abs=8 * 2 / 4000)
