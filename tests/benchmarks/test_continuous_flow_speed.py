"""Continuous flows beside torchdyn, which torchcfm takes for likelihoods too, in turns, in CPU seconds.

Both solve one equation by as many even steps of the classical fourth-order method with Hutchinson's trace, and
differentiate the steps; the velocity is the same network.
Run with `OMP_NUM_THREADS=1 pytest -s --benchmark-enable tests/benchmarks/test_continuous_flow_speed.py`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import pytest
import torch
from cpu_seconds import best_ratio
from torch import Tensor, nn

from genbench.samplers.ode import Solver, solve_for_training, solve_with_log_density

pytestmark = pytest.mark.slow

BATCH, D, WIDTH, NUM_STEPS = 512, 16, 64, 8
ROUNDS, REPEATS, LEAST = 5, 3, 1.0
Flow = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From data to noise, and what log p gains on the way."""


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, D))


def _ours(net: nn.Module) -> tuple[Flow, Flow]:
    """With gradients, and without."""
    solver, generator = Solver(method="rk4", num_steps=NUM_STEPS), torch.Generator().manual_seed(1)
    given = {"start": 0.0, "end": 1.0, "solver": solver, "divergence": "hutchinson", "generator": generator}

    def training(x: Tensor) -> tuple[Tensor, Tensor]:
        carried = solve_for_training(lambda t, x: net(x), x, parameters=tuple(net.parameters()), **given)
        return carried.end, carried.gain

    return training, lambda x: solve_with_log_density(lambda t, x: net(x), x, **given)


def _torchdyn(net: nn.Module) -> Flow:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torchdyn", reason="needs `pip install torchdyn attrs`", exc_type=ImportError)
        from torchdyn.core import NeuralODE
        from torchdyn.models import CNF, hutch_trace

        noise = torch.distributions.MultivariateNormal(torch.zeros(D), torch.eye(D))
        field = CNF(net, trace_estimator=hutch_trace, noise_dist=noise)
        ode = NeuralODE(field, solver="rk4", sensitivity="autograd")
    times = torch.linspace(0.0, 1.0, NUM_STEPS + 1)

    def flow(x: Tensor) -> tuple[Tensor, Tensor]:
        _, path = ode(torch.cat([torch.zeros(len(x), 1), x], dim=1), times)
        return path[-1][:, 1:], path[-1][:, 0]

    return flow


@pytest.mark.filterwarnings("ignore")
def test_both_solve_the_same_equation() -> None:
    net, x = _network(), torch.randn(64, D, generator=torch.Generator().manual_seed(0))
    theirs, _ = _torchdyn(net)(x)
    for flow in _ours(net):
        torch.testing.assert_close(flow(x)[0], theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["training", "density"])
def test_continuous_flows_are_no_slower_than_torchdyn(benchmark, what):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    net, x = _network(), torch.randn(BATCH, D, generator=torch.Generator().manual_seed(0))
    (with_gradients, without), theirs = _ours(net), _torchdyn(net)

    def train(flow: Flow) -> None:
        net.zero_grad(set_to_none=True)
        z, gain = flow(x)
        (0.5 * z.square().sum(1) + gain).mean().backward()

    calls = {
        "training": (lambda: train(with_gradients), lambda: train(theirs)),
        "density": (lambda: torch.no_grad()(without)(x), lambda: torch.no_grad()(theirs)(x)),
    }
    ratio, taken = best_ratio(*calls[what], rounds=ROUNDS, repeats=REPEATS)
    benchmark.extra_info["torchdyn"] = ratio
    benchmark.pedantic(calls[what][0], rounds=1)
    sys.stdout.write(f"\ncontinuous flow, {what}: torchdyn {ratio:.2f} x\n")
    assert ratio > LEAST, taken
