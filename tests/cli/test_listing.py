"""`genbench list`: some of the models, and runs wherever they lie."""

import json

import pytest
from gate_files import run_folder, score

from genbench.cli.main import main


def said(capsys, *words):
    assert main(["list", *words]) == 0
    return capsys.readouterr().out


def test_models_of_one_paradigm_are_listed_alone(capsys):
    rows = json.loads(said(capsys, "models", "--paradigm", "vq", "--json"))
    assert {row["origin"] for row in rows} == {"vq"}
    assert {"vqvae", "fsq", "vqgan"} <= {row["name"] for row in rows}
    assert said(capsys, "models", "--paradigm", "@vq") == said(capsys, "models", "--paradigm", "vq")
    assert "flow_matching" in said(capsys, "models", "--paradigm", "flow*")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["models", "--paradigm", "diffusio"], "unknown paradigm `diffusio`", "did you mean `diffusion`?"),
        (["metrics", "--paradigm", "vq"], "`--paradigm` chooses models, not metrics", "genbench list models"),
        (["models", "runs"], "a folder is where runs lie, not models", "genbench list runs DIR"),
        (["runs", "a", "--root", "b"], "two folders", "give one"),
    ],
)
def test_options_of_another_kind_are_refused(words, message, hint, capsys):
    assert main(["list", *words]) == 2
    refused = capsys.readouterr().err
    assert message in refused
    assert hint in refused


def test_runs_are_found_in_a_given_folder_and_a_run_itself_counts(tmp_path, capsys):
    one = run_folder(tmp_path / "one", {"ddpm": score(1.0)})
    run_folder(tmp_path / "two", {"ddpm": score(1.0), "vae": score(1.0)})
    both = said(capsys, "runs", str(tmp_path))
    assert "1/1 cell " in both
    assert "2/2 cells" in both
    assert said(capsys, "runs", "--root", str(tmp_path)) == both
    assert said(capsys, "runs", str(one)).startswith(f"{one}  1/1 cell  suite images_smoke")
    assert f"no runs found in `{one / 'cells'}`" in said(capsys, "runs", str(one / "cells"))
