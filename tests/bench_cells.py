"""Tiny cells and jobs for tests of timed rounds."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from genbench.core.bench import Effort, Phase
from genbench.core.spec import Cell
from genbench.harness.round_job import RoundJob
from genbench.plan import Selection, load_suite, make_plan

SHORT = Effort(
    rounds=2,
    warmup_calls=2,
    warmup_seconds=0.0,
    max_warmup_seconds=1.0,
    block_seconds=0.01,
    min_blocks=3,
    min_seconds=0.001,
    requests=3,
    request_seconds=0.0,
    canary_seconds=0.0,
)
SAMPLER = """\
import torch
def sample(n, seed, device):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
"""


def cells_of(suite: Path, *models: str) -> list[Cell]:
    """Cells of models on 8-pixel pictures."""
    plan = make_plan(load_suite(str(suite)), Selection(models=models), version="0")
    return [cell for cell in plan.cells if cell.role == "model"]


def model_file(folder: Path, name: str, text: str) -> str:
    """A model of a user's, as a file."""
    path = folder / f"{name}.py"
    path.write_text(text)
    return str(path)


def job_of(cell: Cell, phase: Phase, **changes: object) -> RoundJob:
    """A short job."""
    given = {"variant": "eager", "index": 0, "batch_size": None, "effort": SHORT, **changes}
    return RoundJob(cell=cell, phase=phase, **given)


class ModelClock:
    """A clock that a model file turns itself: its seconds are the file's list `NOW`."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def file(self) -> ModuleType:
        return sys.modules[self._name]

    def synchronise(self) -> None:
        pass

    def now(self) -> float:
        return float(self.file.NOW[0]) if self._name in sys.modules else 0.0

    def mark(self) -> None:
        return None

    def seconds_between(self, first: object, second: object) -> float:
        raise AssertionError("this device has no queue")

    def hold(self, seconds: float) -> None:
        pass
