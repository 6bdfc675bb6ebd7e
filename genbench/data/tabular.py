"""Tables of real measurements that ship inside scikit-learn, as vectors of numbers with mean 0 and variance 1.

A density of rounded numbers has no bound, for a model may pile up on them. So each number gets uniform noise as wide as
the step to which its column was rounded (the smallest distance of two of its values), always the same for a row: the
likelihood of what comes out is a lower bound, in the mean, of that of the rounded table (Theis et al. 2016,
arXiv:1511.01844, Sec. 3.1). Columns are then shifted and scaled by mean and standard deviation of `train`; densities
are those of the scaled numbers. A fifth of the rows, of every class alike and chosen by a hash of the position, is
`test`.

Tables: `breast_cancer`, 569 nuclei with 30 numbers (Street et al. 1993); `wine`, 178 wines with 13 (Forina et al.
1991); `iris`, 150 flowers with 4 (Fisher 1936); `diabetes`, 442 patients with 9 (Efron et al. 2004), of whom the sex,
which is no measurement on a scale, and the disease a year later are left out.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn import datasets

from genbench.core.dataset import Batch, Dataset, DataSpec, Split, register_dataset
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, uniforms, words

Table = Literal["breast_cancer", "wine", "iris", "diabetes"]
Reals = npt.NDArray[np.float64]
TEST_SHARE = 0.2
NUM_CLASSES: dict[Table, int] = {"breast_cancer": 2, "wine": 3, "iris": 3, "diabetes": 0}
NUM_COLUMNS: dict[Table, int] = {"breast_cancer": 30, "wine": 13, "iris": 4, "diabetes": 9}
_SEX = 1


@register_dataset("tabular")
@dataclass(frozen=True)
class Tabular(Dataset):
    """Rows (D,), float32; labelled by class but for `diabetes`."""

    source = "scikit-learn, from https://archive.ics.uci.edu, CC BY 4.0; diabetes from Efron et al. 2004"

    table: Table = "breast_cancer"
    """Which table."""

    @property
    def spec(self) -> DataSpec:
        """Vectors of floats."""
        return DataSpec(
            kind="vector", shape=(NUM_COLUMNS[self.table],), levels=None, num_classes=NUM_CLASSES[self.table]
        )

    def size(self, split: Split) -> int:
        """Number of rows of a split."""
        checked_split(split, self.splits, owner="tabular")
        return len(_split_arrays(self.table, split)[0])

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Rows and their classes in the order of scikit-learn's file."""
        rows = checked_indices(indices, size=self.size(split), owner=f"tabular, {split}")
        values, labels = _split_arrays(self.table, split)
        y = torch.from_numpy(labels[rows]) if NUM_CLASSES[self.table] else None
        return Batch(x=torch.from_numpy(values[rows].astype(np.float32)), y=y)

    def fingerprint(self) -> str:
        """Digest of every row of both splits to six decimals, and of its label."""
        digest = hashlib.sha256(f"tabular {self.table}".encode())
        for split in self.splits:
            values, labels = _split_arrays(self.table, split)
            digest.update(np.round(values * 1e6).astype("<i8").tobytes())
            digest.update(labels.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def steps_of(values: Reals) -> Reals:
    """The smallest distance of two different values in each column of (N, D): (D,)."""
    return np.array([np.diff(np.unique(column)).min() for column in values.T])


def raw_table(table: Table) -> tuple[Reals, npt.NDArray[np.int64]]:
    """Columns that are measurements (N, D) as they were rounded, and classes (N,), 0 where there are none."""
    if table == "diabetes":
        values = datasets.load_diabetes(scaled=False).data
        return np.delete(values, _SEX, axis=1), np.zeros(len(values), dtype=np.int64)
    load = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine, "iris": datasets.load_iris}[table]
    values, targets = load(return_X_y=True)
    return np.asarray(values, dtype=np.float64), np.asarray(targets, dtype=np.int64)


@functools.cache
def _split_arrays(table: Table, split: Split) -> tuple[Reals, npt.NDArray[np.int64]]:
    values, labels = raw_table(table)
    rows = np.arange(len(values))
    noise = uniforms(key_of("tabular", table, "noise"), rows, values.shape[1]) - 0.5
    noised = values + steps_of(values) * noise
    held_out = np.zeros(len(labels), dtype=bool)
    ranks = words(key_of("tabular", table, "split"), rows, 1)[:, 0]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(ranks[members])]
        held_out[order[: round(TEST_SHARE * len(members))]] = True
    scaled = (noised - noised[~held_out].mean(0)) / noised[~held_out].std(0)
    chosen = held_out if split == "test" else ~held_out
    return scaled[chosen], labels[chosen]
