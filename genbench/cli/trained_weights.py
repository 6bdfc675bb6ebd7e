"""Trained weights for `genbench bench --weights`: those of a run, of one of its cells, or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.core.errors import SettingError, StoreError
from genbench.core.files import WEIGHTS

if TYPE_CHECKING:
    from genbench.core.spec import Cell
    from genbench.store import RunFolder

_Trained = tuple[str, str, str]
"""What two cells share whose weights fit each other's model: digest of the subject, its preset, and the data."""


def trained_weights(path: Path, cells: Sequence[Cell]) -> dict[str, Path]:
    """Weights of cells, by key; cells of a run that have nothing to train are left out.

    Args:
        path: a run folder, which serves all cells that it has trained, whatever sampler they use; or a cell's folder or
            a `.safetensors` file, which serve one model.
        cells: that want weights.

    Raises:
        StoreError: there is nothing, or it is no file of weights.
        SettingError: a cell has none there, or a single file is to serve several models.
    """
    if (path / "plan.json").is_file():
        return _of_run(path, cells)
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        hint = "give a run folder, one of its cells, or a file of safetensors"
        raise StoreError(f"`--weights {path}`: no weights here", hint=hint)
    _check(file)
    subjects = list(dict.fromkeys(cell.subject.label for cell in cells))
    if len(subjects) > 1:
        raise SettingError(
            f"`--weights {path}`: one file for {len(subjects)} models ({', '.join(subjects)})",
            hint="name one with `-m`, or give the run folder that trained them all",
        )
    return {cell.key: file.resolve() for cell in cells}


def _of_run(path: Path, cells: Sequence[Cell]) -> dict[str, Path]:
    from genbench.store import RunFolder

    run = RunFolder.open(path)
    plan = run.plan()
    assert plan is not None  # the folder was opened by its plan
    trained: dict[_Trained, list[Cell]] = {}
    for cell in plan.cells:
        if cell.role == "model" and _is_done(run, cell):
            trained.setdefault(_trained(cell), []).append(cell)
    found: dict[str, Path] = {}
    for cell in cells:
        owners = trained.get(_trained(cell))
        if owners is None:
            raise _missing(path, cell, [one for group in trained.values() for one in group])
        owner = next((one for one in owners if one.seed == cell.seed), owners[0])
        file = _file(run, owner)
        if file.is_file():
            _check(file)
            found[cell.key] = file.resolve()
    return found


def _trained(cell: Cell) -> _Trained:
    from genbench.core.spec import digest

    subject = digest(cell.subject.model_dump(mode="json", exclude={"preset"}))
    return subject, cell.subject.preset or cell.protocol.preset, cell.dataset.label


def _file(run: RunFolder, cell: Cell) -> Path:
    return run.cell_folder(cell.weights_from or cell.key) / WEIGHTS


def _is_done(run: RunFolder, cell: Cell) -> bool:
    """Whether a cell has weights, or has ended well without: then it has nothing to train."""
    if _file(run, cell).is_file():
        return True
    record = run.record(cell.key)
    return record is not None and record.status == "ok"


def _missing(path: Path, cell: Cell, held: Sequence[Cell]) -> SettingError:
    preset = cell.subject.preset or cell.protocol.preset
    names = dict.fromkeys(f"`{one.label}` on {one.dataset.label}" for one in held)
    there = f"it holds {', '.join(names)}" if names else "it holds none"
    return SettingError(
        f"`--weights {path}`: no trained weights of `{cell.label}` (preset {preset}) on {cell.dataset.label}",
        hint=f"{there}; `-m`, `--suite` and `--tier` choose what is benched, `genbench run` trains",
    )


def _check(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            pass
    except (OSError, SafetensorError) as error:
        hint = "weights are read from safetensors alone: `safetensors.torch.save_file(model.state_dict(), FILE)`"
        raise StoreError(f"`--weights`: {file} is no file of weights: {error}", hint=hint) from error
