"""`genbench grid`: samples of a run side by side, sounds and texts, what codes hold, or learned densities."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.captions_grid import captions_page
from genbench.cli.kept_weights import rebuilt_of

if TYPE_CHECKING:
    from PIL import Image

    from genbench.core.record import Record
    from genbench.core.spec import Cell
    from genbench.harness.densities import Grid
    from genbench.harness.pictures_of_codes import Kind, Rows
    from genbench.store import RunFolder

KINDS = ("samples", "reconstructions", "traversals", "interpolations", "densities", "sounds", "captions", "texts")
_COLUMNS = {
    "samples": 12,
    "reconstructions": 12,
    "traversals": 9,
    "interpolations": 10,
    "densities": 4,
    "sounds": 8,
    "texts": 5,
    "captions": 8,
}
_ROWS = {"reconstructions": 2, "traversals": 12, "interpolations": 4}
_CAPTIONS = {
    "reconstructions": "held-out images and their reconstructions",
    "traversals": "one dimension of a code moved, in its standard deviations (sd)",
    "interpolations": "between the codes of two held-out images, in a straight line (linear)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `grid`."""
    parser.add_argument("run_folder", type=Path, metavar="run", help="run folder")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="samples",
        help="samples of every model and control, which of sounds are spectrograms; pictures from the codes of models "
        "that have some; of points in the plane, samples beside the learned density; or a page on which samples of "
        "sounds are seen and heard; pictures drawn for the same captions, with these below; or pictures with what "
        "models say of them after several numbers of shots, and the true text; but for samples and sounds, models are "
        "built again from their weights (default: samples)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="file", help="PNG or, of sounds, HTML to write (default: in RUN)"
    )
    parser.add_argument(
        "--columns",
        type=int,
        metavar="n",
        help="pictures per row (default: 12; 9 traversals, 10 interpolations, 4 densities, 8 sounds and captions, "
        "5 texts)",
    )
    parser.add_argument(
        "--rows", type=int, metavar="n", help="rows per model (default: 12 traversals, 4 interpolations)"
    )
    parser.epilog = (
        "example: genbench grid runs/images-quick -o samples.png\n"
        "  genbench grid runs/disentanglement-quick --kind traversals\n"
        "  genbench grid runs/captioning-quick --kind texts"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw the picture and print its path."""
    from genbench.core.errors import SettingError
    from genbench.core.files import write_atomically
    from genbench.report.grid import FILES, save_png
    from genbench.store import RunFolder

    folder = RunFolder.open(options.run_folder)
    kind = options.kind
    columns = _COLUMNS[kind] if options.columns is None else options.columns
    least = 3 if kind in {"traversals", "interpolations"} else 1
    if columns < least:
        raise SettingError(f"--columns is {columns}, {kind} need {least} or more")
    if options.rows is not None and options.rows < 1:
        raise SettingError(f"--rows is {options.rows}, expected 1 or more")
    path = options.output or folder.path / FILES[kind]
    said = _Said()
    for text in _unfinished(folder):
        said.add(text)
    if kind in {"densities", "sounds"}:
        write_atomically(path, _densities(folder, columns) if kind == "densities" else _sounds(folder, columns, said))
        sys.stdout.write(f"{path}\n")
        return 0
    if kind == "samples":
        page = _samples(folder, columns)
    elif kind == "texts":
        page = _texts(folder, columns, said)
    elif kind == "captions":
        page = captions_page(folder, list(_finished(folder)), columns=columns, name=_name, say=said.add)
    else:
        page = _of_codes(folder, kind, columns, _ROWS[kind] if options.rows is None else options.rows, said)
    save_png(page, path)
    sys.stdout.write(f"{path}\n")
    return 0


def _samples(folder: RunFolder, columns: int) -> Image.Image:
    from genbench.core.errors import StoreError
    from genbench.report.grid import comparison_grid
    from genbench.report.sounds import spectrograms

    rows = {}
    for record in _finished(folder):
        samples, sounds = folder.samples(record.key), folder.sounds(record.key)
        if sounds is not None:
            rows[_name(record)] = spectrograms(sounds[0][:columns], levels=sounds[1])
        elif samples is not None:
            rows[_name(record)] = samples
    if not rows:
        hint = "`genbench run` draws them; points in the plane have `--kind densities`, texts `--kind texts`"
        raise StoreError(f"{folder.path}: no pictures in this run", hint=hint)
    return comparison_grid(rows, columns=columns)


def _sounds(folder: RunFolder, columns: int, said: _Said) -> bytes:
    """A page with spectrograms and players of all models and controls; what is left out is named there too."""
    from genbench.core.errors import StoreError
    from genbench.report.sounds_page import Sounds, sounds_page

    found = {_name(record): folder.sounds(record.key) for record in _finished(folder)}
    rows = {name: Sounds(*sounds) for name, sounds in found.items() if sounds is not None}
    if not rows:
        hint = "`genbench run --suite audio` makes such a run"
        raise StoreError(f"{folder.path}: no sounds in this run", hint=hint)
    return sounds_page(rows, title=f"{folder.path.name}: sounds", columns=columns, remarks=said.texts).encode()


def _texts(folder: RunFolder, columns: int, said: _Said) -> Image.Image:
    """Held-out pictures, and under each the true text and that of every model after several numbers of shots."""
    from genbench.core.dataset import build_dataset
    from genbench.core.errors import StoreError
    from genbench.harness import said_texts
    from genbench.report.text_page import text_page

    records = [record for record in _finished(folder) if record.cell.role == "model"]
    if not records:
        raise StoreError(f"{folder.path}: no finished models", hint="`genbench run` makes them")
    dataset = build_dataset(records[0].cell.dataset)  # a run has one
    reason = said_texts.why_no_texts(None, dataset)
    if reason is not None:
        raise StoreError(f"{folder.path}: {reason}", hint="`genbench run --suite captioning` makes such a run")
    asked = said_texts.asked_about(dataset, columns)
    rows: dict[str, list[str]] = {}
    for record in records:
        model = rebuilt_of(folder, record).model
        reason = said_texts.why_no_texts(model, dataset)
        if reason is not None:
            said.add(f"left out `{_name(record)}`: {reason}")
            continue
        found = said_texts.said(model, dataset, asked)
        rows |= {f"{_name(record)}, {after}": texts for after, texts in said_texts.told_apart(found).items()}
    caption = "held-out pictures and what is said of them; `=` marks the true text, word for word"
    return text_page(asked.pictures, rows, truth=asked.truth, caption=caption)


def _densities(folder: RunFolder, columns: int) -> bytes:
    """The law of the data and all models, samples beside densities, as a PNG; why one is missing stands there."""
    from genbench.core.dataset import build_dataset
    from genbench.core.errors import StoreError
    from genbench.harness import densities
    from genbench.report.plane import Plane, plane_page

    records = list(_finished(folder))
    if not records:
        raise StoreError(f"{folder.path}: no finished cells", hint="`genbench run` makes them")
    ref = records[0].cell.dataset  # a run has one
    dataset = build_dataset(ref)
    reason = densities.why_no_plane(dataset)
    if reason is not None:
        raise StoreError(f"{folder.path}: {reason}", hint="`genbench run --suite density2d` makes such a run")
    points = densities.held_out(dataset)
    half = densities.half_side(points)
    planes = [Plane(ref.label, points.numpy(), *_looked_at(densities.density_of_law(dataset, half), half))]
    for record in records:
        samples = folder.points(record.key)
        if samples is not None:
            planes.append(Plane(_name(record), samples, *_density_of(folder, record, half)))
    return plane_page(planes, half=half, title=f"{folder.path.name}: samples and densities", pairs=columns)


def _density_of(folder: RunFolder, record: Record, half: float) -> tuple[Grid | None, str]:
    """Density of one model and a remark, or None and why there is none."""
    from genbench.core.errors import GenbenchError
    from genbench.harness import densities

    if record.cell.role != "model":
        return None, "a control"
    try:
        model = rebuilt_of(folder, record).model
    except GenbenchError as error:
        return None, error.message
    reason = densities.why_no_density(model)
    return (None, reason) if reason is not None else _looked_at(densities.density_of_model(model, half), half)


def _looked_at(density: Grid | None, half: float) -> tuple[Grid | None, str]:
    from genbench.harness.densities import mass

    return (None, "density not known") if density is None else (density, f"mass {mass(density, half):.3f}")


def _of_codes(folder: RunFolder, kind: Kind, columns: int, rows: int, said: _Said) -> Image.Image:
    """Sections of all models with codes; base pictures and what is left out are named on stderr and in the caption."""
    from genbench.core.errors import GenbenchError, StoreError
    from genbench.report.grid import sectioned_grid

    sections: dict[str, Rows] = {}
    for record in _finished(folder):
        if record.cell.role != "model":
            continue
        try:
            found = _section(folder, record, kind, columns, rows)
        except GenbenchError as error:
            found = error.message if error.hint is None else f"{error.message}; {error.hint}"
        if isinstance(found, str):
            said.add(f"left out `{_name(record)}`: {found}")
            continue
        sections[_name(record)] = found.rows
        for text in found.notes:
            said.add(text)
    if not sections:
        raise StoreError(
            f"{folder.path}: no model of this run has {kind}",
            hint="models with codes have them, such as `vae`: `genbench run --suite disentanglement`",
        )
    caption = "\n".join([_CAPTIONS[kind], *said.texts])
    return sectioned_grid(sections, heads=_heads(kind, columns), caption=caption)


class _Said:
    """What is said of a page, once each: on stderr, and in its caption."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, text: str) -> None:
        if text not in self.texts:
            sys.stderr.write(f"{text}\n")
            self.texts.append(text)


@dataclasses.dataclass(frozen=True)
class _Section:
    rows: Rows
    notes: tuple[str, ...]
    """The examples that rows start from, and the dimensions that have none."""


def _section(folder: RunFolder, record: Record, kind: Kind, columns: int, rows: int) -> _Section | str:
    """Rows of one model with what is to be said of them, or why it has none."""
    from genbench.harness.pictures_of_codes import bases, left_out, pictures_of_codes, why_not

    found = rebuilt_of(folder, record)
    reason = why_not(kind, found.model, found.dataset)
    if reason is not None:
        return reason
    names = bases(kind, found.dataset, rows=rows)
    pairs = [f"pair {1 + i // 2}: {names[i]} to {names[i + 1]}" for i in range(0, len(names) - 1, 2)]
    base = (
        f"base: held-out example {names[0]}, as its code is decoded at 0" if kind == "traversals" else "; ".join(pairs)
    )
    partly = left_out(kind, found, rows=rows)
    shown = None if partly is None else f"`{_name(record)}` shows {partly}"
    drawn = pictures_of_codes(kind, found, columns=columns, rows=rows)
    return _Section(drawn, tuple(text for text in (base, shown) if text))


def _heads(kind: Kind, columns: int) -> list[str]:
    """Words above the columns."""
    if kind == "reconstructions":
        return []
    if kind == "interpolations":
        return ["original", *[""] * (columns - 2), "original"]
    steps = [4.0 * column / (columns - 1) - 2.0 for column in range(columns)]
    return [f"{step:+.2g}" if step else "0" for step in steps]


def _finished(folder: RunFolder) -> Iterator[Record]:
    """Records with something to show, models first."""
    for record in sorted(folder.records(), key=lambda record: record.cell.role != "model"):
        if record.status == "ok":
            yield record


def _unfinished(folder: RunFolder) -> Iterator[str]:
    """Cells of the run that no page shows, each with the reason."""
    plan = folder.plan()
    for cell in () if plan is None else plan.cells:
        record = folder.record(cell.key)
        if record is None:
            yield f"left out `{_named(cell)}`: not finished; `genbench run` goes on with it"
        elif record.error is not None:
            yield f"left out `{_named(cell)}`: failed in {record.error.phase}: {record.error.type}"


def _name(record: Record) -> str:
    return _named(record.cell)


def _named(cell: Cell) -> str:
    return cell.label if cell.seed == 0 else f"{cell.label} seed {cell.seed}"
