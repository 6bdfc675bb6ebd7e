"""Spline flows beside zuko, nflows and normflows, in turns, in CPU seconds.

All have as many dimensions, layers, bins and hidden units. Networks have two residual blocks of two layers, those of
zuko as many layers without residuals; zuko masks a network of all dimensions where the others split them. A side is the
whole chain with its log-determinants, base densities left out.
Run with `OMP_NUM_THREADS=1 pytest -s --benchmark-enable tests/benchmarks/test_flow_speed.py`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable

import pytest
import torch
from cpu_seconds import seconds
from torch import Tensor, nn

from genbench.models.flow.neural_spline import RationalQuadratic
from genbench.nn.autoregressive_flow import Autoregressive
from genbench.nn.bijection import Chain
from genbench.nn.dense_residual import DenseResidualNet
from genbench.nn.split_coupling import SplitCoupling

pytestmark = pytest.mark.slow

BATCH, D, NUM_LAYERS, NUM_BINS, BOUND, WIDTH, NUM_BLOCKS = 512, 16, 6, 8, 3.0, 64, 2
ROUNDS, REPEATS, WANTED = 5, 3, 1.3
Side = tuple[Iterable[nn.Parameter], Callable[[Tensor], tuple[Tensor, Tensor]], Callable[[Tensor], Tensor]]
"""Parameters; from data to the base with log-determinants; back."""


def _peer(name: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"needs `pip install {name}`")


def _ours(kind: str) -> Side:
    spline = RationalQuadratic(NUM_BINS, BOUND)
    if kind == "coupling":
        layers = [
            SplitCoupling(
                D, spline, lambda i, o: DenseResidualNet(i, o, width=WIDTH, num_blocks=NUM_BLOCKS), parity=n % 2
            )
            for n in range(NUM_LAYERS)
        ]
    else:
        depth = 1 + 2 * NUM_BLOCKS
        layers = [Autoregressive(D, spline, width=WIDTH, num_layers=depth, residual=True) for _ in range(NUM_LAYERS)]
    flow = Chain(*layers)
    return flow.parameters(), flow, flow.inverse


def _zuko(kind: str) -> Side:
    hidden = (WIDTH,) * (1 + 2 * NUM_BLOCKS)
    passes = 2 if kind == "coupling" else None
    flow = _peer("zuko").flows.NSF(D, bins=NUM_BINS, transforms=NUM_LAYERS, hidden_features=hidden, passes=passes)
    return flow.parameters(), lambda x: flow.transform().call_and_ladj(x), lambda y: flow.transform().inv(y)


def _nflows(kind: str) -> Side:
    _peer("nflows")
    from nflows import transforms
    from nflows.nn.nets import ResidualNet
    from nflows.utils.torchutils import create_alternating_binary_mask

    spline = {"num_bins": NUM_BINS, "tails": "linear", "tail_bound": BOUND}
    if kind == "coupling":
        layers = [
            transforms.PiecewiseRationalQuadraticCouplingTransform(
                create_alternating_binary_mask(D, even=n % 2 == 0),
                lambda i, o: ResidualNet(i, o, hidden_features=WIDTH, num_blocks=NUM_BLOCKS),
                **spline,
            )
            for n in range(NUM_LAYERS)
        ]
    else:
        layers = [
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                D, hidden_features=WIDTH, num_blocks=NUM_BLOCKS, **spline
            )
            for _ in range(NUM_LAYERS)
        ]
    flow = transforms.CompositeTransform(layers)
    return flow.parameters(), flow, lambda y: flow.inverse(y)[0]


def _normflows(kind: str) -> Side:
    peer = _peer("normflows").flows
    if kind == "coupling":
        wrappers = [
            peer.CoupledRationalQuadraticSpline(
                D, NUM_BLOCKS, WIDTH, num_bins=NUM_BINS, tail_bound=BOUND, reverse_mask=n % 2 == 1
            )
            for n in range(NUM_LAYERS)
        ]
        for wrapper in wrappers:
            wrapper.prqct.unconditional_transform = None  # a spline of the half that passes, which the others have not
    else:
        wrappers = [
            peer.AutoregressiveRationalQuadraticSpline(D, NUM_BLOCKS, WIDTH, num_bins=NUM_BINS, tail_bound=BOUND)
            for _ in range(NUM_LAYERS)
        ]
    flow = nn.ModuleList(wrappers)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for wrapper in wrappers:
            x, log_det = wrapper.inverse(x)
            total = total + log_det
        return x, total

    def inverse(y: Tensor) -> Tensor:
        for wrapper in reversed(wrappers):
            y, _ = wrapper(y)
        return y

    return flow.parameters(), forward, inverse


PEERS = {"zuko": _zuko, "nflows": _nflows, "normflows": _normflows}


def _work(side: Side, what: str) -> Callable[[], object]:
    parameters, forward, inverse = side
    kept, x = list(parameters), torch.randn(BATCH, D, generator=torch.Generator().manual_seed(0))

    def train() -> None:
        for parameter in kept:
            parameter.grad = None
        y, log_det = forward(x)
        (0.5 * y.square().sum(1) - log_det).mean().backward()

    calls = {"training": train, "density": lambda: forward(x), "samples": lambda: inverse(x)}
    return calls[what] if what == "training" else torch.no_grad()(calls[what])


@pytest.mark.parametrize("what", ["training", "density", "samples"])
@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_spline_flows_are_faster_than_the_fastest_peer(benchmark, kind, what):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    torch.manual_seed(0)
    sides = {"genbench": _ours(kind), **{name: build(kind) for name, build in PEERS.items()}}
    calls = {name: _work(side, what) for name, side in sides.items()}
    taken = {name: [] for name in calls}
    for _ in range(ROUNDS + 1):
        for name, call in calls.items():
            taken[name].append(seconds(lambda call=call: [call() for _ in range(REPEATS)])[0])
    best = {name: min(each[1:]) for name, each in taken.items()}
    ratios = {name: best[name] / best["genbench"] for name in PEERS}
    benchmark.extra_info.update(ratios)
    benchmark.pedantic(calls["genbench"], rounds=1)
    sys.stdout.write(
        f"\n{kind}, {what}: " + ", ".join(f"{name} {ratio:.2f} x" for name, ratio in ratios.items()) + "\n"
    )
    assert min(ratios.values()) > WANTED, taken
