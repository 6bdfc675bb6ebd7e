"""Workflows of the project and of its documentation: they parse, and every command in them is one that exists."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from genbench.core.verdict import OUTCOMES
from genbench.regression import exit_code as codes
from genbench.report._changes import WORDS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "ci.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def _fenced(kind):
    return [text for found, text in FENCE.findall(GUIDE.read_text()) if found == kind]


def _workflows():
    own = {path.name: path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
    return {**own, **{f"ci.md {number}": text for number, text in enumerate(_fenced("yaml"), 1)}}


WORKFLOWS = _workflows()


def _scripts():
    scripts = {f"ci.md sh {number}": text for number, text in enumerate(_fenced("sh"), 1)}
    for name, text in WORKFLOWS.items():
        for job, described in yaml.safe_load(text)["jobs"].items():
            scripts |= {f"{name} {job} {n}": step["run"] for n, step in enumerate(described["steps"]) if "run" in step}
    return scripts


SCRIPTS = {name: EXPRESSION.sub("1", text) for name, text in _scripts().items()}


def _commands(script):
    """Simple commands of a script, as words."""
    for line in script.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*_words(line), ";"]:
            if word not in {"&&", "||", ";", "|"}:
                command.append(word)
            elif command:
                yield command
                command = []


def _words(line):
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    return list(lexer)


def _calls(program):
    """Arguments of every call of a program, with the script that it is in."""
    found = []
    for name, script in SCRIPTS.items():
        for words in _commands(script):
            places = [place for place, word in enumerate(words) if Path(word).name == program]
            if places and all("=" in word for word in words[: places[0]]):
                found.append(pytest.param(words[places[0] + 1 :], id=f"{name}: {' '.join(words)[:70]}"))
    return found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_says_when_it_runs_with_what_rights_and_where(name):
    flow = yaml.safe_load(WORKFLOWS[name])
    assert set(flow) <= {"name", True, "permissions", "concurrency", "jobs"}  # YAML 1.1 reads the key `on` as true
    assert flow["permissions"] == {"contents": "read"}
    assert set(flow[True]) <= {"push", "pull_request"}
    for job in flow["jobs"].values():
        assert set(job) <= {"if", "runs-on", "timeout-minutes", "strategy", "concurrency", "steps"}
        assert job["timeout-minutes"] <= 90
        assert job["runs-on"] == "ubuntu-latest" or "self-hosted" in job["runs-on"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_strangers_never_run_on_a_machine_of_ones_own(name):
    for job in yaml.safe_load(WORKFLOWS[name])["jobs"].values():
        if "self-hosted" in job["runs-on"]:
            assert job["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
            assert job["concurrency"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_step_does_one_thing_and_refers_to_what_is_there(name):
    for job in yaml.safe_load(WORKFLOWS[name])["jobs"].values():
        known = {step["id"] for step in job["steps"] if "id" in step}
        for step in job["steps"]:
            assert set(step) <= {"name", "id", "if", "uses", "with", "run", "working-directory"}
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"actions/[a-z/-]+@v\d+", step.get("uses", "actions/checkout@v4"))
            for expression in EXPRESSION.findall(str(step)):
                head, *rest = expression.split(".")
                assert head in {"matrix", "runner", "github", "steps"}, expression
                assert head != "steps" or rest[0] in known
                assert head != "matrix" or rest[0] in job["strategy"]["matrix"]


def test_the_project_tests_every_python_that_it_supports():
    matrix = yaml.safe_load(WORKFLOWS["genbench.yml"])["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert 'requires-python = ">=3.11,<3.14"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_sound_for_the_shell(name):
    done = subprocess.run(["bash", "-n"], input=SCRIPTS[name], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


GENBENCH = _calls("genbench")


def test_the_gates_are_among_the_commands():
    assert len(GENBENCH) >= 10
    used = {call.values[0][0] for call in GENBENCH}
    assert {"gate", "baseline", "run"} <= used


@pytest.mark.parametrize("words", GENBENCH)
def test_every_genbench_command_is_accepted_by_its_parser(words):
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    importlib.import_module(f"genbench.cli.{words[0]}").add_arguments(parser)
    rest = parser.parse_known_args(words[1:])[1]
    assert rest == []


def test_a_wrong_option_would_be_found():
    (words,) = [words for words in _commands("code=0 genbench gate --baselin x.json || true") if "gate" in words]
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    importlib.import_module("genbench.cli.gate").add_arguments(parser)
    assert parser.parse_known_args(words[3:])[1] == ["--baselin", "x.json"]


@pytest.mark.parametrize("words", _calls("make"))
def test_every_make_target_exists(words):
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    targets = {target for line in re.findall(r"^([^\s:=#][^:=]*):", makefile, re.MULTILINE) for target in line.split()}
    assert words
    assert set(words) <= targets


def test_every_pytest_option_exists(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    names = ("-p", "genbench.pytest_plugin", "-p", "pytest_benchmark.plugin")
    text = pytester.runpytest_inprocess(*names, "--help").stdout.str()
    calls = [call.values[0] for call in _calls("pytest")]
    options = {word.partition("=")[0] for words in calls for word in words if word.startswith("-")}
    assert len(options) >= 5
    assert not [option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)]


def test_the_guide_names_every_exit_code_of_the_gate_and_every_verdict():
    text = GUIDE.read_text()
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    values = (codes.DONE, codes.REGRESSED, codes.FAILED, codes.INCONCLUSIVE, codes.NOT_COMPARABLE)
    assert rows == {*values, codes.NOTHING_MEASURED, 2, 130}
    table = text.partition("## How to read a verdict")[2].partition("##")[0]
    named = {word.strip() for line in re.findall(r"^\| ([a-z ,]+) \|", table, re.MULTILINE) for word in line.split(",")}
    assert named - {"verdict"} == {WORDS[outcome] for outcome in OUTCOMES}
