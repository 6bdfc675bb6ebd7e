"""Models of a finished run, built again from the weights that it kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.core.record import Record
    from genbench.harness.pictures_of_codes import Rebuilt
    from genbench.store import RunFolder


def rebuilt_of(folder: RunFolder, record: Record) -> Rebuilt:
    """The model of a record with its weights, or with those of the cell that trained them.

    Raises:
        DataError: there are none, or they do not fit.
        GenbenchError: data or model cannot be built here.
    """
    from genbench.core.files import WEIGHTS
    from genbench.harness.pictures_of_codes import rebuilt

    owner = folder.cell_folder(record.key) / WEIGHTS
    if record.cell.weights_from is not None and not owner.is_file():
        owner = folder.cell_folder(record.cell.weights_from) / WEIGHTS
    return rebuilt(record.cell, owner)
