"""Where a record is made: machine, versions, threads, load."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from genbench.core.record import Environment
from genbench.core.registry import PACKAGE_ROOT

_PACKAGES = ("numpy", "pillow", "scipy", "scikit-learn", "safetensors")


def environment(device: torch.device) -> Environment:
    """The environment of this process."""
    commit, dirty = _commit(PACKAGE_ROOT)
    return Environment(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        platform=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        packages={name: _version(name) for name in _PACKAGES},
        threads=torch.get_num_threads(),
        load_average=round(os.getloadavg()[0], 2),
        processors=_processors(),
        commit=commit,
        dirty=dirty,
    )


def _processors() -> int | None:
    """How many this process may use, which a container or `taskset` may have cut."""
    if sys.platform != "linux":
        return os.cpu_count()
    return len(os.sched_getaffinity(0))


def _processor() -> str:
    """Name of the processor as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _commit(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that the package runs from, and whether it was changed."""
    if not (folder.parent / ".git").exists():
        return None, None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head[:12], bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
    return done.stdout.strip()
