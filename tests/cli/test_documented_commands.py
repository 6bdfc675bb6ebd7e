"""Commands that the documentation prints exist, take their options, and name models, suites and data that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from genbench.cli.main import COMMANDS, _parser, main
from genbench.plan import Selection, load_suite, make_plan

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "reports" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]*\bgenbench [^`\n]+)`")
OPERATORS = {"|", "||", "&&", ">", ";"}


def _words(line: str) -> list[str]:
    """Words after `genbench` of a line that calls it, without assignments before it and what follows an operator."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # not a line of a shell
        return []
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words or not re.search(r"(^|/)genbench$", words[0]):
        return []
    end = next((index for index, word in enumerate(words) if word in OPERATORS), len(words))
    return words[1:end]


def _printed() -> Iterator[tuple[str, ...]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = FENCED.findall(text)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        inline = [span for span in INLINE.findall(FENCED.sub("", text)) if len(span.split()) > 2]
        yield from (tuple(words) for words in map(_words, [*lines, *inline]) if words)


PRINTED = sorted(set(_printed()))


def test_the_pages_print_commands():
    assert {"run", "plan", "leaderboard", "evaluate", "gate", "bench", "info"} <= {words[0] for words in PRINTED}
    assert len(PRINTED) > 40


@pytest.mark.parametrize("words", PRINTED, ids=" ".join)
def test_a_printed_command_takes_its_options_and_its_names_exist(words, capsys):
    options = vars(_parser(words).parse_args(words))
    if options.get("suite") is not None:
        models = tuple(name for name in options["model"] if not re.search(r"\.py$|:", name))
        seeds = None if options["seeds"] is None else tuple(map(int, options["seeds"].split(",")))
        selection = Selection(tier=options["tier"], models=models, dataset=options["dataset"], seeds=seeds)
        assert make_plan(load_suite(options["suite"]), selection, version="1").cells
    if words[0] == "info" and words[1].islower():
        assert main(words) == 0
        assert words[1].partition("[")[0] in capsys.readouterr().out


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_command_that_is_spoken_of_exists(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`genbench ([a-z]+)", text)) <= set(COMMANDS)


def test_the_targets_of_make_that_the_readme_names_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)(?=`|   )", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"images", "test"} <= named <= targets
