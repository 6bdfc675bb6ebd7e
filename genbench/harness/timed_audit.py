"""Proofs that a timed round did the work, each made off the clock after it.

Training: every stage changed its parameters and drew random numbers if it asks for any. Sampling: a seed gives the
same sample again, another seed another one, and no seed is answered from memory. Samples drawn on the clock are scored
beside samples that the plain model draws afterwards: a variant may round differently, but not draw from another law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from genbench.core.errors import SampleError
from genbench.harness.timed_training import Stage
from genbench.timing.audit import training_proofs

SCORED_SAMPLES = 64
_LARGEST_Z = 4.0  # two scores of one law exceed it once in 8,000 rounds


def audit_training(stages: Sequence[Stage], device: torch.device) -> dict[str, bool]:
    """Proofs that hold when they hold in every stage; each takes two steps or three."""
    found: dict[str, bool] = {}
    for stage in stages:
        proofs = training_proofs(stage.from_loader, parameters=stage.parameters, device=device)
        if not stage.parameters:
            del proofs["parameters_changed"]  # the weights of a file with `train_step` are its own affair
        found |= {name: found.get(name, True) and proof for name, proof in proofs.items()}
    return found


def scores_agree(timed: Tensor, plain: Tensor) -> bool:
    """Whether two sets of samples score alike: mean and spread of each sample, compared by ranks.

    Args:
        timed: (N, *shape), drawn on the clock.
        plain: (M, *shape), drawn with other seeds and without clock or variant.

    Raises:
        SampleError: there is nothing to compare.
    """
    if min(len(timed), len(plain)) == 0:
        raise SampleError("an audit needs samples that were drawn on the clock, found none")
    pairs = zip(_scores(timed).values(), _scores(plain).values(), strict=True)
    return all(abs(_z(first, second)) < _LARGEST_Z for first, second in pairs)


def _z(first: np.ndarray, second: np.ndarray) -> float:
    """Standardised Mann-Whitney U; 0 where all scores are equal."""
    if np.ptp(np.concatenate([first, second])) == 0.0:
        return 0.0
    from genbench.prob.rank_test import rank_test  # takes a second to import, which rounds without an audit are spared

    z = rank_test(first, second).z
    return z if math.isfinite(z) else math.inf


def _scores(samples: Tensor) -> Mapping[str, np.ndarray]:
    flat = samples.detach().cpu().flatten(1).double()
    return {"mean": flat.mean(1).numpy(), "deviation": flat.std(1, correction=0).numpy()}
