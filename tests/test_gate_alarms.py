"""The gate on real processes: the same code raises no alarm, a planted slow-down and a planted layer are found.

One repetition by default. The claim of the gate, at most one false alarm in 50 repetitions and the slow-down found,
or inconclusive, in all, is checked by

    python tests/test_gate_alarms.py 50 [equal] [slower]

which prints a line for each repetition, and a tally. A repetition is five to ten pairs of processes, seldom up to
thirty, of about ten seconds each on an idle machine. Both sides of a pair take their blocks in turn, so that other work
may run meanwhile.
"""

import collections
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from genbench.core.baseline import Selected
from genbench.core.bench import EFFORTS
from genbench.core.verdict import Verdict
from genbench.gating import SideBySide, chosen_cells, count, speed_gate
from genbench.regression.counters import compare_counters
from genbench.regression.rule import Rule
from genbench.rounds import HERE, Installation

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(3600)]
REPETITIONS = 1
KINDS = ("equal", "slower")
SHARE = 0.1
RULES = {"equal": Rule(max_rounds=5), "slower": Rule()}
"""Equal code is looked at once: more rounds would mostly tell it unchanged. A slow-down is looked at as by default."""
FEW = Rule(max_rounds=3)
"""For one repetition among other tests."""
SELECTED = Selected(suite="images_smoke", tier="smoke", models=("ddpm",))
BASE = Path("models", "_gaussian_diffusion.py")
PACKAGE = Path(__file__).resolve().parents[1] / "genbench"
MEASURE = "train_compute_images_per_second"


def _planted(folder: Path, *changes: tuple[str, str]) -> Installation:
    """A checkout of the package in which pieces of what `ddpm` rests on are replaced, each of which is there once."""
    shutil.copytree(PACKAGE, folder / "genbench", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "genbench" / BASE
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
        ("import math\n", "import math\nimport time\n"),
        (loss, f"        time.sleep({seconds!r})\n{loss}"),
    )


def _deeper(folder: Path) -> Installation:
    made, used = "        self.conditioner = None\n", "        found = prediction.convert(out, "
    return _planted(
        folder,
        (made, f"{made}        self.extra = nn.Conv2d(spec.shape[0], spec.shape[0], 1)\n"),
        (used, used.replace("out", "self.extra(out)")),
    )


def _verdict(folder: Path, head: Installation, rule: Rule) -> Verdict:
    """Verdict on the training speed of `ddpm` in head, against the running code."""
    (cell,), _ = chosen_cells(SELECTED)
    sides = SideBySide(EFFORTS["smoke"], folder, base=HERE, head=head)
    verdicts = speed_gate([cell], measure=sides, rule=rule, phases=("train",), tell=lambda text: None)
    return {verdict.measure: verdict for verdict in verdicts}[MEASURE]


def _step_seconds(folder: Path) -> float:
    """One training step of the running code, under the conditions in which the gate measures it."""
    (cell,), _ = chosen_cells(SELECTED)
    done = SideBySide(EFFORTS["smoke"], folder).pair(cell, "train", 0, first="base").head
    rates = sorted(done.values[MEASURE])
    assert done.batch_size is not None
    return done.batch_size / rates[len(rates) // 2]


def test_the_same_code_raises_no_alarm(tmp_path):
    found = [_verdict(tmp_path / str(i), HERE, FEW).outcome for i in range(REPETITIONS)]
    assert set(found) <= {"unchanged", "inconclusive"}, found


def test_a_slow_down_of_ten_per_cent_is_never_taken_for_unchanged(tmp_path):
    slow = _slower(tmp_path / "checkout", SHARE * _step_seconds(tmp_path / "step"))
    found = [_verdict(tmp_path / str(i), slow, FEW).outcome for i in range(REPETITIONS)]
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
                found = _verdict(folder / f"{kind}-{number}", heads[kind], RULES[kind])
                tally[kind][found.outcome] += 1
                low, high = found.ci95 or (math.nan, math.nan)
                shown = f"{found.change or 0.0:+.1%} [{low:+.1%}, {high:+.1%}]"
                sys.stdout.write(f"{number + 1}/{repetitions} {kind}: {found.outcome} {shown}\n")
                sys.stdout.flush()
    for kind, counts in tally.items():
        sys.stdout.write(f"{kind}: {dict(counts)}\n")


if __name__ == "__main__":
    _repeat(int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS, sys.argv[2:] or KINDS)
