"""Patches of photographs: cut from where they say, from strips that no other split sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images

from genbench.data.patches import Patches, _corners


@pytest.mark.parametrize("resolution", [8, 16, 64])
def test_no_pixel_is_seen_by_both_splits(resolution):
    seen = {}
    for split in ("train", "test"):
        marks = np.zeros((2, 427, 640), dtype=bool)
        photograph, top, left = _corners(split, resolution).T
        for row in (0, resolution - 1):
            for column in range(resolution):
                marks[photograph, top + row, left + column] = True
        seen[split] = marks
    assert not (seen["train"] & seen["test"]).any()
    assert (seen["train"] | seen["test"])[:, :: max(resolution // 8, 1)].mean() > 0.8


def test_a_patch_is_the_piece_of_the_photograph_at_its_corner():
    photographs = load_sample_images().images
    patches = Patches(16).load("train", range(50)).x
    for patch, (photograph, top, left) in zip(patches, _corners("train", 16)[:50], strict=True):
        piece = photographs[photograph][top : top + 16, left : left + 16].transpose(2, 0, 1)
        assert torch.equal(patch, torch.from_numpy(piece.copy()))


def test_every_position_occurs_once_and_the_number_is_the_closed_form():
    positions = (427 - 16 + 1) * (80 - 16 + 1)
    assert Patches(16).size("train") == 2 * 6 * positions
    assert Patches(16).size("test") == 2 * 2 * positions
    assert len(np.unique(_corners("test", 16), axis=0)) == 4 * positions


def test_the_first_patches_are_a_fair_draw():
    photograph, top, left = _corners("train", 16)[:4000].T
    assert abs(photograph.mean() - 0.5) < 0.04
    assert abs(top.mean() - (427 - 16) / 2) < 8
    assert 250 < left.mean() < 370


@pytest.mark.parametrize("resolution", [2, 65])
def test_other_sides_are_refused(resolution):
    with pytest.raises(ValueError, match=f"resolution is {resolution}, expected 4 .. 64"):
        Patches(resolution)
