"""scikit-learn's digits: nothing lost, classes in proportion."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from genbench.data.digits import Digits


def _loaded(split):
    data = Digits()
    return data.load(split, range(data.size(split)))


def test_both_splits_together_are_the_whole_file():
    batches = [_loaded(split) for split in ("train", "test")]
    pairs = [(row.numpy().tobytes(), int(y)) for batch in batches for row, y in zip(batch.x, batch.y, strict=True)]
    values, labels = load_digits(return_X_y=True)
    expected = [(row.astype(np.uint8).tobytes(), int(y)) for row, y in zip(values, labels, strict=True)]
    assert sorted(pairs) == sorted(expected)
    assert len(pairs) == 1797


def test_a_fifth_of_every_class_is_held_out():
    train, test = (torch.bincount(_loaded(split).y, minlength=10) for split in ("train", "test"))
    assert torch.equal(test, torch.round(0.2 * (train + test)).long())


def test_pixels_use_all_17_levels():
    assert torch.unique(_loaded("train").x).tolist() == list(range(17))
