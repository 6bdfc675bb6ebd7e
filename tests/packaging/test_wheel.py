"""The wheel carries suites, statistics and weights, and works in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("genbench-*.whl"))


def test_everything_that_a_run_needs_travels_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "genbench/_shipped/suites/images.yaml" in names
    assert "genbench/_shipped/reference_stats/shapes-16/shapes_net-train.npz" in names
    assert "genbench/features/weights/shapes_net.safetensors" in names
    assert "genbench/features/weights/shapes_clip.safetensors" in names
    assert "genbench/features/weights/shapes_language.safetensors" in names
    assert "genbench/features/weights/tones_net.safetensors" in names
    assert "genbench/_shipped/reference_stats/tones/tones_net-train.npz" in names
    assert "genbench/py.typed" in names
    assert not [name for name in names if name.startswith("tests")]
    assert wheel.stat().st_size < 5 * 2**20


def test_an_installed_wheel_lists_and_plans_from_an_empty_folder(wheel, tmp_path):
    """A fresh environment; its dependencies are those of this one, which saves a download."""
    venv, empty = tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    site = Path(subprocess.run([str(python), "-c", _SITE], capture_output=True, text=True, check=True).stdout.strip())
    own = Path(subprocess.run([sys.executable, "-c", _SITE], capture_output=True, text=True, check=True).stdout.strip())
    zipfile.ZipFile(wheel).extractall(site)
    # After the wheel's own place, and without this environment's editable install of the package.
    (site / "dependencies.pth").write_text(f"{own}\n")

    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # else it would come first

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(python), "-c", _CALL, *words], cwd=empty, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert str(venv) in done.stdout.splitlines()[0]
        return done.stdout

    assert "images" in run("list", "suites")
    assert "cells, 0 finished" in run("plan", "--suite", "images")
    assert "fd_shapes_net" in run("evaluate", "digits", "--reference", "digits")
    assert list(empty.iterdir()) == []


_CALL = """
import sys, genbench
from genbench.cli.main import main
print(genbench.__file__)
sys.exit(main(sys.argv[1:]))
"""
_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"
