"""Data and model of a cell, made in one way wherever the cell is run or timed."""

from __future__ import annotations

from genbench.core.dataset import Batch, Dataset
from genbench.core.errors import DataError
from genbench.core.model import MODELS, GenerativeModel, build_model
from genbench.core.spec import Cell
from genbench.harness.evidence import subset
from genbench.harness.external import external_model, is_external


def training_set(cell: Cell, dataset: Dataset) -> Batch:
    """The examples that the cell's model is trained on, on the CPU.

    Raises:
        DataError: there are none.
    """
    size = dataset.size("train")
    wanted = cell.protocol.train_size if size is None else min(size, cell.protocol.train_size)
    if wanted < 1:
        raise DataError(f"dataset `{cell.dataset.label}` has no training examples")
    return subset(dataset, "train", wanted)


def build(cell: Cell, dataset: Dataset) -> GenerativeModel:
    """The cell's model with its settings, on the CPU; parameters come from the global stream."""
    preset = cell.subject.preset or cell.protocol.preset
    settings = {**cell.subject.config, **cell.sampling}
    if is_external(cell.subject):
        return external_model(cell.subject, dataset.spec, preset=preset, settings=settings)
    kind = MODELS.get(cell.subject.name)
    return build_model(kind, dataset.spec, preset=preset, settings=settings, owner=cell.subject.name)
