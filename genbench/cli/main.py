"""The command `genbench`: parse, dispatch, and turn errors into one message and an exit code."""

from __future__ import annotations

import argparse
import importlib
import itertools
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "run": "train, sample, time and score the cells of a suite",
    "plan": "show what a run would do, and start nothing",
    "leaderboard": "print the table of one or more runs",
    "plot": "draw a score against a cost, for the rows of runs",
    "sample": "draw pictures for prompts with a trained model of a run",
    "grid": "draw samples, reconstructions, traversals or interpolations of a run",
    "list": "list models, suites, datasets, metrics, features or runs",
    "info": "describe one model, suite, dataset, metric or extractor",
    "evaluate": "score samples made elsewhere against a reference",
    "compare": "say whether one set of samples, or one run, is better than another, beyond the noise",
    "bench": "time training and sampling in rounds of fresh processes",
    "gate": "fail when the code got slower, does more work or scores worse",
    "baseline": "keep counters and scores for the gate to compare with",
    "audit": "check that metrics move the right way as real data get worse",
    "selftest": "check every metric against closed forms, invariances and a null",
    "stats": "compute reference statistics of a dataset",
    "features": "train an extractor that travels with the package",
    "conform": "check that a model keeps the contract",
    "schema": "print the JSON Schema of a file format",
    "doctor": "say what this machine has and what will not work on it",
}
_WITH_COMMAS = ("--columns", "--metrics", "--seeds")
"""Options that take several names in one word."""
_EPILOG = """worked examples:
  genbench run --suite images                       train and score the references on this machine
  genbench run --suite images --model mine.py       add a model of your own to the table
  genbench leaderboard runs/images-quick --format md
exit codes: 0 done, 1 a regression or a broken contract, 2 wrong usage, 3 some cell failed, 4 inconclusive (--strict),
5 not comparable, 6 nothing measured, 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser(words)
    from genbench.core.errors import GenbenchError

    try:
        options = _options(parser, words)
        if options.command is None:
            parser.print_help()
            return 0
        code = options.run(options)
    except GenbenchError as error:
        if "--traceback" in words:
            traceback.print_exception(error)
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what is finished is kept, the same command goes on from here\n")
        return 130
    except BrokenPipeError:
        return 0
    return int(code)


def _options(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The options that the words give.

    Raises:
        SettingError: several names stand apart where commas belong between them.
    """
    options, left = parser.parse_known_args(words)
    if left:
        from genbench.core.errors import SettingError

        apart = _apart(words, left)
        if apart is not None:
            raise SettingError(
                f"unrecognized arguments: {' '.join(left)}", hint=f"commas and no spaces separate the names: `{apart}`"
            )
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return options


def _apart(words: Sequence[str], left: Sequence[str]) -> str | None:
    """An option with commas between its names, where spaces stand and a word behind them was left over."""
    spelt = list(itertools.chain.from_iterable(word.split("=", 1) if _given(word) else [word] for word in words))
    for option in (option for option in _WITH_COMMAS if option in spelt):
        after = list(itertools.takewhile(lambda word: not word.startswith("-"), spelt[spelt.index(option) + 1 :]))
        names = [name for word in after if not Path(word).exists() and (name := word.strip(","))]
        if len(names) > 1 and set(after) & set(left):
            return f"{option} {shlex.quote(','.join(names))}"
    return None


def _given(word: str) -> bool:
    return word.partition("=")[0] in _WITH_COMMAS


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with only the asked-for command loaded: help must answer at once."""
    parser = _Parser(
        prog="genbench",
        description="Reference implementations of generative models, trained, timed and scored in the same way.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    parser.add_argument("--traceback", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="command", title="commands")
    asked = next((word for word in words if word in COMMANDS), None)
    for name, summary in COMMANDS.items():
        one = commands.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        one.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if name == asked:
            importlib.import_module(f"genbench.cli.{_FILES.get(name, name)}").add_arguments(one)
    return parser


_FILES = {"list": "listing"}  # `list` is a builtin, and a file is named for what it holds


class _Parser(argparse.ArgumentParser):
    """One that names the nearest choice, where argparse names none."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is None or value in action.choices:
            return
        from genbench.core.errors import UnknownName, nearest

        name = "/".join(action.option_strings) or action.metavar or action.dest
        raise UnknownName(f"{name}: unknown choice `{value}`", hint=nearest(str(value), action.choices))


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from genbench.core.version import VERSION

        sys.stdout.write(f"genbench {VERSION}\n")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
