"""`genbench leaderboard --columns`, in every format."""

import json

import pytest
from gate_files import run_folder, score

from genbench.cli.main import main


@pytest.fixture
def run(tmp_path):
    return run_folder(tmp_path / "run", {"vae": score(3.0), "ddpm": score(2.0)})


@pytest.mark.parametrize("form", ["rich", "md", "latex", "csv", "json"])
def test_columns_are_chosen_in_every_format(form, run, capsys):
    assert main(["leaderboard", str(run), "--format", form, "--columns", "frechet_distance"]) == 0
    shown = capsys.readouterr().out
    assert "fd" in shown
    if form == "json":
        assert [column["name"] for column in json.loads(shown)["leaderboards"][0]["columns"]] == ["fd_shapes_net"]
    if form == "csv":
        assert "samples_seen" not in shown


@pytest.mark.parametrize("form", ["rich", "md", "latex", "csv", "json"])
def test_an_unknown_column_is_an_error_with_all_that_there_are(form, run, tmp_path, capsys):
    words = ["--format", form, "--columns", "fd_shapes_net, latency", "-o", str(tmp_path / "table")]
    assert main(["leaderboard", str(run), *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: no column `latency`\n\nhint: columns: fd_shapes_net")
    assert (said.out, (tmp_path / "table").exists()) == ("", False)


def test_no_column_at_all_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        main(["leaderboard", str(run), "--columns", " , "])
    assert "write --columns fd_shapes_net,bits_per_dim" in capsys.readouterr().err
