"""scikit-learn's tables: every row there once, scaled by the training rows, with noise within the rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import datasets

from genbench.data import tabular
from genbench.data.tabular import NUM_CLASSES, Tabular

TABLES = ("breast_cancer", "wine", "iris", "diabetes")


def _loaded(table, split):
    data = Tabular(table)
    return data.load(split, range(data.size(split)))


@pytest.mark.parametrize(
    ("table", "rows", "columns"),
    [(t, n, d) for t, n, d in zip(TABLES, (569, 178, 150, 442), (30, 13, 4, 9), strict=True)],
)
def test_both_splits_together_are_the_whole_table(table, rows, columns):
    batches = [_loaded(table, split) for split in ("train", "test")]
    assert sum(len(batch.x) for batch in batches) == rows
    assert all(batch.x.shape[1] == columns and batch.x.dtype == torch.float32 for batch in batches)
    assert Tabular(table).spec.shape == (columns,)
    assert len({row.numpy().tobytes() for batch in batches for row in batch.x}) == rows


@pytest.mark.parametrize("table", TABLES)
def test_training_rows_have_mean_0_and_variance_1_and_test_rows_nearly_so(table):
    train, test = (_loaded(table, split).x.double() for split in ("train", "test"))
    torch.testing.assert_close(train.mean(0), torch.zeros(train.shape[1]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(train.shape[1]).double(), atol=1e-6, rtol=0)
    assert float(test.mean(0).abs().max()) < 6 / len(test) ** 0.5


@pytest.mark.parametrize("table", TABLES)
def test_a_linear_map_gives_the_rounded_numbers_back_to_half_a_step(table):
    values, labels = tabular.raw_table(table)
    loaded = [_loaded(table, split) for split in ("train", "test")]
    found = torch.cat([batch.x for batch in loaded]).double().numpy()
    steps = tabular.steps_of(values)
    for column in range(values.shape[1]):
        scale, shift = np.polyfit(np.sort(found[:, column]), np.sort(values[:, column]), 1)
        off = np.abs(np.sort(scale * found[:, column] + shift) - np.sort(values[:, column]))
        assert off.max() < steps[column] * 0.75  # sorting may swap neighbours, never past the next step
    if NUM_CLASSES[table]:
        counts = torch.cat([batch.y for batch in loaded]).bincount()
        assert counts.tolist() == np.bincount(labels).tolist()
    else:
        assert all(batch.y is None for batch in loaded)


@pytest.mark.parametrize("table", ["breast_cancer", "wine", "iris"])
def test_a_fifth_of_every_class_is_held_out(table):
    count = NUM_CLASSES[table]
    train, test = (torch.bincount(_loaded(table, split).y, minlength=count) for split in ("train", "test"))
    assert torch.equal(test, torch.round(0.2 * (train + test)).long())


def test_the_sex_of_patients_is_left_out():
    values = datasets.load_diabetes(scaled=False).data
    kept, _ = tabular.raw_table("diabetes")
    assert sorted(len(np.unique(column)) for column in kept.T) == sorted(
        n for n in (len(np.unique(column)) for column in values.T) if n > 2
    )


def test_tables_have_digests_of_their_own():
    assert len({Tabular(table).fingerprint() for table in TABLES}) == 4
