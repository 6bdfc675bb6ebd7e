"""Annealed importance sampling against partition functions in closed form."""

import itertools
import math

import pytest
import torch
from metropolis_laws import NothingIsReadBack

from genbench.prob.log_mean import log_mean_exp
from genbench.samplers.annealed_importance import annealed, annealed_importance, first_step_of, path
from genbench.samplers.mala import BEST_ACCEPTANCE

LOG_Z = math.log(7.0)
"""Of the target below."""
MEANS = torch.tensor([[1.5, 0.0], [-1.5, 0.5]], dtype=torch.float64)
SHARES = torch.tensor([0.3, 0.7], dtype=torch.float64)
STD = 0.3
BASE_STD = 2.0


def base(x):
    """Energy of N(0, 4 I) with its constant, so that its partition function is 1."""
    return 0.5 * (x / BASE_STD).square().sum(1) + 2 * math.log(BASE_STD * math.sqrt(2 * math.pi))


def target(x):
    """-log of seven times the density of two narrow Gaussians far apart."""
    square = (x[:, None] - MEANS).square().sum(2) / STD**2
    log_density = torch.logsumexp(SHARES.log() - 0.5 * square, 1) - 2 * math.log(STD * math.sqrt(2 * math.pi))
    return -log_density - LOG_Z


def base_draws(num, generator):
    return BASE_STD * torch.randn(num, 2, generator=generator, dtype=torch.float64)


def target_draws(num, generator):
    piece = (torch.rand(num, generator=generator, dtype=torch.float64) > SHARES[0]).long()
    return MEANS[piece] + STD * torch.randn(num, 2, generator=generator, dtype=torch.float64)


def steps_for(betas, generator):
    x = base_draws(200, generator)
    return annealed(base, target, x, betas=betas, first_step=1.0, generator=generator).step_sizes


def weights(num, num_steps, *, seed=0, moves=1):
    generator = torch.Generator().manual_seed(seed)
    betas = path(num_steps)
    return annealed_importance(
        base,
        target,
        base_draws(num, generator),
        betas=betas,
        step_sizes=steps_for(betas, generator),
        moves=moves,
        generator=generator,
    )


def test_a_known_partition_function_lies_in_the_interval():
    found = log_mean_exp(weights(500, 200).log_weights)
    assert found.low < LOG_Z < found.high
    assert found.high - found.low < 0.5
    assert found.effective > 100


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_says():
    runs = [log_mean_exp(weights(200, 60, seed=seed).log_weights) for seed in range(40)]
    inside = sum(bool(run.low < LOG_Z < run.high) for run in runs)
    assert inside >= 34  # of 40 at 95 %; fewer has a chance of 1 in 300


def test_the_mean_of_the_weights_is_without_bias_on_the_roughest_path():
    found = weights(40_000, 3).log_weights
    w = (found - LOG_Z).exp()
    assert w.mean().item() == pytest.approx(1.0, abs=4 * w.std().item() / math.sqrt(len(w)))
    assert w.std() > 1  # rough indeed


def test_few_chains_on_a_rough_path_are_too_low_in_the_mean_and_rarely_far_too_high():
    logs = torch.logsumexp(weights(8000, 4).log_weights.view(1000, 8), 1) - math.log(8)
    assert logs.mean() < LOG_Z - 4 * logs.std() / math.sqrt(1000)
    assert (logs > LOG_Z + math.log(10.0)).double().mean() < 0.1  # Markov's inequality


def test_the_way_back_from_exact_draws_bounds_from_above():
    generator = torch.Generator().manual_seed(3)
    betas = path(4)
    backward = tuple(1.0 - beta for beta in reversed(betas))
    sizes = steps_for(betas, generator)
    back = torch.cat([sizes[:-1].flip(0), torch.ones(1, dtype=torch.float64)])
    found = annealed_importance(
        target, base, target_draws(8000, generator), betas=backward, step_sizes=back, generator=generator
    ).log_weights
    logs = -(torch.logsumexp(found.view(1000, 8), 1) - math.log(8))
    assert logs.mean() > LOG_Z + 4 * logs.std() / math.sqrt(1000)


