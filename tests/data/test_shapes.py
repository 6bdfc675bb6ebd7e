"""The rendered shapes: labels against what the pixels show, splits, captions, resolutions."""

from __future__ import annotations

import colorsys
import itertools
import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from genbench.core.dataset import PAD, build_dataset
from genbench.core.errors import SettingError
from genbench.core.spec import parse_ref
from genbench.data import _scenes, shapes
from genbench.data.shapes import FACTORS, Shapes, scenes_of

NAMES = [factor.values for factor in FACTORS]


@pytest.fixture(scope="module")
def large():
    """1,000 pictures at 64 pixels, with their scenes."""
    _, scenes = scenes_of("train", np.arange(1000))
    return Shapes(64).load("train", range(1000)), scenes


def _cover(x: torch.Tensor) -> np.ndarray:
    """Share of each pixel that is not background, read off the picture alone: (N, H, W)."""
    picture = x.double().numpy()
    contrast = np.abs(picture - picture[:, :, :1, :1]).sum(axis=1)
    return contrast / np.quantile(contrast.reshape(len(contrast), -1), 0.99, axis=1)[:, None, None]


def test_an_example_depends_on_its_index_alone():
    data = Shapes(16)
    whole = data.load("train", range(200))
    order = np.random.default_rng(0).permutation(200)
    pieces = [data.load("train", [int(index)]) for index in order]
    for name in ("x", "y", "factors", "text"):
        piecewise = torch.cat([vars(piece)[name] for piece in pieces])
        assert torch.equal(piecewise, vars(whole)[name][torch.from_numpy(order)])


def test_indices_far_out_are_examples_like_any_other():
    batch = Shapes(8).load("test", [10**15, 2**62])
    assert not torch.equal(batch.x[0], batch.x[1])


def test_train_and_test_take_their_positions_from_disjoint_lattices():
    points = {}
    for split in ("train", "test"):
        factors, scenes = scenes_of(split, np.arange(20_000))
        cell = 0.5 + shapes.OFFSETS[factors[:, 2]] * shapes.DIRECTIONS[factors[:, 3], 0]
        shift = (scenes.centre[:, 0] - cell) / shapes.POSITION_JITTER  # in [-1, 1]
        points[split] = (shift + 1.0) / 2.0 * (2 * shapes.LATTICE - 1)
        assert np.abs(points[split] - points[split].round()).max() < 1e-6
    assert set(points["train"].round().astype(int) % 2) == {0}
    assert set(points["test"].round().astype(int) % 2) == {1}


def test_the_lattice_survives_the_precision_of_the_renderer():
    step = 2.0 * shapes.POSITION_JITTER / (2 * shapes.LATTICE - 1)
    assert step > 16 * np.finfo(np.float32).eps


def test_no_picture_occurs_in_two_splits_even_at_8_pixels():
    data = Shapes(8)
    seen = [{row.tobytes() for row in data.load(split, range(6_000)).x.numpy()} for split in data.splits]
    for one, other in itertools.combinations(seen, 2):
        assert not one & other


def test_novel_has_the_combinations_that_train_and_test_lack():
    data = Shapes()
    seen = {split: {tuple(row) for row in data.combinations(split)} for split in data.splits}
    every = set(itertools.product(*(range(len(names)) for names in NAMES)))
    assert seen["train"] == seen["test"] == every - seen["novel"]
    pairs = {row[:2] for row in seen["novel"]}
    assert len(pairs) == 4
    assert len(seen["novel"]) == 4 * 2 * 5 * 4
    assert {row[0] for row in seen["train"]} == set(range(4))
    assert {row[1] for row in seen["train"]} == set(range(6))
    assert all(len({pair[place] for pair in pairs}) == 4 for place in (0, 1))


@pytest.mark.parametrize("split", ["train", "test", "novel"])
def test_every_combination_is_equally_likely_and_no_other_occurs(split):
    expected = Shapes().combinations(split)
    factors, _ = scenes_of(split, np.arange(80_000))
    rows, counts = np.unique(factors, axis=0, return_counts=True)
    assert np.array_equal(rows, expected)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("column", "share"), [(0, 1 / 4), (2, 1 / 2), (3, 1 / 5), (4, 1 / 4)])
def test_marginals_other_than_the_colour_are_uniform(column, share):
    factors, _ = scenes_of("train", np.arange(50_000))
    shares = np.bincount(factors[:, column]) / len(factors)
    assert np.abs(shares - share).max() < 4 * math.sqrt(share * (1 - share) / len(factors))


