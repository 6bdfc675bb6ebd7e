"""Counts of a registered model by its label alone, in this process."""

from __future__ import annotations

import torch

from genbench.core.bench import EFFORTS, Counters
from genbench.core.errors import ModelError
from genbench.core.version import VERSION
from genbench.harness.round_job import RoundJob
from genbench.harness.timed_round import measure
from genbench.plan import Selection, load_suite, make_plan


def counted_model(label: str, *, suite: str, tier: str) -> dict[str, Counters]:
    """Counts on the CPU of a round of training and of one sample: by row and call, such as `ddpm train`.

    The global random stream is left as it was.

    Args:
        label: as after `genbench run --model`; several models may go by it.
        suite: gives data and preset.
        tier: of the suite.

    Raises:
        GenbenchError: there is no such model, suite or tier, or the model breaks.
    """
    plan = make_plan(load_suite(suite), Selection(tier=tier, models=(label,), seeds=(0,)), version=VERSION)
    found: dict[str, Counters] = {}
    for cell in [cell for cell in plan.cells if cell.role == "model"]:
        job = RoundJob(cell, phase="counters", variant="eager", index=0, batch_size=None, effort=EFFORTS["smoke"])
        with torch.random.fork_rng():
            done = measure(job)
        if done.error is not None:
            raise ModelError(f"`{cell.label}`: {done.error.phase}: {done.error.message}", hint=done.error.hint)
        found |= {f"{cell.label} {call}": counters for call, counters in done.counters.items()}
    return found
