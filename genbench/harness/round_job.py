"""What a timed round is asked to do, and the file in which its process is told. Imports no torch.

The two ends of the file may be two versions of genbench: a gate runs the same job on an older checkout. The file
therefore names its schema, and a worker refuses one that it does not know.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from genbench.core.bench import Effort, Phase, Variant
from genbench.core.errors import StoreError
from genbench.core.files import write_atomically
from genbench.core.spec import Cell
from genbench.core.version import VERSION

JOB_SCHEMA = "genbench.round-job/1"
NOT_APPLICABLE = "NotApplicable"
"""`Failure.type` of a round whose phase means nothing for its subject: a file without `train_step` does not train."""


@dataclasses.dataclass(frozen=True)
class RoundJob:
    """One phase of one subject, to be measured once."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    cell: Cell
    """Data, model, settings, seed and device, as for training and scoring."""
    phase: Phase
    variant: Variant
    index: int
    """Which repetition; it seeds the requests, so that no two rounds ask for the same samples."""
    batch_size: int | None
    """Examples in a call; None takes the model's own in training and the harness's in sampling."""
    effort: Effort
    audit: bool = False
    weights: Path | None = None
    """A trained cell's folder, or its `model.safetensors`; None times freshly prepared weights."""
    sweep: bool = False
    """Whether the round is a point of a batch-size sweep."""

    @property
    def title(self) -> str:
        """What a person calls the round."""
        variant = "" if self.variant == "eager" else f" ({self.variant})"
        size = f" at batch {self.batch_size}" if self.phase == "throughput" and self.batch_size else ""
        return f"{self.cell.label}{variant} {self.phase}{size}"


_JOBS = TypeAdapter(RoundJob)


def write_job(job: RoundJob, path: Path) -> None:
    """Write the job file."""
    described = {"schema": JOB_SCHEMA, "genbench_version": VERSION, "job": _JOBS.dump_python(job, mode="json")}
    write_atomically(path, json.dumps(described, indent=1).encode() + b"\n")


def read_job(path: Path) -> RoundJob:
    """Read a job file.

    Raises:
        StoreError: it is damaged, or of a schema or with fields that this version does not know.
    """
    try:
        described = json.loads(path.read_bytes())
        found = described.get("schema")
        if found != JOB_SCHEMA:
            raise _foreign(path, f"its schema is `{found}`, genbench {VERSION} reads `{JOB_SCHEMA}`")
        return _JOBS.validate_python(described["job"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _foreign(path, f"`{where}`: {first['msg']} (genbench {VERSION})") from error
    except (ValueError, KeyError, AttributeError) as error:
        raise _foreign(path, f"damaged: {error}") from error


def _foreign(path: Path, what: str) -> StoreError:
    hint = "two versions whose timed rounds are not of one kind cannot be compared; compare with a nearer one"
    return StoreError(f"{path}: not a job of a timed round: {what}", hint=hint)
