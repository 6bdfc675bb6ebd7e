"""A finished training beside its weights, so that a cell which dies later need not train again.

`training.json` is the last file that a training leaves: the times that were measured, the machine they were measured
on, and digests of the weights that came out and of the examples that went in. The next attempt of the same cell takes
weights and times over, and its record then says of the training what that of an undisturbed cell says. It does so only
where examples, machine, versions and threads are the same, for times of one machine mean nothing on another; else it
trains again.

Of a model that is not in the registry's own files nothing is kept: the key of its cell does not cover all of its code,
and its weights may lie where no state dict finds them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, FiniteFloat, ValidationError

from genbench.core.dataset import Batch
from genbench.core.files import LOSSES, TRAINING, WEIGHTS, write_atomically
from genbench.core.model import MODELS
from genbench.core.record import Environment, State, Timing
from genbench.core.spec import Cell

_OF_THE_MOMENT = {"load_average", "commit", "dirty"}
"""What may differ between two environments that time alike: the key of a cell covers its code."""
_ROWS_AT_ONCE = 1024


class KeptTraining(State):
    """What `training.json` holds."""

    schema_: Literal["genbench.training/1"] = Field(default="genbench.training/1", alias="schema")
    weights_sha256: str
    examples_sha256: str
    timing: Timing
    """What the training cost, up to its end: also the peak of memory."""
    phase_seconds: FiniteFloat
    """Of the whole phase, writing and looks included."""
    environment: Environment

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)


@dataclass(frozen=True)
class Kept:
    """A training that an earlier attempt of the cell has finished."""

    training: KeptTraining
    weights: bytes
    """Content of `model.safetensors`."""

    def environment(self, here: Environment) -> Environment:
        """This process's, as full as the machine was at the fuller of the two times at which speeds were measured."""
        loads = [one.load_average for one in (here, self.training.environment) if one.load_average is not None]
        return here.model_copy(update={"load_average": max(loads, default=None)})


def keep(
    cell: Cell, folder: Path, examples: Batch, *, timing: Timing, phase_seconds: float, environment: Environment
) -> None:
    """Leave word of the training whose weights are in the folder; of none, and of a model of the user's own, nothing.

    Args:
        cell: that is run.
        folder: of the cell.
        examples: that it was trained on, on the CPU.
        timing: what was measured up to the end of the training.
        phase_seconds: of the whole phase.
        environment: of this process.
    """
    if not _in_the_key(cell) or not (folder / WEIGHTS).is_file():
        return
    training = KeptTraining(
        weights_sha256=_digest_of((folder / WEIGHTS).read_bytes()),
        examples_sha256=_digest_of_examples(examples),
        timing=timing,
        phase_seconds=phase_seconds,
        environment=environment,
    )
    write_atomically(folder / TRAINING, training.model_dump_json(indent=1).encode() + b"\n")


def kept_training(cell: Cell, folder: Path, examples: Batch, here: Environment) -> Kept | None:
    """The training that an earlier attempt has finished; None where there is none that can serve.

    Args:
        cell: that is run.
        folder: of the cell.
        examples: to train on, on the CPU.
        here: the environment of this process.
    """
    if not _in_the_key(cell):
        return None
    try:
        training = KeptTraining.model_validate_json((folder / TRAINING).read_bytes())
        weights = (folder / WEIGHTS).read_bytes()
    except (OSError, ValidationError):
        return None
    serves = (
        times_alike(training.environment, here)
        and training.weights_sha256 == _digest_of(weights)
        and training.examples_sha256 == _digest_of_examples(examples)
    )
    return Kept(training, weights) if serves else None


def forget(folder: Path) -> None:
    """Remove what an earlier training has left, the word of it first."""
    for name in (TRAINING, WEIGHTS, LOSSES):
        (folder / name).unlink(missing_ok=True)


def times_alike(one: Environment, other: Environment) -> bool:
    """Whether a time measured in one environment may stand in a record of the other."""
    return one.model_dump(exclude=_OF_THE_MOMENT) == other.model_dump(exclude=_OF_THE_MOMENT)


def _digest_of(weights: bytes) -> str:
    """SHA-256 of the content of a file of weights."""
    return hashlib.sha256(weights).hexdigest()


def _digest_of_examples(examples: Batch) -> str:
    """SHA-256 of everything that a training reads, on the CPU."""
    content = hashlib.sha256()
    for tensor in (examples.x, examples.y, examples.factors, examples.text, examples.pictures):
        if tensor is not None:
            content.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            for rows in tensor.split(_ROWS_AT_ONCE):  # a copy of them all would show in the peak of memory
                content.update(rows.contiguous().numpy().tobytes())
    return content.hexdigest()


def _in_the_key(cell: Cell) -> bool:
    """Whether the key of a cell covers all the code of its model."""
    return cell.subject.argument is None and MODELS.path(cell.subject.name) is not None
