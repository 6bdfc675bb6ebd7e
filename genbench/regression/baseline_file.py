"""Baselines on disk."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from genbench.core.baseline import Baseline
from genbench.core.bench import BASELINE_SCHEMA
from genbench.core.errors import StoreError
from genbench.core.files import write_atomically


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        StoreError: there is none, it is damaged, or another version wrote it.
    """
    try:
        payload = path.read_bytes()
        values = json.loads(payload)
    except OSError as error:
        hint = "`genbench baseline save` makes one"
        raise StoreError(f"{path}: no baseline here: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    found = values.get("schema") if isinstance(values, dict) else None
    if found != BASELINE_SCHEMA:
        raise StoreError(
            f"{path}: schema `{found}`, expected `{BASELINE_SCHEMA}`",
            hint="another version wrote it, or it is another kind of file: make it again with `genbench baseline save`",
        )
    try:
        return Baseline.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(path, f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}") from error


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write a baseline.

    Raises:
        StoreError: it cannot be written.
    """
    write_atomically(path, baseline.model_dump_json(indent=1).encode() + b"\n")


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(f"{path}: damaged: {why}", hint="make it again with `genbench baseline save`")
