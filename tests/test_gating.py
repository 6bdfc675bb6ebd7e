"""The controller of the gate on rounds that are made up: order, stopping, confirmation, failures. No process runs."""

import random
import sys
from pathlib import Path

import pytest

from genbench.core.baseline import Selected
from genbench.core.bench import EFFORTS, Round
from genbench.core.errors import SettingError, UnknownName
from genbench.core.record import Environment, Failure
from genbench.gating import SideBySide, chosen_cells, count, installation_of, speed_gate
from genbench.regression.rule import Rule
from genbench.regression.speed import Pair

SELECTED = Selected(suite="images_smoke", tier="smoke", models=("ddpm", "vae"))
CELLS = chosen_cells(SELECTED)[0]
BROKEN = Failure(phase="train", type="RuntimeError", message="out of ideas")
NOT_FOR_IT = Failure(phase="build", type="NotApplicable", message="does not train")


class MadeUp:
    """Rounds whose readings follow a law: head of `slow` takes `factor` times as long; each round has `noise`."""

    def __init__(self, *, slow=None, factor=1.0, noise=0.003, errors=None, only_first=False):
        self._slow, self._factor, self._noise = slow, factor, noise
        self._errors, self._only_first = errors or {}, only_first
        self._random = random.Random(0)
        self.calls = []

    def __call__(self, side, cell, phase, index):
        self.calls.append((side, cell.label, phase, index))
        error = self._errors.get((side, cell.label, phase))
        if error is not None:
            return Round(label=cell.label, phase=phase, index=index, error=error)
        slow = side == "head" and cell.label == self._slow and not (self._only_first and index >= 15)
        seconds = (self._factor if slow else 1.0) * self._random.lognormvariate(0.0, self._noise)
        name, value = ("latency_seconds", seconds) if phase == "latency" else ("train_images_per_second", 1 / seconds)
        return Round(label=cell.label, phase=phase, index=index, values={name: (value, value, value)})

    def pair(self, cell, phase, index, *, first):
        order = ("base", "head") if first == "base" else ("head", "base")
        rounds = {side: self(side, cell, phase, index) for side in order}
        return Pair(rounds["base"], rounds["head"])


def _gate(measure, *, phases=("train", "latency"), cells=CELLS, **rule):
    told = []
    verdicts = speed_gate(cells, measure=measure, rule=Rule(**rule), phases=phases, tell=told.append)
    return {(v.row, v.measure): v for v in verdicts}, told


def test_equal_sides_are_unchanged_after_five_pairs_of_rounds():
    measure = MadeUp()
    found, _ = _gate(measure)
    assert {v.outcome for v in found.values()} == {"unchanged"}
    assert len(found) == 4
    assert len(measure.calls) == 2 * 2 * 2 * 5


def test_rounds_of_one_index_are_neighbours_and_sides_take_turns_to_come_first():
    measure = MadeUp()
    _gate(measure)
    assert [index for *_, index in measure.calls] == sorted(index for *_, index in measure.calls)
    pairs = [measure.calls[i : i + 2] for i in range(0, len(measure.calls), 2)]
    assert all({a[0], b[0]} == {"base", "head"} and a[1:] == b[1:] for a, b in pairs)
    firsts = [a[0] for a, _ in pairs]
    assert firsts.count("base") == firsts.count("head")
    orders = {tuple(a[1:3] for a, _ in pairs[i : i + 4]) for i in range(0, 20, 4)}
    assert len(orders) > 1


def test_a_slow_down_is_found_confirmed_in_new_rounds_and_nothing_else_is_measured_again():
    measure = MadeUp(slow="ddpm", factor=1.1)
    found, told = _gate(measure)
    slow = {key for key, v in found.items() if v.outcome == "regressed"}
    assert slow == {("ddpm", "train_images_per_second"), ("ddpm", "latency_seconds")}
    assert all(found[key].confirmed for key in slow)
    again = [call for call in measure.calls if call[3] >= 15]
    assert {label for _, label, *_ in again} == {"ddpm"}
    assert {index for *_, index in again} == {15, 16, 17, 18, 19}
    assert "2 alarms: measuring them again" in told


def test_an_alarm_that_goes_away_in_new_rounds_is_inconclusive():
    found, _ = _gate(MadeUp(slow="ddpm", factor=1.1, only_first=True), phases=("train",))
    verdict = found["ddpm", "train_images_per_second"]
    assert (verdict.outcome, verdict.confirmed) == ("inconclusive", False)
    assert verdict.note.startswith("not confirmed: -9.")


def test_noise_adds_rounds_up_to_the_cap_and_ends_inconclusive():
    measure = MadeUp(noise=0.1)
    found, _ = _gate(measure, phases=("train",), max_rounds=7)
    assert {v.outcome for v in found.values()} == {"inconclusive"}
    assert max(index for *_, index in measure.calls) == 6


def test_a_subject_that_is_decided_is_not_measured_on():
    class Loud(MadeUp):
        def __call__(self, side, cell, phase, index):
            self._noise = 0.1 if cell.label == "vae" else 0.001
            return super().__call__(side, cell, phase, index)

    measure = Loud()
    _gate(measure, phases=("train",))
    rounds = {label: max(i for _, name, _, i in measure.calls if name == label) + 1 for label in ("ddpm", "vae")}
    assert rounds == {"ddpm": 5, "vae": 15}