@pytest.mark.parametrize("split", ["train", "novel"])
def test_a_caption_says_all_five_factors(split):
    data = Shapes(8)
    batch = data.load(split, range(500))
    pattern = re.compile(r"a (\w+) (\w+) (\w+) (?:at|in) the (.+) on a (\w+) background")
    for tokens, factors in zip(batch.text, batch.factors.tolist(), strict=True):
        match = pattern.fullmatch(data.spec.caption(tokens))
        size, colour, shape, position, background = match.groups()
        found = [shape, colour, size, position, background]
        assert found == [names[value] for names, value in zip(NAMES, factors, strict=True)]


def test_the_caption_of_the_specification():
    text = torch.from_numpy(shapes.captions(np.array([[0, 0, 0, 0, 1], [3, 5, 1, 4, 3]])))
    caption = Shapes().spec.caption
    assert caption(text[0]) == "a small red circle at the top left on a grey background"
    assert caption(text[1]) == "a large cyan cross in the centre on a brown background"
    assert text[1, -1] == PAD


def test_padding_is_the_empty_word_and_follows_the_caption():
    spec, text = Shapes().spec, Shapes(8).load("train", range(500)).text
    assert spec.vocabulary[PAD] == ""
    assert len(set(spec.vocabulary)) == len(spec.vocabulary)
    assert int(text.max()) < len(spec.vocabulary)
    padded = text == PAD
    assert not (padded[:, :-1] & ~padded[:, 1:]).any()


def test_labels_are_shapes():
    batch = Shapes(8).load("train", range(100))
    assert torch.equal(batch.y, batch.factors[:, 0])


def test_the_object_lies_inside_the_picture(large):
    batch, _ = large
    cover = _cover(batch.x)
    border = np.concatenate([cover[:, 0], cover[:, -1], cover[:, :, 0], cover[:, :, -1]], axis=1)
    assert border.max() < 0.01


