"""`genbench doctor`: versions, devices, folders, data: what is here, what is missing, what to do."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from genbench.core.shipped import cache_folder, shipped
from genbench.core.version import VERSION

_PACKAGES = ("torch", "torchvision", "torch-fidelity", "numpy", "scipy", "pandas", "pillow", "scikit-learn", "pydantic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare that there are no options."""
    parser.epilog = "example: genbench doctor"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print what was found."""
    lines = [f"genbench {VERSION}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"]
    lines += [f"  {name:14} {_version(name)}" for name in _PACKAGES]
    lines += ["devices", *_devices()]
    lines += ["folders", f"  suites         {shipped('suites')}", f"  cache          {_writable(cache_folder())}"]
    lines += [f"  working        {_writable(Path.cwd())}"]
    lines += ["data", *_data()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return f"missing: pip install {package}"


def _devices() -> list[str]:
    import torch

    found = [f"  cpu            {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"]
    if not torch.cuda.is_available():
        return [*found, "  cuda           none; the tier `quick` is made for that"]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [*found, *(f"  cuda:{index}         {name}" for index, name in enumerate(names))]


def _writable(folder: Path) -> str:
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free / 2**30
    state = "writable" if os.access(nearest, os.W_OK) else "NOT writable: set GENBENCH_CACHE, or use --out"
    return f"{folder} ({state}, {free:.1f} GiB free)"


def _data() -> list[str]:
    given = os.environ.get("GENBENCH_DATA")
    if given is None:
        return ["  GENBENCH_DATA  not set: mnist, cifar10 and other files are looked for in the cache folder"]
    return [f"  GENBENCH_DATA  {given}{'' if Path(given).is_dir() else ' (no such folder)'}"]
