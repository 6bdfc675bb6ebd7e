"""Densities in the plane: what a trained model believes, looked at on a grid.

A model that scores points is asked for exp(log q) at the centre of every cell; of a bound or an estimate with chance in
it, log q is a mean over several draws. One that knows its energy alone is normalised by the sum over the grid, which is
its integral but for what lies outside the frame. The law of the data, where its density is known, is looked at alike.

Whether chains go where the energy is low is read off a coarser grid: `masses` is the probability that a density gives
each block of cells, `shares` the share of some points there; `unvisited` adds up the probability of blocks without a
point, and `apart` is the total variation between two of them. Equal laws are a little apart by chance.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from genbench.core.dataset import Dataset
from genbench.core.density import KnownDensity
from genbench.core.model import EnergyBased, GenerativeModel, Likelihood
from genbench.harness.evidence import subset

Grid = npt.NDArray[np.float64]
"""Density at the centres of cells, (rows from the lowest y up, columns from the lowest x up), per unit of area."""

CELLS = 80
"""Along each side of the frame."""
MARGIN = 1.15
"""Half a side of the frame is so many times the largest coordinate among held-out points."""
DRAWS = 16
"""Behind each value of a likelihood that draws something of its own."""
_SEEN = 4096
_BATCH = 2048


def why_no_plane(dataset: Dataset) -> str | None:
    """Why the data are no points in the plane, None when they are."""
    spec = dataset.spec
    if spec.kind == "vector" and spec.shape == (2,) and spec.levels is None:
        return None
    return f"the data are of kind `{spec.kind}` and shape {spec.shape}, not points in the plane"


def held_out(dataset: Dataset) -> Tensor:
    """The points (N, 2) behind the frame, always the same."""
    return subset(dataset, "test", _SEEN).x


def half_side(points: Tensor) -> float:
    """Half the side of a square frame around the origin that shows all points (N, 2) and some room around them."""
    return MARGIN * float(points.abs().max())


def centres(half: float, cells: int = CELLS) -> Tensor:
    """Centres of the cells of [-half, half]^2, row by row: (cells**2, 2) float32."""
    ticks = (torch.arange(cells) + 0.5) * (2.0 * half / cells) - half
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def why_no_density(model: GenerativeModel) -> str | None:
    """Why a model has no density to be drawn, None when it has one."""
    scorer: object = model
    return None if isinstance(scorer, Likelihood | EnergyBased) else "gives no density"


@torch.no_grad()
def density_of_model(model: GenerativeModel, half: float, *, seed: int = 0, cells: int = CELLS) -> Grid:
    """Density of a model of which `why_no_density` has nothing to say.

    Args:
        model: ready to be asked, on the CPU.
        half: half a side of the frame.
        seed: of what the likelihood draws.
        cells: along each side.
    """
    at, scorer = centres(half, cells), model
    if isinstance(scorer, EnergyBased):
        energy = torch.cat([scorer.energy(part).double() for part in at.split(_BATCH)])
        return _square(torch.softmax(-energy, 0) / (2.0 * half / cells) ** 2)
    assert isinstance(scorer, Likelihood)
    draws = 1 if scorer.likelihood_kind in {"exact", "dequantised"} else DRAWS
    generator = torch.Generator().manual_seed(seed)
    nats = [
        torch.stack([scorer.log_likelihood(part, generator=generator).double() for _ in range(draws)]).mean(0)
        for part in at.split(_BATCH)
    ]
    return _square(torch.cat(nats).exp())


def density_of_law(dataset: Dataset, half: float, *, cells: int = CELLS) -> Grid | None:
    """Density of the law that the data are drawn from, None where it is not known."""
    law: object = dataset
    if not isinstance(law, KnownDensity) or law.why_no_density() is not None:
        return None
    return _square(law.log_density(centres(half, cells).double()).exp())


def mass(density: Grid, half: float) -> float:
    """Probability inside the frame, by the midpoint rule."""
    return float(density.sum()) * (2.0 * half) ** 2 / density.size


def masses(density: Grid, half: float, *, blocks: int) -> Grid:
    """Probability in each of (blocks, blocks) blocks of the frame, by the midpoint rule.

    Raises:
        ValueError: blocks would cut cells.
    """
    cells = len(density)
    if cells % blocks:
        raise ValueError(f"{cells} cells a side make no {blocks} blocks")
    side = cells // blocks
    found: Grid = density.reshape(blocks, side, blocks, side).sum((1, 3)) * (2.0 * half / cells) ** 2
    return found


def shares(points: Tensor, half: float, *, blocks: int) -> Grid:
    """Share of points (N, 2) in each of (blocks, blocks) blocks of the frame; they sum to 1 where none lies outside."""
    edges = np.linspace(-half, half, blocks + 1)
    x, y = points.double().numpy().T
    counts, _, _ = np.histogram2d(y, x, bins=(edges, edges))
    found: Grid = counts / len(points)
    return found


def unvisited(believed: Grid, visited: Grid) -> float:
    """Probability, by `masses`, of the blocks that no point is in, by `shares`."""
    return float(believed[visited == 0.0].sum())


def apart(first: Grid, second: Grid) -> float:
    """Total variation between two laws on blocks, what lies outside the frame being one block more."""
    outside = abs(float(first.sum()) - float(second.sum()))
    return 0.5 * (float(np.abs(first - second).sum()) + outside)


def _square(values: Tensor) -> Grid:
    cells = math.isqrt(len(values))
    found: Grid = values.double().reshape(cells, cells).numpy()
    return found
