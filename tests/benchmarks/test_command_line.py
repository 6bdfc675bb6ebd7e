"""What it costs to start: run with `make benchmarks`. Read against `test_bare_interpreter`."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _run(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "words",
    [("-c", "pass"), ("-m", "genbench", "--help"), ("-m", "genbench", "list", "models"), ("-c", "import genbench")],
    ids=["bare interpreter", "help", "list models", "import"],
)
def test_start(benchmark, words):
    benchmark.pedantic(_run, args=words, rounds=5, warmup_rounds=1)
