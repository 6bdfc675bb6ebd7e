"""`genbench sample`: pictures of a person's prompts by a trained model of a run."""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.kept_weights import rebuilt_of
from genbench.core.errors import SettingError, StoreError, nearest
from genbench.core.references import condition_of
from genbench.core.registry import Registry
from genbench.core.spec import parse_ref

if TYPE_CHECKING:
    from genbench.core.record import Record
    from genbench.core.spec import Cell
    from genbench.store import RunFolder

PROMPTS_FILE = "prompts.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sample`."""
    parser.add_argument("run_folder", type=Path, metavar="run", help="run folder")
    parser.add_argument(
        "--prompts", type=Path, required=True, metavar="file", help="one a line, a JSON list, or .csv or .jsonl rows"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="folder", help=f"new folder for pictures and {PROMPTS_FILE}"
    )
    parser.add_argument(
        "--row", metavar="name", help="row of the run's table, or what tells it from the others (default: the only one)"
    )
    parser.add_argument("--per-prompt", type=int, default=1, metavar="n", help="pictures for each prompt (default: 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="n", help="of the draws (default: 0)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="default: cpu")
    parser.epilog = (
        "example: genbench sample runs/text_to_image-quick --row 'ddpm[guidance=2.0]' --prompts asked.txt --out drawn\n"
        "  genbench evaluate drawn --reference 'shapes[resolution=8]' --metrics clip_score --text-encoder shapes_clip"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw, write, and print the path of the table of prompts."""
    from genbench.cli.evaluate import device_of
    from genbench.core.files import write_atomically
    from genbench.evaluation.prompts import read_prompts
    from genbench.harness.prompted_pictures import caption_length, pictures_for, tokens_of, why_none
    from genbench.report.grid import sample_grid
    from genbench.report.nearest import png_bytes
    from genbench.store import RunFolder

    if options.per_prompt < 1:
        raise SettingError(f"--per-prompt is {options.per_prompt}, expected 1 or more")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise StoreError(f"{options.out}: is there, and not an empty folder", hint="choose another with `--out`")
    folder = RunFolder.open(options.run_folder)
    prompts = read_prompts(options.prompts)
    record = _row(folder, options.row)
    found = rebuilt_of(folder, record)
    reason = why_none(found.model)
    if reason is not None:
        raise SettingError(f"`{record.cell.label}`: {reason}", hint=_others(folder))
    asked = [prompt for prompt in prompts for _ in range(options.per_prompt)]
    tokens = tokens_of(asked, found.dataset.spec, length=caption_length(found.dataset))
    pictures = pictures_for(found.model.to(device_of(options.device)), tokens, seed=options.seed)
    width = max(5, len(str(len(asked) - 1)))
    names = [f"{number:0{width}d}.png" for number in range(len(asked))]
    for name, picture in zip(names, pictures, strict=True):
        write_atomically(options.out / name, png_bytes(sample_grid(picture[None], columns=1, scale=1)))
    table = options.out / PROMPTS_FILE
    write_atomically(table, _table(names, asked))
    sys.stdout.write(f"{table}\n")
    return 0


def _table(names: list[str], prompts: list[str]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file_name", "prompt"])
    rows.writerows(zip(names, prompts, strict=True))
    return text.getvalue().encode()


def _row(folder: RunFolder, name: str | None) -> Record:
    """The finished row of that name, or the only one.

    Raises:
        SettingError: there is none, or there are several.
    """
    rows = _rows(folder)
    if name is not None:
        meant = [name] if name in rows else [label for label in rows if _is_meant(name, label)]
        if not meant and name.partition(" seed ")[0] in _controls(folder):
            raise SettingError(
                f"{folder.path}: `{name}` is a control and has no weights to draw from", hint=_others(folder)
            )
        if not meant:
            raise SettingError(f"{folder.path}: no finished row `{name}`", hint=nearest(name, rows))
        if len(meant) > 1:
            raise SettingError(
                f"{folder.path}: `{name}` may be any of {len(meant)} rows", hint=f"say more of one: {'; '.join(meant)}"
            )
        return rows[meant[0]]
    if len(rows) != 1:
        raise SettingError(f"{folder.path}: {len(rows)} rows may be meant, say which by `--row`", hint=_others(folder))
    return next(iter(rows.values()))


def _is_meant(name: str, label: str) -> bool:
    """Whether a row is of the model that is named, and has the settings that are given, whatever else it has."""
    return parse_ref(name).may_mean(parse_ref(label.partition(" seed ")[0]))


def _rows(folder: RunFolder) -> dict[str, Record]:
    """Finished models by label; of several seeds the first, the others with their seed behind."""
    rows: dict[str, Record] = {}
    for record in folder.records():
        if record.cell.role == "model" and record.status == "ok":
            label = (
                record.cell.label if record.cell.label not in rows else f"{record.cell.label} seed {record.cell.seed}"
            )
            rows[label] = record
    return rows


def _controls(folder: RunFolder) -> set[str]:
    """Labels of the run's rows that are no models."""
    plan = folder.plan()
    return {cell.label for cell in (() if plan is None else plan.cells) if cell.role == "control"}


def _others(folder: RunFolder) -> str:
    """The rows that may draw for prompts, as a hint."""
    rows = _rows(folder)
    if not rows:
        return "rows: none is finished"
    told = [label for label, record in rows.items() if _may_be_told(record.cell)]
    if not told:
        return "no row is told in words what to draw; `genbench run --suite text_to_image` makes such a run"
    return f"rows: {'; '.join(told)}"


def _may_be_told(cell: Cell) -> bool:
    """Whether a model is told in words what to draw, as its source says; of a plug-in or a file it is not known."""
    path = Registry[object]("model", "models").path(cell.subject.name)
    preset = cell.subject.preset or cell.protocol.preset
    return path is None or condition_of(path, cell.subject, preset=preset) == "text"
