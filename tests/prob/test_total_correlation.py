"""Estimators of total correlation, against Gaussians whose parts are known and against full enumeration."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from genbench.prob import gaussian
from genbench.prob.total_correlation import (
    decompose,
    discrimination_loss,
    pairwise_log_prob,
    permuted,
    stratified_aggregate,
    weighted_aggregate,
)

RHO = 0.8
EXACT = -0.5 * math.log(1.0 - RHO**2)  # 0.511 nats


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _pairs(num: int, rho: float, *, seed: int = 0) -> torch.Tensor:
    """Draws of a standard Gaussian pair with correlation rho: (num, 2) float64."""
    a, b = torch.randn(2, num, dtype=torch.float64, generator=_generator(seed))
    return torch.stack([a, rho * a + math.sqrt(1.0 - rho**2) * b], dim=1)


class Population:
    """N posteriors of one width whose means are correlated, so that all codes together are nearly Gaussian."""

    def __init__(self, num: int, *, rho: float, sigma: float = 0.5) -> None:
        self.mu = _pairs(num, rho) * math.sqrt(1.0 - sigma**2)
        self.log_sigma = torch.full_like(self.mu, math.log(sigma))
        self.z = gaussian.reparameterised(self.mu, self.log_sigma, generator=_generator(1))
        self.sigma = sigma
        self.rho = rho * (1.0 - sigma**2)  # of the codes, whose variances are 1

    def log_q(self) -> torch.Tensor:
        return pairwise_log_prob(self.z, self.mu, self.log_sigma)


def _exact_density(z: torch.Tensor, population: Population) -> torch.Tensor:
    """Log of 1/N sum_n q(z|x_n), one posterior at a time."""
    variance = population.sigma**2
    densities = [
        torch.exp(-0.5 * (z - mu).square().sum(1) / variance) / (2.0 * math.pi * variance) for mu in population.mu
    ]
    return torch.stack(densities).mean(0).log()


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_parts_of_a_gaussian_population_are_its_closed_forms(rho):
    population = Population(1000, rho=rho)
    aggregate = stratified_aggregate(population.log_q(), dataset_size=1000)
    parts = decompose(population.z, population.mu, population.log_sigma, aggregate=aggregate)
    covariance = torch.tensor([[1.0, population.rho], [population.rho, 1.0]], dtype=torch.float64)
    exact = (
        0.5 * torch.logdet(covariance) - 2 * math.log(population.sigma),
        -0.5 * torch.logdet(covariance),
        torch.tensor(0.0),
    )
    for found, expected in zip(parts, exact, strict=True):
        spread = found.std().item() / math.sqrt(1000)
        assert found.mean().item() == pytest.approx(expected.item(), abs=4 * spread + 0.005)  # of the few posteriors


def test_codes_with_independent_dimensions_have_almost_no_total_correlation():
    population = Population(1000, rho=0.0)
    found = stratified_aggregate(population.log_q(), dataset_size=1000).total_correlation().mean().item()
    assert found == pytest.approx(0.0, abs=0.01)


def test_a_batch_that_is_the_whole_dataset_gives_the_exact_density():
    population = Population(50, rho=0.8)
    aggregate = stratified_aggregate(population.log_q(), dataset_size=50)
    torch.testing.assert_close(aggregate.joint, _exact_density(population.z, population))


def test_weighting_lies_a_known_shift_from_the_exact_density():
    population = Population(50, rho=0.8)
    weighted = weighted_aggregate(population.log_q(), dataset_size=50)
    exact = stratified_aggregate(population.log_q(), dataset_size=50)
    torch.testing.assert_close(weighted.joint, exact.joint - math.log(50))
    torch.testing.assert_close(weighted.marginals, exact.marginals - math.log(50))
    torch.testing.assert_close(weighted.total_correlation(), exact.total_correlation() + math.log(50))


def test_stratification_is_unbiased_over_all_batches_for_densities():
    """Every batch of four that holds example 0, out of a dataset of nine."""
    population = Population(9, rho=0.8)
    batches = [torch.tensor([0, *others]) for others in itertools.combinations(range(1, 9), 3)]
    found = [stratified_aggregate(population.log_q()[b][:, b], dataset_size=9) for b in batches]
    exact = stratified_aggregate(population.log_q(), dataset_size=9)
    for part in ("joint", "marginals"):
        mean = torch.stack([getattr(aggregate, part)[0].exp() for aggregate in found]).mean(0)
        torch.testing.assert_close(mean, getattr(exact, part)[0].exp(), rtol=1e-12, atol=0)


def test_stratified_weights_are_the_mean_of_the_papers_over_its_odd_example():
    """1/N for the own example, (N - M)/(N M) for one other and 1/M for the rest, with M others in the batch."""
    population, N, M = Population(5, rho=0.8), 40, 4
    q = population.log_q().sum(2).exp()[0]
    papers = []
    for odd in range(1, 5):
        weights = torch.full((5,), 1.0 / M, dtype=torch.float64)
        weights[0], weights[odd] = 1.0 / N, (N - M) / (N * M)
        assert weights.sum().item() == pytest.approx(1.0)
        papers.append((weights * q).sum())
    found = stratified_aggregate(population.log_q(), dataset_size=N).joint[0]
    torch.testing.assert_close(found.exp(), torch.stack(papers).mean(), rtol=1e-12, atol=0)


def test_the_size_of_the_dataset_shifts_the_weighted_estimate_and_not_its_gradient():
    gradients = []
    for dataset_size in (10, 1_000_000):
        population = Population(10, rho=0.8)
        population.mu.requires_grad_()
        weighted_aggregate(population.log_q(), dataset_size=dataset_size).total_correlation().mean().backward()
        gradients.append(population.mu.grad)
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)
    assert bool(gradients[0].abs().max() > 1e-3)


@pytest.mark.parametrize("estimate", [weighted_aggregate, stratified_aggregate])
def test_the_parts_add_up_to_the_analytic_divergence_in_the_mean(estimate):
    mu, log_sigma = torch.randn(2, 6, 3, dtype=torch.float64, generator=_generator(2)) * 0.5
    sums = []
    for seed in range(400):
        z = gaussian.reparameterised(mu, log_sigma, generator=_generator(seed))
        aggregate = estimate(pairwise_log_prob(z, mu, log_sigma), dataset_size=100)
        sums.append(sum(part.mean() for part in decompose(z, mu, log_sigma, aggregate=aggregate)))
    found, spread = torch.stack(sums).mean(), torch.stack(sums).std() / math.sqrt(400)
    exact = gaussian.kl_to_standard(mu, log_sigma).sum(1).mean()
    assert abs(found - exact) < 4 * spread
    assert spread < 0.05 * exact


def test_every_parameter_of_a_small_batch_gets_a_finite_gradient_far_out_in_the_tails():
    mu = torch.tensor([[-40.0, 40.0], [40.0, -40.0]], requires_grad=True)
    log_sigma = torch.full((2, 2), -5.0, requires_grad=True)
    z = gaussian.reparameterised(mu, log_sigma, generator=_generator())
    for estimate in (weighted_aggregate, stratified_aggregate):
        mu.grad = log_sigma.grad = None
        found = estimate(pairwise_log_prob(z, mu, log_sigma), dataset_size=2).total_correlation().mean()
        found.backward(retain_graph=True)
        assert found.isfinite()
        assert mu.grad.isfinite().all()
        assert log_sigma.grad.isfinite().all()


@pytest.mark.parametrize(("num_draws", "num_examples", "dataset_size"), [(3, 4, 10), (1, 1, 10), (4, 4, 3)])
def test_stratification_refuses_what_is_no_batch_of_the_dataset(num_draws, num_examples, dataset_size):
    with pytest.raises(ValueError, match="one draw for each"):
        stratified_aggregate(torch.zeros(num_draws, num_examples, 2), dataset_size=dataset_size)


def test_permuting_keeps_every_dimension_and_breaks_their_dependence():
    z = _pairs(8000, 0.8)
    mixed = permuted(z, generator=_generator())
    torch.testing.assert_close(mixed.sort(0)[0], z.sort(0)[0], rtol=0, atol=0)
    assert torch.corrcoef(z.T)[0, 1].item() == pytest.approx(0.8, abs=0.02)
    assert torch.corrcoef(mixed.T)[0, 1].item() == pytest.approx(0.0, abs=0.05)


def test_permutations_come_from_the_generator_or_the_global_stream():
    z = _pairs(100, 0.8)
    assert torch.equal(permuted(z, generator=_generator(3)), permuted(z, generator=_generator(3)))
    torch.manual_seed(5)
    first = permuted(z)
    assert not torch.equal(first, permuted(z))
    torch.manual_seed(5)
    assert torch.equal(first, permuted(z))


def test_the_discriminators_loss_is_a_mean_of_cross_entropies():
    logits, others = torch.randn(2, 50, dtype=torch.float64, generator=_generator())
    targets = torch.cat([torch.ones(50), torch.zeros(50)]).double()
    expected = F.binary_cross_entropy_with_logits(torch.cat([logits, others]), targets)
    torch.testing.assert_close(discrimination_loss(logits, others), expected)
    blind = torch.zeros(7, dtype=torch.float64)
    assert discrimination_loss(blind, blind).item() == pytest.approx(math.log(2.0), rel=1e-15)


def _newton(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Weights of the logistic regression of y (M,) on x (M, F)."""
    w = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(12):
        p = torch.sigmoid(x @ w)
        w = w - torch.linalg.solve((x.T * (p * (1.0 - p))) @ x, x.T @ (p - y))
    return w


@pytest.mark.parametrize(("rho", "exact"), [(RHO, EXACT), (0.0, 0.0)])
def test_the_best_quadratic_discriminator_has_the_total_correlation_as_its_mean_logit(rho, exact):
    """The log-ratio of the two Gaussians is a quadratic form, so this discriminator can be perfect."""
    z = _pairs(8000, rho)
    codes = torch.cat([z, permuted(z, generator=_generator(1))])
    a, b = codes.T
    x = torch.stack([torch.ones_like(a), a * a, b * b, a * b], 1)
    w = _newton(x, (torch.arange(16_000) < 8000).double()).requires_grad_()
    logits, others = (x @ w).chunk(2)
    discrimination_loss(logits, others).backward()
    assert w.grad.abs().max().item() < 1e-10  # the loss has its least where the regression has
    assert logits.mean().item() == pytest.approx(exact, abs=0.03)
    assert w[3].item() == pytest.approx(rho / (1.0 - rho**2), abs=0.1)  # of the exact log-ratio
