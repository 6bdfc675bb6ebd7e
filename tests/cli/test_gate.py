"""`genbench gate`: every exit code, and where its outputs go. Fast tests start no process: scores come from files."""

import json
import xml.etree.ElementTree as ET

import pytest
from gate_files import BROKEN, baseline, call, counted, run_folder, score

from genbench.cli import gate
from genbench.core.errors import SettingError, StoreError
from genbench.regression.baseline_file import read_baseline
from genbench.regression.entries import recorded
from genbench.store import RunFolder


def _held_against(tmp_path, base, head, *, failed=(), failed_before=(), words=()):
    """Exit code of the gate on a run with the scores `head` against one with the scores `base`."""
    before = recorded(RunFolder.open(run_folder(tmp_path / "base", base, failed=failed_before)).records())
    file = baseline(tmp_path / "baseline.json", *before)
    folder = run_folder(tmp_path / "head", head, failed=failed)
    return call(gate, ["--baseline", file, "--run", folder, *words])


def test_equal_scores_pass_with_0(tmp_path, capsys):
    assert _held_against(tmp_path, {"ddpm": score(60.0)}, {"ddpm": score(60.0)}) == 0
    said = capsys.readouterr().out
    assert "passed (exit code 0): 1 unchanged" in said
    assert "fd_shapes_net ↓" in said


def test_a_score_that_is_worse_beyond_noise_and_tolerance_exits_with_1(tmp_path, capsys):
    assert _held_against(tmp_path, {"ddpm": score(60.0)}, {"ddpm": score(70.0)}) == 1
    said = capsys.readouterr().out
    assert "regression found (exit code 1): 1 regressed" in said
    assert "+10.0" in said


def test_a_row_that_has_vanished_exits_with_1(tmp_path, capsys):
    assert _held_against(tmp_path, {"ddpm": score(60.0), "vae": score(9.0)}, {"ddpm": score(60.0)}) == 1
    assert "vae: cell: measured in base, not in head" in capsys.readouterr().out


def test_a_row_that_newly_fails_exits_with_3(tmp_path, capsys):
    before = {"ddpm": score(60.0), "vae": score(9.0)}
    assert _held_against(tmp_path, before, {"ddpm": score(60.0)}, failed=("vae",)) == 3
    said = capsys.readouterr().out
    assert "some cell failed (exit code 3): 1 fails, 1 unchanged" in said
    assert "vae: cell: train: RuntimeError: out of ideas" in said


def test_a_row_that_failed_before_as_well_passes(tmp_path, capsys):
    ok = {"ddpm": score(60.0)}
    assert _held_against(tmp_path, ok, ok, failed=("vae",), failed_before=("vae",)) == 0
    assert "1 still fails" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "code"), [((), 0), (("--strict",), 4)])
def test_what_is_inconclusive_exits_with_4_only_when_strict(tmp_path, capsys, words, code):
    noisy = {"ddpm": score(61.0, stderr=5.0)}
    assert _held_against(tmp_path, {"ddpm": score(60.0, stderr=5.0)}, noisy, words=words) == code
    assert "1 inconclusive" in capsys.readouterr().out


def test_scores_of_another_protocol_exit_with_5(tmp_path, capsys):
    assert _held_against(tmp_path, {"ddpm": score(60.0)}, {"ddpm": score(60.0, num_samples=512)}) == 5
    said = capsys.readouterr().out
    assert "not comparable (exit code 5)" in said
    assert "num_samples 256 in base, 512 in head" in said


def test_nothing_in_common_that_was_measured_exits_with_6(tmp_path, capsys):
    assert _held_against(tmp_path, {}, {"ddpm": score(60.0)}, failed_before=("ddpm",)) == 6
    assert "nothing compared (exit code 6): 1 fixed" in capsys.readouterr().out


def test_without_a_baseline_the_first_one_is_saved_and_the_gate_passes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")  # for the path in one line
    folder, file = run_folder(tmp_path / "run", {"ddpm": score(60.0)}), tmp_path / "new" / "baseline.json"
    assert call(gate, ["--baseline", file, "--run", folder]) == 0
    assert f"saved as the first: {file}" in capsys.readouterr().out
    assert [entry.row.label for entry in read_baseline(file).entries] == ["ddpm"]
    assert call(gate, ["--baseline", file, "--run", folder]) == 0
    assert "1 unchanged" in capsys.readouterr().out


def test_a_first_baseline_of_which_some_failed_is_saved_with_3(tmp_path):
    folder = run_folder(tmp_path / "run", {"ddpm": score(60.0)}, failed=("vae",))
    assert call(gate, ["--baseline", tmp_path / "baseline.json", "--run", folder]) == 3
    assert len(read_baseline(tmp_path / "baseline.json").entries) == 2


def test_a_first_baseline_without_anything_measured_is_not_saved(tmp_path, capsys):
    folder = run_folder(tmp_path / "run", {}, failed=("vae",))
    assert call(gate, ["--baseline", tmp_path / "baseline.json", "--run", folder]) == 3
    assert not (tmp_path / "baseline.json").exists()
    assert "no baseline was saved" in capsys.readouterr().out
    empty = run_folder(tmp_path / "empty", {})
    assert call(gate, ["--baseline", tmp_path / "baseline.json", "--run", empty]) == 6


def test_the_tolerance_of_scores_can_be_declared(tmp_path):
    words = ("--quality-tolerance", "0.2")
    assert _held_against(tmp_path, {"ddpm": score(60.0)}, {"ddpm": score(70.0)}, words=words) == 0


