"""Where downloaded data lie, and what is said when they do not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from genbench.core.errors import DataError


def data_root() -> Path:
    """The folder of downloaded data: `GENBENCH_DATA`, else `GENBENCH_CACHE`/data, else ~/.cache/genbench/data."""
    given = os.environ.get("GENBENCH_DATA")
    if given:
        return Path(given).expanduser()
    cache = os.environ.get("GENBENCH_CACHE") or "~/.cache/genbench"
    return Path(cache).expanduser() / "data"


def missing(name: str, *, looked: Path | Sequence[Path], how: str) -> DataError:
    """The error for a dataset that is not there.

    Args:
        name: the dataset.
        looked: the file or folder that was not found, or several, one of which would have done.
        how: the URL or command that gets it.
    """
    variable = "is set" if os.environ.get("GENBENCH_DATA") else "is not set"
    places = [looked] if isinstance(looked, Path) else looked
    return DataError(
        f"dataset `{name}` is not there: looked for {' or '.join(map(str, places))}",
        hint=f"{how}; or let the environment variable GENBENCH_DATA ({variable}) name the folder that holds `{name}/`",
    )
