"""Single files of the user's: found, stamped, and read once for as long as they stay as they are."""

from __future__ import annotations

import functools
from pathlib import Path

from genbench.core.dataset import Split
from genbench.core.errors import DataError

SPLITS: tuple[Split, ...] = ("train",)
"""Of a file that is not divided: everything."""
Stamp = tuple[int, int]
"""When a file was last written, and its size: one that was written again is read again."""

cached = functools.lru_cache(maxsize=4)
"""Keeps what was found in the last few files; `Stamp` must be among the arguments."""


def existing(path: str, kind: str) -> tuple[Path, Stamp]:
    """The file and its stamp.

    Raises:
        DataError: there is no such file.
    """
    found = Path(path).expanduser().absolute()
    if not found.is_file():
        raise DataError(f"{kind}:{path}: there is no file {found}", hint="check the path")
    status = found.stat()
    return found, (status.st_mtime_ns, status.st_size)
