"""The gate on real processes: the same code raises no alarm, a planted slow-down and a planted layer are found.

One repetition by default. The claim of the gate, at most one false alarm in 50 repetitions and the slow-down found,
or inconclusive, in all, is checked by

    python tests/test_gate_alarms.py 50 [equal] [slower]

which prints a line for each repetition, and a tally. On an idle machine a repetition is ten to twenty processes of a
few seconds each. Nothing else may run meanwhile: on a busy machine most verdicts are inconclusive.
"""

import collections
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from genbench.core.baseline import Selected
from genbench.core.bench import EFFORTS
from genbench.gating import SideBySide, chosen_cells, count, speed_gate
from genbench.regression.counters import compare_counters
from genbench.regression.rule import Rule
from genbench.rounds import HERE, Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
REPETITIONS = 1
KINDS = ("equal", "slower")
SHARE = 0.1
RULE = Rule(tolerance=0.02, max_rounds=5)
"""One look: a repetition is to take well under a minute. More rounds only turn what is inconclusive into a decision."""
SELECTED = Selected(suite="images_smoke", tier="smoke", models=("ddpm",))
PACKAGE = Path(__file__).resolve().parents[1] / "genbench"
MEASURE = "train_compute_images_per_second"


def _planted(folder: Path, *changes: tuple[str, str]) -> Installation:
    """A checkout of the package in which pieces of `ddpm` are replaced, each of which is there once."""
    shutil.copytree(PACKAGE, folder / "genbench", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "genbench" / "models" / "diffusion" / "ddpm.py"
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return Installation(path=folder)


def _slower(folder: Path, seconds: float) -> Installation:
    loss = "        x_0 = to_signed(batch.x, self.levels)\n        t = torch.randint"
    return _planted(
        folder,
        ("import dataclasses\n", "import dataclasses\nimport time\n"),
        (loss, f"        time.sleep({seconds!r})\n{loss}"),
    )


def _deeper(folder: Path) -> Installation:
    layer = "        self.unet = UNet(\n"
    use = "F.mse_loss(self.predict_noise(self._noised(x_0, t, eps), t), eps)"
    assert use in (PACKAGE / "models" / "diffusion" / "ddpm.py").read_text()
    return _planted(
        folder,
        (layer, f"        self.extra = nn.Conv2d(C, C, 1)\n{layer}"),
        (use, "F.mse_loss(self.extra(self.predict_noise(self._noised(x_0, t, eps), t)), eps)"),
    )


def _outcome(folder: Path, head: Installation) -> str:
    """Verdict on the training speed of `ddpm` in head, against the running code."""
    (cell,), _ = chosen_cells(SELECTED)
    sides = SideBySide(EFFORTS["smoke"], folder, base=HERE, head=head)
    verdicts = speed_gate([cell], measure=sides, rule=RULE, phases=("train",), tell=lambda text: None)
    return {verdict.measure: verdict.outcome for verdict in verdicts}[MEASURE]


def _step_seconds(folder: Path) -> float:
    """One training step of the running code."""
    (cell,), _ = chosen_cells(SELECTED)
    done = SideBySide(EFFORTS["smoke"], folder)("head", cell, "train", 0)
    rates = sorted(done.values[MEASURE])
    assert done.batch_size is not None
    return done.batch_size / rates[len(rates) // 2]


def test_the_same_code_raises_no_alarm(tmp_path):
    found = [_outcome(tmp_path / str(i), HERE) for i in range(REPETITIONS)]
    assert set(found) <= {"unchanged", "inconclusive"}, found


def test_a_slow_down_of_ten_per_cent_is_never_taken_for_unchanged(tmp_path):
    slow = _slower(tmp_path / "checkout", SHARE * _step_seconds(tmp_path / "step"))
    found = [_outcome(tmp_path / str(i), slow) for i in range(REPETITIONS)]
    assert set(found) <= {"regressed", "inconclusive"}, found


def test_an_extra_layer_is_found_by_its_counts_every_time(tmp_path):
    cells, _ = chosen_cells(SELECTED)
    sides = SideBySide(EFFORTS["smoke"], tmp_path, head=_deeper(tmp_path / "checkout"))
    base = count(cells, "base", sides, tell=lambda text: None)
    for _ in range(REPETITIONS):
        verdicts = compare_counters(base, count(cells, "head", sides, tell=lambda text: None))
        worse = {verdict.measure for verdict in verdicts if verdict.outcome == "regressed"}
        assert {"train.flops", "train.operators", "train.parameters", "sample.parameters"} <= worse
        assert "sample.flops" not in worse


def test_the_same_code_counts_the_same_every_time(tmp_path):
    cells, _ = chosen_cells(SELECTED)
    sides = SideBySide(EFFORTS["smoke"], tmp_path)
    base = count(cells, "base", sides, tell=lambda text: None)
    for _ in range(REPETITIONS):
        verdicts = compare_counters(base, count(cells, "head", sides, tell=lambda text: None))
        assert {verdict.outcome for verdict in verdicts} == {"unchanged"}


def _repeat(repetitions: int, kinds: Sequence[str]) -> None:
    """The long form: equal code and the slow-down in turns, or one of the two."""
    tally = {kind: collections.Counter() for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        heads = {"equal": HERE}
        if "slower" in kinds:
            heads["slower"] = _slower(folder / "checkout", SHARE * _step_seconds(folder / "step"))
        for number in range(repetitions):
            for kind in kinds:
                found = _outcome(folder / f"{kind}-{number}", heads[kind])
                tally[kind][found] += 1
                sys.stdout.write(f"{number + 1}/{repetitions} {kind}: {found}\n")
                sys.stdout.flush()
    for kind, counts in tally.items():
        sys.stdout.write(f"{kind}: {dict(counts)}\n")


if __name__ == "__main__":
    _repeat(int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS, sys.argv[2:] or KINDS)