def test_the_centroid_of_the_object_lies_in_the_stated_cell(large):
    batch, scenes = large
    cover = _cover(batch.x)
    middles = (np.arange(64) + 0.5) / 64
    mass = cover.sum(axis=(1, 2))
    centroid = np.stack([(cover.sum(axis=1) @ middles) / mass, (cover.sum(axis=2) @ middles) / mass], axis=1)
    assert np.abs(centroid - scenes.centre).max() < 0.003
    corners = {"top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1)}
    for place, row in zip(centroid - 0.5, batch.factors.tolist(), strict=True):
        position = NAMES[3][row[3]]
        side = (0, 0) if np.abs(place).max() < 0.05 else tuple(np.sign(place).astype(int))
        assert side == corners.get(position, (0, 0))


def test_areas_are_those_of_the_closed_forms(large):
    batch, scenes = large
    area = _cover(batch.x).mean(axis=(1, 2))
    length, width, corner = float(_scenes.ARM_LENGTH), float(_scenes.ARM_WIDTH), float(_scenes.TRIANGLE)
    unit = [
        math.pi,
        (2 * float(_scenes.SQUARE)) ** 2,
        3 * math.sqrt(3) / 4 * corner**2,
        2 * (2 * length) * (2 * width) - (2 * width) ** 2,
    ]
    expected = np.array(unit)[batch.y.numpy()] * scenes.radius**2
    assert np.abs(area / expected - 1).max() < 0.03


def test_a_large_object_is_larger_than_any_small_one_of_its_shape(large):
    batch, _ = large
    area = _cover(batch.x).mean(axis=(1, 2))
    for shape in range(4):
        small, big = (area[(batch.factors[:, 0] == shape) & (batch.factors[:, 2] == size)] for size in (0, 1))
        assert big.max() / small.min() > 1.5
        assert big.min() > 1.5 * small.max()


def test_colours_are_the_named_hues(large):
    batch, scenes = large
    hues = {"red": 0, "yellow": 60, "green": 120, "cyan": 180, "blue": 240, "magenta": 300}
    x = batch.x.numpy() / 255.0
    columns, rows = (scenes.centre * 64).astype(int).T
    for number, row in enumerate(batch.factors.tolist()):
        hue, _, saturation = colorsys.rgb_to_hls(*x[number, :, rows[number], columns[number]])
        nearest = min(hues, key=lambda name: abs((hue * 360 - hues[name] + 180) % 360 - 180))
        assert nearest == NAMES[1][row[1]]
        assert saturation > 0.5


def test_backgrounds_are_the_named_tones(large):
    batch, _ = large
    for corner, row in zip(batch.x[:, :, 0, 0].numpy() / 255.0, batch.factors.tolist(), strict=True):
        hue, light, saturation = colorsys.rgb_to_hls(*corner)
        brown = saturation > 0.3 and 15 < hue * 360 < 45
        tone = "brown" if brown else "black" if light < 0.2 else "white" if light > 0.8 else "grey"
        assert tone == NAMES[4][row[4]]


@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_the_same_scene_is_shown_at_every_resolution(resolution, large):
    batch, _ = large
    pooled = torch.nn.functional.avg_pool2d(batch.x.float(), 64 // resolution)
    coarse = Shapes(resolution).load("train", range(1000))
    assert torch.equal(coarse.text, batch.text)
    error = (coarse.x.float() - pooled).abs()
    assert error.max() <= 1.0  # both were rounded once


def test_coverage_agrees_with_counting_points():
    _, scenes = scenes_of("train", np.arange(16))
    fine = (np.arange(1024) + 0.5) / 1024
    x, y = np.meshgrid(fine, fine)
    for number in range(16):
        angle = 2 * math.atan(scenes.half_tangent[number])
        place = (x - scenes.centre[number, 0] + 1j * (y - scenes.centre[number, 1])) * np.exp(-1j * angle)
        u, v = place.real / scenes.radius[number], place.imag / scenes.radius[number]
        arm, long, corner = float(_scenes.ARM_WIDTH), float(_scenes.ARM_LENGTH), float(_scenes.TRIANGLE)
        inside = [
            u**2 + v**2 < 1,
            (abs(u) < 1) & (abs(v) < 1),
            (v < corner / 2) & (math.sqrt(3) * abs(u) - v < corner),
            (abs(u) < arm) & (abs(v) < long) | (abs(v) < arm) & (abs(u) < long),
        ][scenes.shape[number]]
        share = inside.reshape(64, 16, 64, 16).mean(axis=(1, 3))
        found = _scenes.coverage(scenes[np.array([number])], _scenes.DISTANCES[scenes.shape[number]], 64)[0]
        assert np.abs(found - share).max() < 0.36  # at the tip of a triangle, the worst that a distance can miss
        assert np.abs(found - share)[(share > 0) & (share < 1)].mean() < 0.03


def test_jitter_fills_its_range_and_is_centred():
    factors, scenes = scenes_of("train", np.arange(20_000))
    relative = scenes.radius / shapes.RADII[factors[:, 2]] - 1
    assert abs(relative).max() <= shapes.SIZE_JITTER
    for values, most in ((relative, shapes.SIZE_JITTER), (scenes.half_tangent, shapes.HALF_TANGENT)):
        assert stats.kstest(values, stats.uniform(-most, 2 * most).cdf).pvalue > 1e-3


def test_the_fingerprint_changes_with_the_rendering_and_with_nothing_else(monkeypatch):
    before = Shapes(8).fingerprint()
    assert Shapes(8).fingerprint() == before != Shapes(16).fingerprint()
    shapes._fingerprint.cache_clear()
    monkeypatch.setattr(_scenes, "ARM_WIDTH", np.float32(0.3))
    changed = Shapes(8).fingerprint()
    shapes._fingerprint.cache_clear()
    monkeypatch.undo()
    assert changed != before == Shapes(8).fingerprint()


def test_another_resolution_is_refused_with_the_accepted_ones():
    with pytest.raises(ValueError, match="resolution is 28, expected one of 8, 16, 32, 64"):
        Shapes(28)
    with pytest.raises(SettingError, match="expected one of 8, 16, 32, 64"):
        build_dataset(parse_ref("shapes[resolution=28]"))


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="shapes has no split `valid`, expected train or test or novel"):
        Shapes().load("valid", [0])


def test_the_brightest_colours_do_not_wrap_around_to_black():
    """Yellow's red channel can exceed 255 before rounding; example 34,395 of `train` is such a picture."""
    batch = Shapes(16).load("train", [34_395])
    assert batch.factors[0, 1] == 3  # yellow
    red, green = batch.x[0, 0], batch.x[0, 1]
    assert red.max() == 255
    assert (red[green > 200] > 200).all()