def test_the_same_law_at_both_ends_has_weights_of_one():
    generator = torch.Generator().manual_seed(0)
    found = annealed_importance(
        base, base, base_draws(20, generator), betas=path(5), step_sizes=torch.ones(5), generator=generator
    )
    assert found.log_weights.abs().max() < 1e-12


def test_a_path_of_one_step_is_importance_sampling():
    x = base_draws(50, torch.Generator().manual_seed(0))
    found = annealed_importance(base, target, x, betas=path(1), step_sizes=torch.ones(1), generator=None)
    torch.testing.assert_close(found.log_weights, base(x) - target(x))


def test_annealed_chains_reach_every_mode_and_have_its_width():
    # Where the path parts the modes their masses are nearer each other than at its end: 0.3 is not the share found.
    generator = torch.Generator().manual_seed(1)
    found = annealed(
        base, target, base_draws(4000, generator), betas=path(200, hold=50), first_step=1.0, generator=generator
    )
    on_the_right = found.x[:, 0] > 0
    assert SHARES[0] + 0.05 < on_the_right.double().mean() < 0.5
    near = found.x[on_the_right] - MEANS[0]
    assert near.std().item() == pytest.approx(STD, rel=0.1)


def test_weights_give_modes_far_apart_their_shares():
    found = weights(4000, 200, seed=1)
    w = found.log_weights.softmax(0)
    on_the_right = (found.x[:, 0] > 0).double()
    share = (w @ on_the_right).item()
    error = (w.square() @ (on_the_right - share).square()).sqrt().item()
    assert share == pytest.approx(SHARES[0].item(), abs=4 * error)
    assert on_the_right.mean() - share > 4 * error  # the weights are what mends it


def test_steps_are_tuned_to_the_best_acceptance_along_the_path():
    generator = torch.Generator().manual_seed(2)
    found = annealed(
        base, target, base_draws(400, generator), betas=path(200, hold=50), first_step=1e-3, generator=generator
    )
    assert found.acceptance[0] > 0.95  # far too small at first
    assert found.acceptance[-50:].mean().item() == pytest.approx(BEST_ACCEPTANCE, abs=0.03)
    assert found.step_sizes[-1] < found.step_sizes[100]  # narrow modes take small steps


@pytest.mark.parametrize("num_dims", [1, 50])
def test_the_first_step_suits_a_gaussian(num_dims):
    from genbench.samplers.mala import mala

    std = torch.tensor(3.0, dtype=torch.float64)
    x = std * torch.randn(1000, num_dims, dtype=torch.float64)
    step = first_step_of(std, num_dims).item()
    found = mala(lambda x: 0.5 * (x / std).square().sum(1), x, num_steps=20, step_size=step, generator=None)
    assert 0.4 < found.acceptance.mean() < 0.75


def test_paths_rise_from_0_to_1_and_hold():
    betas = path(10, hold=3)
    assert betas[0] == 0.0
    assert betas[-4:] == (1.0,) * 4
    assert len(betas) == 14
    assert all(a <= b for a, b in itertools.pairwise(betas))
    with pytest.raises(ValueError, match="at least 1 step"):
        path(0)


def test_nothing_is_read_back_from_the_device():
    x = base_draws(8, torch.Generator().manual_seed(0))
    with NothingIsReadBack():
        found = annealed(base, target, x, betas=path(4), first_step=1.0, moves=2, generator=None)
        annealed_importance(base, target, x, betas=path(4), step_sizes=found.step_sizes, moves=2, generator=None)


def test_steps_that_do_not_fit_the_path_are_refused():
    with pytest.raises(ValueError, match="a step size less"):
        annealed_importance(base, target, torch.zeros(2, 2), betas=path(3), step_sizes=torch.ones(4), generator=None)
