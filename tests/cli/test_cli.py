"""The command line: what it prints where, and what it exits with."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys

import pytest
from gate_files import cell

from genbench.cli.main import COMMANDS, main
from genbench.cli.run import mend
from genbench.core.record import Failure, Record, Score
from genbench.core.version import VERSION
from genbench.plan import Selection, load_suite, make_plan
from genbench.store import RunFolder, merged


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert "example: genbench" in capsys.readouterr().out


def test_help_and_listings_import_neither_torch_nor_scipy_nor_pandas():
    for words in (["--help"], ["list", "models"], ["list", "metrics"], ["info", "ddpm"], ["plan", "--suite", "images"]):
        code = (
            "import sys; from genbench.cli.main import main\n"
            f"try: main({words!r})\nexcept SystemExit: pass\n"
            "assert not {'torch', 'scipy', 'pandas', 'rich'} & set(sys.modules), sorted(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["grid", "runs/a", "--kind", "text"], "--kind: unknown choice `text`", "did you mean `texts`?"),
        (["plot", "runs/a", "--kind", "X"], "--kind: unknown choice `X`", "known names: shots, tradeoff, training"),
        (["list", "modles"], "kind: unknown choice `modles`", "did you mean `models`?"),
        (["grdi", "runs/a"], "command: unknown choice `grdi`", "did you mean `grid`"),
    ],
)
def test_a_wrong_choice_is_answered_with_the_nearest(words, message, hint, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}\n\nhint: {hint}")


@pytest.mark.parametrize("words", [["run"], ["plan"], ["bench"], ["gate"], ["baseline", "save"]])
def test_models_are_named_in_the_same_forms_wherever_they_are_chosen(words):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"genbench.cli.{words[0]}").add_arguments(parser)
    rest = ["--suite", "images", *(["--baseline", "x.json"] if "save" in words else [])]
    options = parser.parse_args([*words[1:], "-m", "vae", "ddpm[num_steps=5]", "-m", "@flow", "--model", "ebm", *rest])
    assert options.model == ["vae", "ddpm[num_steps=5]", "@flow", "ebm"]


def test_a_model_that_is_named_twice_runs_once(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["vae", "vae", "@vae", "ddpm[sampler=ddim,num_steps=5]", "ddpm[num_steps=5,sampler=ddim]"]
    assert main(["plan", "--suite", "images_smoke", "-m", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    labels = [line.partition(" model ")[2].split()[0] for line in lines if " model " in line]
    assert labels.count("vae") == 1
    assert sum(label.startswith("ddpm") for label in labels) == 1


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == "genbench 0.1.0\n"


def test_the_public_names_load_and_unknown_ones_do_not():
    import genbench

    assert all(getattr(genbench, name) is not None for name in genbench.__all__)
    assert genbench.__version__ == "0.1.0"
    with pytest.raises(AttributeError):
        genbench.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["run", "--suite", "imags"], "unknown suite `imags`", "`images`"),
        (["run", "--suite", "images", "-m", "ddpn"], "unknown model `ddpn`", "`ddpm`"),
        (["run", "--suite", "images", "--tier", "quik"], "no tier `quik`", "`quick`"),
        (["run", "--suite", "images", "--dataset", "shpes"], "unknown dataset `shpes`", "`shapes`"),
        (["run", "--suite", "images", "--dataset", "shapes[side=8]"], "no setting `side`", "resolution"),
        (["plan", "--suite", "images", "-m", "fsq[levels=8,6,5]"], "is not `key=value`", "`levels=8x6x5`"),
        (
            ["run", "--suite", "images", "--dataset", "toy2d"],
            "cannot model vectors, which dataset `toy2d` holds",
            "-m ",
        ),
        (["plan", "--suite", "images", "-m", "vdm[condition=class]"], "no setting `condition`", "`edm`"),
        (
            ["plan", "--suite", "images", "-m", "edm[guidance=2]"],
            "is told nothing",
            "`edm[condition=class,guidance=2]`",
        ),
        (["run", "--suite", "images", "--seeds", "a"], "not a list of whole numbers", "0,1,2"),
        (["run", "--suite", "images", "--seeds", "1,1"], "distinct", ""),
        (["info", "ddmp"], "nothing is called `ddmp`", "`ddpm`"),
        (["leaderboard", "no/such/run"], "no run here", "genbench list runs"),
        (["grid", "no/such/run"], "no run here", ""),
        (
            ["evaluate", "no/such/folder", "--reference", "digits"],
            "is no folder, no file",
            "shapes",
        ),
        (["evaluate", "digits", "--reference", "digits", "--metrics", "fird"], "unknown metric `fird`", ""),
        (["stats", "digits", "--features", "shapes_nt", "-o", "x.npz"], "unknown feature extractor", "`shapes_net`"),
        (["stats", "digits", "-o", "x.txt"], "statistics are .npz files", ""),
    ],
)
def test_a_wrong_request_exits_2_with_one_message_and_no_traceback(words, message, hint, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert hint in said.err
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "bench"])
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist[resolution=16]", "cifar10", "speech_digits"])
def test_data_that_are_not_there_are_missed_before_anything_starts(command, dataset, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "nothing"))
    model = "wavenet" if dataset == "speech_digits" else "vae"
    assert main([command, "--suite", "images_smoke", "--dataset", dataset, "-m", model]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    name = dataset.partition("[")[0]
    assert f"error: dataset `{name}` is not there: looked for {tmp_path / 'nothing'}" in said.err
    assert "let the environment variable GENBENCH_DATA (is set) name the folder" in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_shown_without_its_data_and_then_says_what_is_missing_and_how_to_get_it(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "nothing"))
    assert main(["plan", "--suite", "images_smoke", "--dataset", "mnist", "-m", "vae"]) == 0
    said = capsys.readouterr()
    assert "vae " in said.out
    assert " cells, 0 finished" in said.out
    looked = tmp_path / "nothing" / "mnist/MNIST/raw"
    assert (
        f"warning: `genbench run` would refuse this plan: dataset `mnist` is not there: looked for {looked}\n"
        in said.err
    )
    assert "hint: get the four files" in said.err
    assert "error" not in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_and_a_run_that_are_finished_need_no_data(capsys, tmp_path, monkeypatch):
    suite = "schema: genbench.suite/1\nname: one\nversion: 1\ndescription: one cell\nfeatures: shapes_net\n"
    tier = "{dataset: mnist, preset: smoke, samples_seen: 1, num_samples: 1, num_reference: 1, num_likelihood: 1}"
    file, out = tmp_path / "one.yaml", tmp_path / "run"
    file.write_text(f"{suite}metrics: [bits_per_dim]\nmodels: [vae]\ntiers:\n  smoke: {tier}\n")
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "nothing"))
    words = ["--suite", str(file), "--device", "cpu", "--out", str(out)]
    assert main(["run", *words]) == main(["run", "--fresh", *words]) == 2
    assert not out.exists()
    (one,) = make_plan(load_suite(str(file)), Selection(), version=VERSION).cells
    folder = RunFolder.create(out)
    folder.write_plan(merged(None, [one], version=VERSION))
    number = Score(name="bits_per_dim", value=3.0, unit="bits/dim", better="lower", num_samples=1)
    folder.write_record(Record(key=one.key, cell=one, status="ok", scores=(number,), started="2026", ended="2026"))
    capsys.readouterr()
    assert main(["plan", *words]) == 0
    planned = capsys.readouterr()
    assert re.search(r"^  finished         model    vae", planned.out, re.MULTILINE)
    assert "1 cell, 1 finished" in planned.out
    assert planned.err == ""
    assert main(["run", *words]) == 0
    assert main(["run", "--fresh", *words]) == 2
    assert (out / "plan.json").is_file()  # nothing was removed for a run that cannot be made


def test_data_of_the_users_own_are_looked_for_where_the_variable_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "mnist" / "MNIST" / "raw").mkdir(parents=True)
    assert main(["plan", "--suite", "mnist"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("GENBENCH_DATA")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    assert main(["plan", "--suite", "mnist"]) == 0
    said = capsys.readouterr().err
    assert f"looked for {tmp_path / 'cache' / 'data' / 'mnist' / 'MNIST' / 'raw'}" in said
    assert "GENBENCH_DATA (is not set)" in said


def test_a_traceback_is_printed_when_asked_for_and_the_exit_code_stays(capsys):
    words = ["evaluate", "no/such/folder", "--reference", "digits"]
    for asked in (["--traceback", *words], [*words, "--traceback"]):
        assert main(asked) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("Traceback (most recent call last)")
        assert "error: `no/such/folder` is no folder, no file" in said.err


def test_a_plan_lists_every_cell_and_starts_nothing(capsys, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--suite", "images_smoke"]) == 0
    out = capsys.readouterr().out
    assert "10 cells, 0 finished" in out
    assert re.search(r"^  train and score  model    vae  +seed 0  [\d,]+ samples seen$", out, re.MULTILINE)
    assert re.search(r"^  score            control  real  +seed 0$", out, re.MULTILINE)
    assert main(["plan", "--suite", "images", "--device", "cpu"]) == 0
    drawn = r"^  draw and score   model    ddpm\[.*\] +seed 0  weights of `ddpm`$"
    assert re.search(drawn, capsys.readouterr().out, re.MULTILINE)
    suite = "schema: genbench.suite/1\nname: one\nversion: 1\ndescription: one cell\nfeatures: shapes_net\n"
    tier = "{dataset: digits, preset: smoke, samples_seen: 1, num_samples: 1, num_reference: 1, num_likelihood: 1}"
    file = tmp_path_factory.mktemp("suite") / "one.yaml"
    file.write_text(f"{suite}metrics: [bits_per_dim]\nmodels: [vae]\ntiers:\n  smoke: {tier}\n")
    assert main(["plan", "--suite", str(file)]) == 0
    assert "1 cell, 0 finished" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_listings_in_json_have_a_row_for_every_name(capsys):
    assert main(["list", "models", "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert {"vae", "realnvp", "gated_pixelcnn", "ddpm", "vqvae", "wgan_gp", "ebm"} <= names
    assert {"made", "pixelcnn", "pixelrnn"} <= names


def test_every_listed_thing_has_a_description(capsys):
    for kind in ("models", "datasets", "metrics", "features", "suites"):
        assert main(["list", kind]) == 0
        rows = capsys.readouterr().out.splitlines()
        assert rows
        assert all(len(row.split(maxsplit=2)) == 3 for row in rows), rows


@pytest.mark.parametrize("kind", ["suite", "record", "cell", "score"])
def test_schemas_are_json(kind, capsys):
    assert main(["schema", kind]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_fresh_refuses_to_remove_what_is_no_run(capsys, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    assert main(["run", "--suite", "images_smoke", "--fresh", "--out", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert (tmp_path / "precious.txt").read_text() == "x"


def test_a_folder_with_other_things_becomes_no_run(capsys, tmp_path):
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", ".hidden"):
        (tmp_path / name).write_text("x")
    assert main(["run", "--suite", "images_smoke", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "holds no run, but `a.txt`, `b.txt`, `c.txt` and 1 more" in said
    assert "a new or an empty folder" in said
    assert len(list(tmp_path.iterdir())) == 5


def test_an_output_folder_that_cannot_be_written_is_refused(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["run", "--suite", "images_smoke", "--out", str(tmp_path / "file" / "run")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_failure_is_told_at_the_end_by_its_log_and_hint_and_not_once_more_by_its_message(tmp_path):
    error = Failure(phase="train", type="RuntimeError", message="out of ideas", hint="rest", log="cells/x/stderr.log")
    record = Record(
        key="x", cell=cell("ddpm", seed=2), status="failed", error=error, started="2026-01-05", ended="2026-01-05"
    )
    where = tmp_path / "cells" / "x" / "stderr.log"
    assert mend(record, tmp_path) == f"ddpm seed 2 failed in train; its log is {where}\n  hint: rest"
