"""Weights that ship with a description: a JSON file beside them that says what they are and what their digest is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from genbench.core.errors import DataError

Said = TypeVar("Said")


def described(path: Path, *, owner: str, read: Callable[[Mapping[str, Any]], Said]) -> tuple[Said, str]:
    """What the JSON beside weights says, and their digest, after the weights are found to match it.

    Args:
        path: of the weights.
        owner: the extractor that trains them.
        read: takes what is wanted from the JSON; its ValueError, KeyError and TypeError count as damage to the file.

    Raises:
        DataError: weights or their description are missing or do not belong together.
    """
    beside = path.with_suffix(".json")
    hint = f"`genbench features train {owner} --out {path.parent}` writes both files"
    try:
        description = json.loads(beside.read_text(encoding="utf-8"))
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        said, expected = read(description), str(description["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint=hint) from error
    if found != expected:
        raise DataError(f"{path}: SHA-256 is {found[:16]}, {beside.name} says {expected[:16]}", hint=hint)
    return said, expected
