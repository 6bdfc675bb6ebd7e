"""Run folders: written so that a kill at any instant loses at most the cell in flight.

    plan.json           every cell, written before the first starts
    events.jsonl        what happened when; appended and flushed
    cells/<key>/        record.json, stdout.log, stderr.log, model.safetensors, samples.npz, grid.png;
                        of sounds, `grid.png` has spectrograms and `sounds/` WAV files;
                        `training.json` says that the weights are those of a finished training, and what it cost
    speeds.json         what timed rounds say of finished models, where the tier asks for them; `rounds/` has their logs

A cell is finished when its `record.json` is there: it is the last file written, under a temporary
name, synced, and renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genbench.core.bench import BenchFile
from genbench.core.errors import StoreError
from genbench.core.files import LOSSES, TRAINING, WEIGHTS, unwritable, write_atomically
from genbench.core.record import RECORD_SCHEMA, Record
from genbench.core.spec import Cell

PLAN_SCHEMA = "genbench.plan/1"
SPEEDS_FILE = "speeds.json"
_WRITTEN = ("plan.json", "events.jsonl", "cells", SPEEDS_FILE, "rounds")
"""All that a run writes, the plan first: without it a folder is none of a run, whatever has this name."""
_OF_TRAINING = {name.partition("/")[0] for name in (TRAINING, WEIGHTS, LOSSES)}


class StoredPlan(BaseModel):
    """The cells of a run folder, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)

    schema_: str = Field(default=PLAN_SCHEMA, alias="schema")
    genbench_version: str
    suite: str
    tier: str
    created: str
    cells: tuple[Cell, ...]


