"""What the codes of a trained model hold, as rows of pictures: reconstructions, traversals, interpolations.

The model is built again from its cell and the weights that the cell left, and looks at the first held-out examples of
the fixed order that the metrics use, so that every model of a run shows the same ones.

- Reconstructions: originals, and what the model makes of them after encoding.
- Traversals: one dimension d of one example's code moves from -2 to 2 standard deviations sd_d of that dimension over
  held-out codes, the others stay. Rows are ordered by sd_d: where codes are posterior means, the variance over examples
  measures how active a unit is (Burda et al. 2016, arXiv:1509.00519), and one that tells nothing of the image stands
  still.
- Interpolations: (1 - t) z_a + t z_b decoded for t from 0 to 1, a straight line between the codes of two examples; the
  examples stand at either end. Codes from a finite alphabet have nothing in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from genbench.core.dataset import Dataset, build_dataset
from genbench.core.errors import DataError
from genbench.core.model import ContinuousLatents, DiscreteLatents, GenerativeModel
from genbench.core.spec import Cell
from genbench.harness.building import build
from genbench.harness.evidence import subset, subset_rows
from genbench.prob.pixels import to_rgb

Kind = Literal["reconstructions", "traversals", "interpolations"]
Pixels = npt.NDArray[np.uint8]
Rows = Mapping[str, Pixels]
"""Label -> (N, 3, H, W) uint8 in 0 .. 255, in the order in which they are drawn."""

REACH = 2.0
"""Standard deviations to either side that a traversal goes."""
NUM_CODED = 1024
"""Held-out examples behind the standard deviations."""
_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """A trained model, ready to encode and decode on the CPU, and the data that it was trained on."""

    model: GenerativeModel
    dataset: Dataset


def rebuilt(cell: Cell, weights: Path) -> Rebuilt:
    """The cell's model as it was when it drew its samples.

    Args:
        cell: of a finished record.
        weights: `model.safetensors` of this cell, or of the one that trained the same weights.

    Raises:
        DataError: a model that trains has left no weights, or they do not fit the model as the code is now.
        GenbenchError: data or model cannot be built here.
    """
    dataset = build_dataset(cell.dataset)
    torch.manual_seed(cell.seed)
    model = build(cell, dataset)
    if model.phases():
        if not weights.is_file():
            raise DataError(f"{weights}: no weights", hint="run the cell again")
        try:
            model.load_state_dict(safetensors.torch.load(weights.read_bytes()))
        except (RuntimeError, ValueError, safetensors.SafetensorError) as error:
            said = str(error).splitlines()[0]
            raise DataError(f"{weights}: does not fit the model as its code is now: {said}") from error
    return Rebuilt(model.eval(), dataset)


def why_not(kind: Kind, model: GenerativeModel, dataset: Dataset) -> str | None:
    """Why there can be no such pictures, None when there can."""
    if dataset.spec.kind != "image":
        return f"the data are of kind `{dataset.spec.kind}`, not images"
    coder: object = model
    if isinstance(coder, ContinuousLatents):
        return None
    if not isinstance(coder, DiscreteLatents):
        return "nothing is encoded and decoded"
    return None if kind == "reconstructions" else "codes from a finite alphabet have nothing in between"


def pictures_of_codes(kind: Kind, found: Rebuilt, *, columns: int, rows: int) -> Rows:
    """Rows of one kind for a model of which `why_not` has nothing to say.

    Args:
        kind: of pictures.
        found: model and data.
        columns: pictures in a row, at least 3 but for reconstructions.
        rows: at most as many traversals or interpolations; of no effect on reconstructions.

    Raises:
        ValueError: too few columns or rows.
    """
    least = 1 if kind == "reconstructions" else 3
    if columns < least or rows < 1:
        raise ValueError(f"{kind} need {least} columns or more and 1 row or more, found {columns} and {rows}")
    if kind == "reconstructions":
        return reconstructions(found, columns=columns)
    coder: object = found.model
    assert isinstance(coder, ContinuousLatents)
    draw = traversals if kind == "traversals" else interpolations
    return draw(coder, found.dataset, columns=columns, rows=rows)


def bases(kind: Kind, dataset: Dataset, *, rows: int) -> list[str]:
    """What the held-out examples are called from whose codes the rows start: one for all traversals, two for each pair.

    Reconstructions stand below their originals and need none.
    """
    count = {"reconstructions": 0, "traversals": 1, "interpolations": 2 * rows}[kind]
    return dataset.identify("test", subset_rows(dataset, "test", count)) if count else []


@torch.no_grad()
def left_out(kind: Kind, found: Rebuilt, *, rows: int) -> str | None:
    """Which dimensions of the code have no row, and why; None where all have one, or where rows are no dimensions."""
    coder: object = found.model
    if kind != "traversals" or not isinstance(coder, ContinuousLatents):
        return None
    dims = coder.encode(subset(found.dataset, "test", 1).x).shape[1]
    if dims <= rows:
        return None
    return f"the {rows} of {dims} dimensions that vary most over examples; `--rows {dims}` draws all"


@torch.no_grad()
def reconstructions(found: Rebuilt, *, columns: int) -> Rows:
    """Two rows: held-out originals, and what the model makes of each."""
    coder: object = found.model
    assert isinstance(coder, ContinuousLatents | DiscreteLatents)
    x = subset(found.dataset, "test", columns).x
    made = torch.cat([coder.reconstruct(part) for part in x.split(_BATCH)])
    return {"original": _shown(x, found.dataset), "reconstruction": _shown(made, found.dataset)}


@torch.no_grad()
def traversals(coder: ContinuousLatents, dataset: Dataset, *, columns: int, rows: int) -> Rows:
    """One row for each of the dimensions that vary most over examples, from the most to the least varied."""
    x = subset(dataset, "test", NUM_CODED).x
    codes = torch.cat([coder.encode(part) for part in x.split(_BATCH)])
    spread = codes.double().std(0).float()
    found: dict[str, Pixels] = {}
    for d in spread.argsort(descending=True, stable=True)[:rows].tolist():
        moved = codes[:1].repeat(columns, 1)
        moved[:, d] += torch.linspace(-REACH, REACH, columns) * spread[d]
        found[f"z{d}  sd {float(spread[d]):.2f}"] = _shown(_decoded(coder, moved), dataset)
    return found


@torch.no_grad()
def interpolations(coder: ContinuousLatents, dataset: Dataset, *, columns: int, rows: int) -> Rows:
    """One row for each pair of examples: the first, the straight line between their codes, the second."""
    x = subset(dataset, "test", 2 * rows).x
    codes, t = coder.encode(x), torch.linspace(0.0, 1.0, columns - 2)[:, None]
    found: dict[str, Pixels] = {}
    for pair in range(len(x) // 2):
        a, b = 2 * pair, 2 * pair + 1
        between = _decoded(coder, (1.0 - t) * codes[a] + t * codes[b])
        found[f"pair {pair + 1}"] = _shown(torch.cat([x[a : a + 1], between, x[b : b + 1]]), dataset)
    return found


def _decoded(coder: ContinuousLatents, codes: Tensor) -> Tensor:
    return torch.cat([coder.decode(part) for part in codes.split(_BATCH)])


def _shown(images: Tensor, dataset: Dataset) -> Pixels:
    shown: Pixels = to_rgb(images, dataset.spec.levels or 256).numpy()
    return shown
