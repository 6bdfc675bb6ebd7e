"""Where downloaded data lie, and what is said when they do not."""

from __future__ import annotations

import os
from pathlib import Path

from genbench.core.errors import DataError


def data_root() -> Path:
    """The folder of downloaded data: `GENBENCH_DATA`, else `GENBENCH_CACHE`/data, else ~/.cache/genbench/data."""
    given = os.environ.get("GENBENCH_DATA")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("GENBENCH_CACHE") or "~/.cache/genbench"
    return Path(cache).expanduser() / "data"


def missing(name: str, *, looked: Path, how: str) -> DataError:
    """The error for a dataset that is not there.

    Args:
        name: the dataset.
        looked: the file or folder that was not found.
        how: the URL or command that gets it.
    """
    variable = "is set" if os.environ.get("GENBENCH_DATA") else "is not set"
    return DataError(
        f"dataset `{name}` is not there: looked for {looked}",
        hint=f"{how}; or let the environment variable GENBENCH_DATA ({variable}) name the folder that holds `{name}/`",
    )