def utc_now() -> str:
    """The present, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunFolder:
    """A run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder, or open it, and prove that it can be written.

        Raises:
            StoreError: it is a file, holds other things than a run, or cannot be written.
        """
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path}: is a file, expected a folder", hint="choose another with `--out`")
        if path.exists() and not (path / "plan.json").is_file():
            others = sorted(one.name for one in path.iterdir() if one.name[0] != "." and one.name not in _WRITTEN)
            if others:
                raise StoreError(
                    f"{path}: holds no run, but {', '.join(f'`{name}`' for name in others[:3])}"
                    + (f" and {len(others) - 3} more" if len(others) > 3 else ""),
                    hint="choose a new or an empty folder with `--out`",
                )
        folder = cls(path)
        write_atomically(path / ".writable", b"")
        (path / ".writable").unlink()
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a folder that some run has written.

        Raises:
            StoreError: there is none.
        """
        if not (path / "plan.json").is_file():
            raise StoreError(f"{path}: no run here (no plan.json)", hint="`genbench list runs` shows the runs below")
        return cls(path)

    def remove(self) -> None:
        """Remove all that runs wrote here, and the folder if nothing else is in it."""
        for name in _WRITTEN:
            part = self.path / name
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def plan(self) -> StoredPlan | None:
        """The stored plan, None in a new folder.

        Raises:
            StoreError: the plan is damaged or of another version.
        """
        file = self.path / "plan.json"
        if not file.is_file():
            return None
        try:
            found = _schema_of(file.read_bytes())
            if found != PLAN_SCHEMA:
                raise StoreError(
                    f"{file}: schema `{found}`, expected `{PLAN_SCHEMA}`: another version wrote it",
                    hint="choose another folder with `--out`, or start over with `--fresh`",
                )
            return StoredPlan.model_validate_json(file.read_bytes())
        except (ValueError, ValidationError) as error:
            raise StoreError(f"{file}: damaged: {error}", hint="start over with `--fresh`") from error

    def write_plan(self, plan: StoredPlan) -> None:
        """Replace the plan."""
        write_atomically(self.path / "plan.json", plan.model_dump_json(indent=1).encode() + b"\n")

    def cell_folder(self, key: str) -> Path:
        """Folder of a cell."""
        return self.path / "cells" / key

    def clear_cell(self, key: str) -> Path:
        """A folder for a cell about to run: what a killed attempt left is removed, but for a finished training."""
        folder = self.cell_folder(key)
        if self.has_training(key):
            for path in folder.iterdir():
                if path.name not in _OF_TRAINING:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        return folder

    def has_training(self, key: str) -> bool:
        """Whether a cell, finished or not, has trained to the end and says what that cost."""
        return (self.cell_folder(key) / TRAINING).is_file()

    def write_record(self, record: Record) -> None:
        """Write the record of a cell; the cell is finished with it."""
        write_atomically(
            self.cell_folder(record.key) / "record.json", record.model_dump_json(indent=1).encode() + b"\n"
        )

    def record(self, key: str) -> Record | None:
        """The record of a cell, None when it is missing or cannot be read."""
        return read_record(self.cell_folder(key) / "record.json")

    def records(self) -> list[Record]:
        """Records of all finished cells of the plan, in its order."""
        plan = self.plan()
        found = [] if plan is None else [self.record(cell.key) for cell in plan.cells]
        return [record for record in found if record is not None]

    def speeds(self) -> BenchFile | None:
        """Speeds of the models of the run from timed rounds, None where there are none.

        Raises:
            StoreError: the file is damaged or of another version.
        """
        file = self.path / SPEEDS_FILE
        if not file.is_file():
            return None
        try:
            return BenchFile.model_validate_json(file.read_bytes())
        except ValidationError as error:
            hint = "remove it, and `genbench run` measures anew"
            raise StoreError(f"{file}: not a bench file that this version can read", hint=hint) from error

    def write_speeds(self, made: BenchFile) -> None:
        """Replace the speeds."""
        write_atomically(self.path / SPEEDS_FILE, made.model_dump_json(indent=1).encode() + b"\n")

    def samples(self, key: str) -> np.ndarray | None:
        """Samples of a cell for showing: (N, C, H, W) uint8 in 0 .. 255; None when there are no images."""
        samples, levels, _ = self._drawn(key)
        if samples is None or samples.ndim != 4 or levels == 0:
            return None
        shown: np.ndarray = np.rint(samples * (255.0 / (levels - 1))).astype(np.uint8)
        return shown

    def points(self, key: str) -> np.ndarray | None:
        """Samples of a cell that are vectors: (N, D) float; None when there are none."""
        samples, _, _ = self._drawn(key)
        return samples if samples is not None and samples.ndim == 2 else None

    def sounds(self, key: str) -> tuple[np.ndarray, int, int] | None:
        """Samples of a cell for hearing: codes (N, T) uint8, how many levels they have, how many there are a second.

        None when there are no waveforms.
        """
        samples, levels, sample_rate = self._drawn(key)
        return None if samples is None or not sample_rate else (samples[:, 0], levels, sample_rate)

    def _drawn(self, key: str) -> tuple[np.ndarray | None, int, int]:
        """Samples of a cell as they were drawn, None when there are none; their levels, 0 of floats; samples a second.

        The last is 0 of what is not heard, and of folders of versions that knew no sounds.
        """
        file = self.cell_folder(key) / "samples.npz"
        if not file.is_file():
            return None, 0, 0
        with np.load(file, allow_pickle=False) as arrays:
            sample_rate = int(arrays["sample_rate"]) if "sample_rate" in arrays.files else 0
            return arrays["samples"], int(arrays["levels"]), sample_rate

    def losses(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Examples seen and the loss there, (B,) each, of a cell that trained weights, finished or not; else None."""
        file = self.cell_folder(key) / LOSSES
        if not file.is_file():
            return None
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["samples_seen"], arrays["loss"]

    def note(self, event: str, **details: str | int | float | None) -> None:
        """Append one line to the log of events and flush it."""
        line = json.dumps({"time": utc_now(), "event": event, **details})
        try:
            with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise unwritable(self.path, error) from error


def read_record(path: Path) -> Record | None:
    """A record from its file, None when it is missing, damaged or of another schema."""
    try:
        payload = path.read_bytes()
        return Record.model_validate_json(payload) if _schema_of(payload) == RECORD_SCHEMA else None
    except (OSError, ValueError, ValidationError):
        return None


def _schema_of(payload: bytes) -> str | None:
    values = json.loads(payload)
    return values.get("schema") if isinstance(values, dict) else None


def merged(stored: StoredPlan | None, cells: Sequence[Cell], *, version: str) -> StoredPlan:
    """A plan with the given cells first and then those that the folder already knew.

    Raises:
        StoreError: the folder belongs to another suite or version.
    """
    if not cells:
        raise ValueError("a plan needs at least one cell")
    suite, tier = cells[0].suite, cells[0].tier
    if stored is None:
        return StoredPlan(genbench_version=version, suite=suite, tier=tier, created=utc_now(), cells=tuple(cells))
    if stored.genbench_version != version or (stored.suite, stored.tier) != (suite, tier):
        raise StoreError(
            f"this folder holds suite `{stored.suite}`, tier `{stored.tier}`, genbench {stored.genbench_version}; "
            f"this run is suite `{suite}`, tier `{tier}`, genbench {version}",
            hint="choose another folder with `--out`, or start over with `--fresh`",
        )
    rows = {_row(cell) for cell in cells}
    older = tuple(cell for cell in stored.cells if _row(cell) not in rows)
    return stored.model_copy(update={"cells": (*cells, *older)})


def _row(cell: Cell) -> tuple[str, str, int, str]:
    """What makes a row of the table: a cell made with other code takes the place of the older."""
    return cell.role, f"{cell.subject.label} {cell.label}", cell.seed, cell.dataset.label
