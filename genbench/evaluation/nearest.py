"""The samples nearest to training data, with what they are called: where copies are found, if there are any.

Distances are Euclidean, between features. A copy has distance 0, or next to nothing where batches are summed in another
order. Beside each stands the distance of the same sample to held-out data, which nobody can have copied: a sample that
is much nearer to the training data than to those is one to look at.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from genbench.core.metric import Need
from genbench.core.spec import Scalar
from genbench.evaluation.layers import Layers
from genbench.evaluation.reasons import why_not
from genbench.evaluation.sources import Sources
from genbench.prob.nearest_pairs import nearest_pairs, paired_neighbours
from genbench.prob.neighbours import nearest_neighbours

SCHEMA = "genbench.nearest/1"
NUM_NEIGHBOURS = 5
"""Reference examples named for each sample."""
NUM_SHOWN = 20
"""Samples whose pictures are kept: as many as fit on a page."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A reference example near a sample."""

    reference: str
    """What it is called, as the samples are."""
    distance: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearSample:
    """A sample with its nearest reference examples."""

    sample: str
    """What it is called: the relative path of a file, else its place."""
    neighbours: tuple[Neighbour, ...]
    """At least one, nearest first."""
    held_out_distance: float | None
    """To the nearest held-out example, None where there are none."""

    @property
    def distance(self) -> float:
        """To the nearest reference example."""
        return self.neighbours[0].distance


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestSamples:
    """Samples in the order of their distance to the reference, nearest first."""

    rows: tuple[NearSample, ...]
    num_samples: int
    """Of all samples that were looked at."""
    num_reference: int
    num_held_out: int
    protocol: dict[str, Scalar]
    """What the features share."""
    sample_images: Tensor | None
    """(n, 3, H, W) uint8, of the first rows; None where features were given."""
    reference_images: Tensor | None
    """(n, k, 3, H, W) uint8, of their neighbours in order."""

    def document(self) -> dict[str, object]:
        """The JSON that `genbench evaluate --nearest` writes."""
        rows = [{**dataclasses.asdict(row), "distance": row.distance} for row in self.rows]
        counts = {"num_samples": self.num_samples, "num_reference": self.num_reference}
        return {"schema": SCHEMA, **counts, "num_held_out": self.num_held_out, "protocol": self.protocol, "rows": rows}


def nearest_samples(sources: Sources, layers: Layers, *, num_samples: int) -> NearestSamples:
    """List the samples nearest to a reference example.

    Args:
        sources: what was given.
        layers: features of both sides, which there must be.
        num_samples: at most as many are listed.
    """
    samples, reference = layers.samples, layers.reference
    assert samples is not None
    assert reference is not None
    order = torch.tensor([pair.sample for pair in nearest_pairs(samples, reference, num_pairs=num_samples)])
    found = paired_neighbours(samples, reference, rows=order, k=min(NUM_NEIGHBOURS, len(reference)))
    held_out = layers.held_out if why_not(Need.HELD_OUT, sources) is None else None
    unseen = None if held_out is None else nearest_neighbours(samples[order], held_out).distances[:, 0].tolist()
    drawn = None if sources.samples.dataset is None else sources.samples.pictures()
    real = layers.reference_pictures
    called = [None if pictures is None else pictures.names() for pictures in (drawn, real)]
    rows = tuple(
        NearSample(
            sample=_name(called[0], pairs[0].sample),
            neighbours=tuple(
                Neighbour(reference=_name(called[1], pair.reference), distance=pair.distance) for pair in pairs
            ),
            held_out_distance=None if unseen is None else unseen[place],
        )
        for place, pairs in enumerate(found)
    )
    near = np.array([[pair.reference for pair in pairs] for pairs in found[:NUM_SHOWN]])
    return NearestSamples(
        rows=rows,
        num_samples=len(samples),
        num_reference=len(reference),
        num_held_out=0 if held_out is None else len(held_out),
        protocol=sources.protocol,
        sample_images=None if drawn is None else drawn.at(order[:NUM_SHOWN].numpy()),
        reference_images=None if real is None else real.at(near.ravel()).unflatten(0, near.shape),
    )


def _name(names: list[str] | None, row: int) -> str:
    """What a row is called; given features have their place, padded so that the order of the text is the file's."""
    return f"{row:08d}" if names is None else names[row]
