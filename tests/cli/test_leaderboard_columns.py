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


@pytest.mark.parametrize("words", [["fd_shapes_net", "latency_seconds"], ["fd_shapes_net,", "latency_seconds"]])
def test_columns_with_spaces_between_them_are_answered_with_commas(words, run, capsys):
    assert main(["leaderboard", str(run), "--columns", *words, "--format", "md"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: unrecognized arguments: latency_seconds\n\nhint: commas and no spaces")
    assert said.endswith("`--columns fd_shapes_net,latency_seconds`\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--columns=fd_shapes_net", "latency_seconds"], "unrecognized arguments: latency_seconds"),
        (["--columns", "fd_shapes_net", "latency_seconds"], "latency_seconds: no run here"),
        (["--columns", "fd_shapes_net", "latency_seconds", "RUN"], "latency_seconds: no run here"),
        (
            ["RUN", "--columns", "fd_shapes_net latency_seconds"],
            "`fd_shapes_net latency_seconds` is no name of a column",
        ),
    ],
)
def test_commas_are_named_wherever_the_columns_stand(words, message, run, capsys):
    assert main(["leaderboard", *(str(run) if word == "RUN" else word for word in words)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert "commas and no spaces" in said
    assert said.endswith("`--columns fd_shapes_net,latency_seconds`\n")


def test_a_run_that_is_not_there_says_nothing_of_commas_without_columns(run, capsys):
    assert main(["leaderboard", str(run), "nosuch"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: nosuch: no run here")
    assert "comma" not in said


def test_words_that_belong_to_nothing_are_refused_as_ever(run, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["leaderboard", str(run), "--columns", "fd_shapes_net", "--nosuch"])
    assert refused.value.code == 2
    assert "unrecognized arguments: --nosuch" in capsys.readouterr().err


def test_no_column_at_all_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        main(["leaderboard", str(run), "--columns", " , "])
    assert "write --columns fd_shapes_net,bits_per_dim" in capsys.readouterr().err


def test_paths_behind_names_apart_are_no_names(run, capsys):
    assert main(["evaluate", "--metrics", "clip_score", "precision_recall", str(run), "--reference", "digits"]) == 2
    said = capsys.readouterr().err
    assert said.endswith("`--metrics clip_score,precision_recall`\n")