def test_outputs_go_to_the_files_that_were_named_and_annotations_to_stdout(tmp_path, capsys, monkeypatch):
    page = tmp_path / "summary.md"
    page.write_text("# of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    words = ("--json", tmp_path / "gate.json", "--junit", tmp_path / "out" / "gate.xml", "--github")
    assert _held_against(tmp_path, {"ddpm": score(60.0)}, {"ddpm": score(70.0)}, words=words) == 1
    document = json.loads((tmp_path / "gate.json").read_text())
    assert (document["schema"], document["exit_code"]) == ("genbench.gate/1", 1)
    assert document["verdicts"][0]["outcome"] == "regressed"
    assert document["environment"]["torch"] == "2.6.0"
    assert ET.parse(tmp_path / "out" / "gate.xml").getroot().attrib["failures"] == "1"
    assert page.read_text().startswith("# of an earlier step\n## genbench: regression found\n")
    assert "\n::error title=genbench::ddpm on shapes" in capsys.readouterr().out


def test_without_a_page_for_the_summary_annotations_are_written_all_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert _held_against(tmp_path, {"ddpm": score(60.0)}, {"ddpm": score(60.0)}, words=("--github",)) == 0
    said = capsys.readouterr()
    assert "::notice title=genbench::passed: 1 unchanged" in said.out
    assert "no $GITHUB_STEP_SUMMARY" in said.err


def test_a_baseline_of_scores_alone_needs_a_run(tmp_path):
    before = recorded(RunFolder.open(run_folder(tmp_path / "base", {"ddpm": score(60.0)})).records())
    file = baseline(tmp_path / "baseline.json", *before)
    with pytest.raises(SettingError, match="nothing to measure"):
        call(gate, ["--baseline", file])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to hold it against"),
        (["--baseline", "no.json"], "nothing to measure"),
        (["--base", "."], "nothing to measure"),
        (["--baseline", "no.json", "-m", "ddpm"], "without `--suite`"),
        (["--baseline", "no.json", "--suite", "images_smoke", "--max-rounds", "1"], "2 or more"),
        (["--baseline", "no.json", "--suite", "images_smoke", "--tolerance", "-0.1"], "not negative"),
        (["--baseline", "no.json", "--suite", "images_smoke", "--phases", "train,memory"], "`memory` is not timed"),
        (["--base", "no/such/folder", "--suite", "images_smoke"], "neither a checkout"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_before_anything_runs(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=message):
        call(gate, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ('{"schema": "genbench.baseline/9"}', "expected `genbench.baseline/1`"),
        ("[]", "schema `None`"),
    ],
)
def test_a_baseline_that_is_none_is_refused_and_never_replaced(text, message, tmp_path):
    file = tmp_path / "baseline.json"
    file.write_text(text)
    with pytest.raises(StoreError, match=message):
        call(gate, ["--baseline", file, "--suite", "images_smoke"])
    assert file.read_text() == text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_counts_are_saved_found_equal_and_held_against_every_kind_of_change(tmp_path, capsys):
    """Real processes: the first baseline, the same code, more work than before, another torch, a model that is gone."""
    file = tmp_path / "baseline.json"
    words = ["--baseline", file, "--counters-only", "--out", tmp_path / "rounds"]
    assert call(gate, [*words, "--suite", "images_smoke", "-m", "vae"]) == 0
    first = read_baseline(file)
    (entry,) = first.entries
    assert entry.row.label == "vae"
    assert call(gate, words) == 0  # what is measured is read from the baseline
    assert "unchanged" in capsys.readouterr().out

    less = {name: c.model_copy(update={"flops": c.flops - 1}) for name, c in entry.counters.items()}
    baseline(file, entry.model_copy(update={"counters": less}), selected=first.selected)
    assert call(gate, words) == 1
    assert "train.flops" in capsys.readouterr().out

    other = entry.environment.model_copy(update={"torch": "1.0"})
    baseline(file, entry.model_copy(update={"environment": other}), selected=first.selected)
    assert call(gate, words) == 5
    assert "torch 1.0 in base" in capsys.readouterr().out

    subject = entry.cell.subject.model_copy(update={"name": "old_model"})
    gone = entry.model_copy(update={"cell": entry.cell.model_copy(update={"subject": subject})})
    selected = first.selected.model_copy(update={"models": ("vae", "old_model")})
    baseline(file, entry, gone, selected=selected)
    assert call(gate, words) == 1
    said = capsys.readouterr().out
    assert "nothing is called `old_model` any more" in said
    assert "old_model: cell: measured in base, not in head" in said


def test_counts_of_models_that_were_not_asked_for_have_not_vanished(tmp_path):
    """The rows of the baseline are cut to the models on the command line, and to nothing else."""
    from argparse import ArgumentParser

    file = baseline(tmp_path / "baseline.json", counted("vae"), counted("ddpm", error=BROKEN), counted("gone"))
    parser = ArgumentParser()
    gate.add_arguments(parser)
    for models, rows in ((["-m", "vae"], ["vae"]), ([], ["vae", "ddpm", "gone"])):
        options = parser.parse_args(["--baseline", str(file), "--suite", "images_smoke", *models])
        made = gate._Gate(options)
        entries = read_baseline(file).entries
        assert [entry.row.label for entry in made._asked_for(entries, made._cells())] == rows
