"""`genbench gate --base` from the command line, with real processes on both sides: exit codes, table and files.

The package is copied, and a piece of code is put at the end of one of its files. The copy is either what runs the gate
(head) or what it is held against (base).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from genbench.core.registry import PACKAGE_ROOT
from genbench.core.shipped import shipped
from genbench.core.verdict import GateReport

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(600)]

VAE = "models/vae/vae.py"
SLEEPS = """
import time
_sample = VAE.sample
def _slower(self, *inputs, **named):
    time.sleep(0.1)
    return _sample(self, *inputs, **named)
VAE.sample = _slower
"""
BREAKS = """
def _broken(self, *inputs, **named):
    raise RuntimeError("out of ideas")
VAE.sample = _broken
"""
OTHER_TORCH = """
_environment = environment
def environment(device):
    return _environment(device).model_copy(update={"torch": "1.0"})
"""
COUNTERS = ("--counters-only",)


@pytest.fixture
def planted(tmp_path):
    """A checkout that is this one but for a piece of code."""

    def plant(file, code):
        folder = tmp_path / "planted"
        shutil.copytree(PACKAGE_ROOT, folder / "genbench", ignore=shutil.ignore_patterns("__pycache__"))
        for kind in ("suites", "reference_stats"):
            (folder / kind).symlink_to(shipped(kind), target_is_directory=True)
        with (folder / "genbench" / file).open("a") as source:
            source.write(code)
        return folder

    return plant


@pytest.fixture
def gate(tmp_path):
    """Runs the gate on `vae`: the finished process, and its report."""

    def run(*words, base=PACKAGE_ROOT.parent, head=None, **variables):
        here = tmp_path / "here"  # holds no genbench
        here.mkdir()
        path = {} if head is None else {"PYTHONPATH": str(head)}
        command = [sys.executable, "-m", "genbench", "gate", "--base", str(base)]
        command += [
            "--suite",
            "images_smoke",
            "-m",
            "vae",
            "--device",
            "cpu",
            "--effort",
            "smoke",
            "--json",
            "gate.json",
        ]
        done = subprocess.run(
            [*command, "--json", "gate.json", *words],
            cwd=here,
            env={**os.environ, **path, **variables, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (here / "gate.json").is_file(), done.stderr
        return done, GateReport.model_validate_json((here / "gate.json").read_bytes())

    return run


def _outcomes(report, gate):
    return {verdict.measure: verdict.outcome for verdict in report.verdicts if verdict.gate == gate}


def test_the_same_code_passes_with_0(gate):
    done, report = gate("--phases", "latency", "--max-rounds", "2", "--tolerance", "10")
    assert done.returncode == report.exit_code == 0, done.stdout + done.stderr
    counted = _outcomes(report, "counters")
    assert {"train.flops", "sample.operators"} <= set(counted)
    assert set(counted.values()) == {"unchanged"}
    timed = _outcomes(report, "speed")
    assert set(timed) == {"latency_seconds"}
    assert timed["latency_seconds"] in {"unchanged", "inconclusive"}
    assert "passed (exit code 0)" in done.stdout
    assert "counting head [1/1] vae" in done.stderr
    assert "round 2 of at most 2: vae latency" in done.stderr


def test_a_planted_sleep_exits_with_1_and_is_told_in_every_file(gate, planted, tmp_path):
    page = tmp_path / "page.md"
    words = ("--phases", "latency", "--max-rounds", "3", "--junit", "gate.xml", "--github")
    done, report = gate(*words, head=planted(VAE, SLEEPS), GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == report.exit_code == 1, done.stdout + done.stderr
    assert set(_outcomes(report, "counters").values()) == {"unchanged"}  # to sleep is no work
    (slower,) = (verdict for verdict in report.verdicts if verdict.gate == "speed")
    assert (slower.measure, slower.outcome, slower.confirmed) == ("latency_seconds", "regressed", True)
    assert slower.head > 0.1 > slower.base
    assert slower.ci95[0] > slower.tolerance
    told = [line for line in done.stdout.splitlines() if "latency_seconds" in line and not line.startswith("::")]
    assert told[0].split()[:3] == ["+", "vae", "latency_seconds"], done.stdout
    assert "regressed; 3 rounds, confirmed" in told[0]
    assert "regression found (exit code 1): 1 regressed" in done.stdout
    assert "1 alarm" in done.stderr
    assert "\n::error title=genbench::vae on shapes[resolution=8]: latency_seconds regressed" in done.stdout
    assert page.read_text().startswith("## genbench: regression found\n")
    assert "| 🔴 | vae on shapes" in page.read_text()
    suites = ET.parse(tmp_path / "here" / "gate.xml").getroot()
    assert (suites.attrib["failures"], suites.attrib["errors"]) == ("1", "0")
    assert [case.attrib["name"] for case in suites.iter("testcase") if case.find("failure") is not None] == [
        "vae on shapes[resolution=8]: latency_seconds"
    ]
    written = json.loads((tmp_path / "here" / "gate.json").read_text())
    assert written["schema"] == "genbench.gate/1"
    assert written["environment"]["torch"]


def test_a_model_that_head_has_broken_exits_with_3_and_one_that_was_broken_before_with_6(gate, planted, tmp_path):
    broken = planted(VAE, BREAKS)
    done, report = gate(*COUNTERS, head=broken)
    assert done.returncode == report.exit_code == 3, done.stdout + done.stderr
    assert "vae: cell: counters: RuntimeError: out of ideas" in done.stdout
    assert "some cell failed (exit code 3): 1 fails" in done.stdout
    logs = list((tmp_path / "here" / "runs" / "gate" / "head").glob("*/stderr.log"))
    assert any("out of ideas" in log.read_text() for log in logs)
    shutil.rmtree(tmp_path / "here")
    done, report = gate(*COUNTERS, base=broken, head=broken)
    assert done.returncode == report.exit_code == 6, done.stdout + done.stderr
    assert "nothing compared (exit code 6): 1 still fails" in done.stdout


def test_a_base_with_another_torch_exits_with_5(gate, planted):
    done, report = gate(*COUNTERS, base=planted("harness/environment.py", OTHER_TORCH))
    assert done.returncode == report.exit_code == 5, done.stdout + done.stderr
    assert "not comparable (exit code 5): 1 not comparable" in done.stdout
    assert "torch 1.0 in base" in done.stdout