def test_a_newly_failing_subject_is_told_at_once_and_does_not_stop_the_others():
    measure = MadeUp(errors={("head", "vae", "train"): BROKEN})
    found, _ = _gate(measure)
    assert found["vae", "train"].outcome == "failed"
    assert found["vae", "latency_seconds"].outcome == "unchanged"
    assert sum(call[1:3] == ("vae", "train") for call in measure.calls) == 2


def test_a_subject_that_fails_while_an_alarm_is_confirmed_is_a_failure():
    class BreaksLater(MadeUp):
        def __call__(self, side, cell, phase, index):
            if index >= 15 and side == "head":
                return Round(label=cell.label, phase=phase, index=index, error=BROKEN)
            return super().__call__(side, cell, phase, index)

    found, _ = _gate(BreaksLater(slow="ddpm", factor=1.1), phases=("train",))
    assert found["ddpm", "train"].outcome == "failed"
    assert found["ddpm", "train_images_per_second"].outcome == "inconclusive"


def test_a_phase_that_does_not_apply_is_left_out_after_one_pair():
    both = {(side, "vae", "train"): NOT_FOR_IT for side in ("base", "head")}
    measure = MadeUp(errors=both)
    found, _ = _gate(measure, phases=("train",))
    assert set(found) == {("ddpm", "train_images_per_second")}
    assert sum(call[1] == "vae" for call in measure.calls) == 2


def test_sides_on_two_versions_of_torch_are_not_comparable_unless_asked_for():
    class Other(MadeUp):
        def __call__(self, side, cell, phase, index):
            given = {"device": "Xeon", "platform": "Linux", "python": "3.11", "packages": {}, "threads": 2}
            made = Environment(torch="2.6.0" if side == "base" else "2.7.0", **given)
            return super().__call__(side, cell, phase, index).model_copy(update={"environment": made})

    measure = Other()
    found, _ = _gate(measure, phases=("train",))
    assert {key: v.outcome for key, v in found.items()} == {
        ("ddpm", "train"): "not_comparable",
        ("vae", "train"): "not_comparable",
    }
    assert "torch 2.6.0" in found["vae", "train"].note
    assert len(measure.calls) == 4
    verdicts = speed_gate(
        CELLS, measure=Other(), rule=Rule(), phases=("train",), any_version=True, tell=lambda text: None
    )
    assert {v.outcome for v in verdicts} == {"unchanged"}


def test_counting_asks_for_one_round_of_each_cell_and_keeps_failures():
    measure = MadeUp(errors={("head", "vae", "counters"): BROKEN})
    entries = count(CELLS, "head", measure, tell=lambda text: None)
    assert [entry.row.label for entry in entries] == ["ddpm", "vae"]
    assert [entry.error for entry in entries] == [None, BROKEN]
    assert measure.calls == [("head", "ddpm", "counters", 0), ("head", "vae", "counters", 0)]


def test_seeds_and_controls_of_a_suite_make_no_rows_of_their_own():
    cells, unknown = chosen_cells(Selected(suite="images_smoke", tier="smoke"))
    assert len(cells) == 7
    assert {cell.role for cell in cells} == {"model"}
    assert unknown == []


def test_a_model_that_is_gone_is_named_and_the_others_are_measured():
    cells, unknown = chosen_cells(Selected(suite="images_smoke", tier="smoke", models=("vae", "no_such_model")))
    assert [cell.label for cell in cells] == ["vae"]
    assert unknown == ["no_such_model"]
    with pytest.raises(UnknownName):
        chosen_cells(Selected(suite="no_such_suite", tier="smoke"))


def test_a_base_is_a_checkout_or_an_environment():
    root = Path(__file__).resolve().parents[1]
    assert installation_of(root).path == root
    found = installation_of(Path(sys.prefix))
    assert Path(found.python).parent == Path(sys.prefix).absolute() / "bin"
    with pytest.raises(SettingError, match="neither a checkout"):
        installation_of(root / "docs")


@pytest.mark.slow
def test_a_real_round_is_measured_in_the_folder_of_its_side(tmp_path):
    measure = SideBySide(EFFORTS["smoke"], tmp_path)
    done = measure("head", CELLS[0], "train", 3)
    assert done.error is None
    assert done.values["train_images_per_second"]
    assert [path.name for path in (tmp_path / "head").iterdir()] == [f"{CELLS[0].key}-train-3"]


@pytest.mark.slow
def test_a_real_pair_takes_its_readings_in_turns_and_each_side_has_a_folder(tmp_path):
    pair = SideBySide(EFFORTS["smoke"], tmp_path).pair(CELLS[1], "latency", 2, first="head")
    for side in (pair.base, pair.head):
        assert side.error is None
        assert side.in_turns
        assert len(side.values["latency_seconds"]) >= 20
    assert {path.name for path in tmp_path.iterdir()} == {"base", "head"}
    assert [path.name for path in (tmp_path / "head").iterdir()] == [f"{CELLS[1].key}-latency-2"]
