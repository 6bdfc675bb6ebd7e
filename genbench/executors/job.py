"""What an executor is given and what it gives back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from genbench.core.spec import Cell


@dataclasses.dataclass(frozen=True)
class Job:
    """One cell to run."""

    cell: Cell
    folder: Path
    """The cell's own folder; the worker leaves `record.json` in it. A finished training of an earlier attempt may lie
    there."""
    weights_folder: Path | None
    """Folder of the finished cell that trained the same weights, None when there is none."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the process of a cell ended."""

    returncode: int | None
    """Exit code, negative for a signal; None when the deadline ended it."""
    phase: str
    """The last phase it reported."""
    timed_out: bool
