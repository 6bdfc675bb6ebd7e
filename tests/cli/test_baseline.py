"""`genbench baseline`: what is kept, shown and calibrated."""

import pytest
from gate_files import BROKEN, baseline, call, counted, run_folder, score

from genbench.cli import baseline as command
from genbench.core.errors import SettingError, StoreError
from genbench.regression.baseline_file import read_baseline


def test_scores_of_a_run_are_kept_and_shown(tmp_path, capsys):
    file = tmp_path / "baseline.json"
    run = run_folder(tmp_path / "run", {"ddpm": score(60.0)})
    assert call(command, ["save", "--baseline", file, "--from", run]) == 0
    assert [score.value for score in read_baseline(file).of("quality")[0].scores] == [60.0]
    capsys.readouterr()
    assert call(command, ["show", file]) == 0
    said = capsys.readouterr().out
    assert "ddpm" in said
    assert "fd_shapes_net" in said


def test_a_baseline_with_failed_cells_is_saved_with_3_and_one_of_only_such_is_not(tmp_path):
    file = tmp_path / "baseline.json"
    some = run_folder(tmp_path / "some", {"ddpm": score(60.0)}, failed=("vae",))
    assert call(command, ["save", "--baseline", file, "--from", some]) == 3
    assert len(read_baseline(file).entries) == 2
    none = run_folder(tmp_path / "none", {}, failed=("vae",))
    assert call(command, ["save", "--baseline", tmp_path / "other.json", "--from", none]) == 3
    assert not (tmp_path / "other.json").exists()


def test_runs_of_the_same_code_add_their_noise_floor_which_a_new_baseline_keeps(tmp_path, capsys):
    file = tmp_path / "baseline.json"
    runs = [run_folder(tmp_path / f"run{i}", {"ddpm": score(value)}) for i, value in enumerate((59.0, 60.0, 61.0))]
    assert call(command, ["save", "--baseline", file, "--from", runs[0]]) == 0
    assert call(command, ["calibrate", *runs, "--baseline", file]) == 0
    (floor,) = read_baseline(file).noise
    assert (floor.deviation, floor.degrees) == (pytest.approx(1.0), 2)
    assert "noise floor" in capsys.readouterr().out
    assert call(command, ["save", "--baseline", file, "--from", runs[1]]) == 0
    assert read_baseline(file).noise == (floor,)


def test_a_second_calibration_takes_the_place_of_the_first(tmp_path):
    file = baseline(tmp_path / "baseline.json", counted())
    for values in ((50.0, 60.0), (59.0, 61.0)):
        runs = [run_folder(tmp_path / f"run{value}", {"ddpm": score(value)}) for value in values]
        assert call(command, ["calibrate", *runs, "--baseline", file]) == 0
    (floor,) = read_baseline(file).noise
    assert floor.deviation == pytest.approx(2.0**0.5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["save", "--baseline", "b.json"], "nothing to keep"),
        (["save", "--baseline", "b.json", "-m", "ddpm"], "without `--suite`"),
        (["save", "--baseline", "b.json", "--from", "nowhere"], "nothing that was measured"),
        (["show", "b.json"], "no baseline here"),
        (["calibrate", "one", "--baseline", "b.json"], "one run has no spread"),
        (["calibrate", "one", "two", "--baseline", "b.json"], "no baseline here"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((SettingError, StoreError), match=message):
        call(command, words)
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_score_in_common_calibrate_nothing(tmp_path):
    file = baseline(tmp_path / "baseline.json", counted(error=BROKEN))
    runs = [run_folder(tmp_path / label, {label: score(1.0)}) for label in ("ddpm", "vae")]
    with pytest.raises(SettingError, match="no score is in two"):
        call(command, ["calibrate", *runs, "--baseline", file])


@pytest.mark.slow
def test_counts_of_the_running_code_are_kept(tmp_path):
    file = tmp_path / "baseline.json"
    words = ["save", "--baseline", file, "--suite", "images_smoke", "-m", "vae", "--out", tmp_path / "rounds"]
    assert call(command, words) == 0
    (entry,) = read_baseline(file).entries
    assert entry.gate == "counters"
    assert entry.counters["train"].flops > 0
    assert read_baseline(file).selected.models == ("vae",)
