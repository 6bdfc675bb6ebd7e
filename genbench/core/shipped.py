"""Where the files that travel with the package lie: suites and reference statistics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from genbench.core.registry import PACKAGE_ROOT


def shipped(kind: Literal["suites", "reference_stats"]) -> Path:
    """Folder of shipped files: inside an installed wheel, or beside the package in a checkout."""
    installed = PACKAGE_ROOT / "_shipped" / kind
    return installed if installed.is_dir() else PACKAGE_ROOT.parent / kind


def cache_folder() -> Path:
    """Folder for what can be remade: `GENBENCH_CACHE`, else `~/.cache/genbench`."""
    given = os.environ.get("GENBENCH_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "genbench"
