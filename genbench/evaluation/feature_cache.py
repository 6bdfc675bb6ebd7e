"""Features that were extracted before, by the content of the pictures and the whole protocol of the extractor.

And what was odd about the pictures, so that nobody is told less of samples that were seen before.

A name is never trusted: other pictures, weights, resizing, precision, layer or rows are another entry. Each entry is an
`.npy` beside a JSON with its identity and SHA-256; a damaged one is set aside and computed again, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np

from genbench.core.files import unwritable, write_atomically
from genbench.core.shipped import cache_folder
from genbench.core.spec import Scalar, digest

SCHEMA = "genbench.features/1"
INSPECTION = "inspection 1"
"""In place of a protocol and a layer: what an inspection counted in the pictures, by the first version of its rules."""
_BLOCK = 1 << 22

logger = logging.getLogger(__name__)


def entry(pictures: str, protocol: dict[str, Scalar], layer: str) -> dict[str, object]:
    """The identity of features.

    Args:
        pictures: digest of the pictures themselves and of which of them are meant.
        protocol: of the extractor.
        layer: which of its outputs.
    """
    return {"schema": SCHEMA, "pictures": pictures, "protocol": protocol, "layer": layer}


def inspection_entry(pictures: str) -> dict[str, object]:
    """The identity of what an inspection counted; no extractor plays a part."""
    return entry(pictures, {}, INSPECTION)


def cached(identity: dict[str, object]) -> np.ndarray | None:
    """The features (N, F) under that identity, mapped from the file, or None where there are none that hold."""
    path = _path(identity)
    beside = path.with_suffix(".json")
    if not (path.is_file() and beside.is_file()):
        return None
    try:
        described = json.loads(beside.read_text(encoding="utf-8"))
        if described["identity"] != identity:
            raise ValueError("it was made from something else")
        if described["payload_sha256"] != _sha256(path):
            raise ValueError("the content does not match its recorded SHA-256")
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, KeyError) as error:
        bad = path.parent / "bad"
        bad.mkdir(exist_ok=True)
        for part in (path, beside):
            if part.is_file():
                part.replace(bad / part.name)
        logger.warning("%s: %s; set aside under %s and computed again", path, error, bad)
        return None


def keep(identity: dict[str, object], features: np.ndarray) -> None:
    """Write features (N, F) for later; a kill leaves the old entry or the whole new one.

    Raises:
        StoreError: the cache cannot be written.
    """
    path = _path(identity)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(partial, features, allow_pickle=False)
        described = {"identity": identity, "payload_sha256": _sha256(partial)}
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    write_atomically(path.with_suffix(".json"), (json.dumps(described, indent=1) + "\n").encode())


def _path(identity: dict[str, object]) -> Path:
    return cache_folder() / "features" / f"{digest(identity)}.npy"


def _sha256(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            content.update(block)
    return content.hexdigest()
