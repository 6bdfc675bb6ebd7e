"""Writing files so that a kill at any instant leaves either the old content or the whole new one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from genbench.core.errors import StoreError

WEIGHTS = "model.safetensors"
"""Name of the file of a cell's trained weights in its folder."""
LOSSES = "raw/loss.npz"
"""The same of the losses of the training."""
TRAINING = "training.json"
"""The same of what was measured of the training; written when the other two are there."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, sync it, and rename it.

    Raises:
        StoreError: the file cannot be written; the hint gives the free space.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> StoreError:
    """The error for a path that cannot be written."""
    nearest = next((folder for folder in path.parents if folder.is_dir()), Path.cwd())
    free = shutil.disk_usage(nearest).free / 2**30
    return StoreError(
        f"{path}: cannot be written: {error.strerror}",
        hint=f"choose another folder with `--out`, or make room ({free:.1f} GiB free there)",
    )
