"""Pages of points and densities: what is drawn, in which order, and with which colours."""

import io

import numpy as np
import pytest
from PIL import Image

from genbench.report.plane import Plane, chains_page, plane_page

POINTS = np.random.default_rng(0).normal(size=(256, 2))
FLAT = np.full((20, 20), 0.1)
BRIGHTEST = (253, 231, 36)  # the upper end of viridis
DARKEST = (68, 1, 84)


def _pixels(planes, **changes):
    with Image.open(io.BytesIO(plane_page(planes, **{"half": 3.0, "title": "t", **changes}))) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def _share(pixels, colour):
    return float((np.abs(pixels.astype(int) - colour).max(-1) <= 2).mean())


def test_the_largest_value_of_the_first_density_has_the_brightest_colour_in_all():
    half = np.where(np.arange(20) < 10, 0.1, 0.0) * np.ones((20, 1))
    law, model = Plane("law", POINTS, half, "mass 1"), Plane("model", POINTS, 2 * FLAT, "mass 2")
    alone, both = _pixels([law], pairs=1), _pixels([law, model], pairs=1)
    assert _share(alone, BRIGHTEST) == pytest.approx(_share(alone, DARKEST), rel=0.05)
    assert _share(both, BRIGHTEST) > 2 * _share(both, DARKEST)  # brighter than the law is no brighter


def test_rows_of_a_density_go_up():
    low = np.zeros((20, 20))
    low[:10] = 0.1
    found = _pixels([Plane("a", POINTS, low, "")])
    bright = (np.abs(found.astype(int) - BRIGHTEST).max(-1) <= 2).nonzero()[0].mean()
    dark = (np.abs(found.astype(int) - DARKEST).max(-1) <= 2).nonzero()[0].mean()
    assert bright > dark  # rows of pixels go down


def test_points_and_the_reason_for_a_missing_density_are_drawn():
    without = _pixels([Plane("a", POINTS, None, "gives no density")])
    assert _share(without, DARKEST) == 0
    empty = _pixels([Plane("a", POINTS[:0], None, "gives no density")])
    assert (without != empty).any()
    assert (empty != _pixels([Plane("a", POINTS[:0], None, "")])).any()


def test_all_panels_show_as_many_points():
    few, many = Plane("a", POINTS[:64], None, ""), Plane("a", POINTS, None, "")
    assert (_pixels([few, many]) == _pixels([few, few])).all()
    assert (_pixels([many, many]) != _pixels([few, few])).any()


def test_models_stand_in_lines_of_so_many_pairs():
    planes = [Plane(str(i), POINTS, FLAT, "") for i in range(5)]
    wide, narrow = _pixels(planes, pairs=4), _pixels(planes, pairs=1)
    assert wide.shape[1] == pytest.approx(4 * narrow.shape[1], rel=0.01)
    assert narrow.shape[0] > 2 * wide.shape[0]


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        ([], "at least one"),
        ([Plane("a", POINTS[:, :1], None, "")], "`a`: expected points"),
        ([Plane("a", POINTS, FLAT[:3], "")], "`a`: expected a square"),
    ],
)
def test_what_cannot_be_drawn_is_refused(planes, message):
    with pytest.raises(ValueError, match=message):
        plane_page(planes, half=1.0, title="")


def _chains(chains, density):
    with Image.open(io.BytesIO(chains_page(chains, density, half=3.0, title="t"))) as image:
        return np.asarray(image.convert("RGB"))


def _bell(x, y):
    ticks = (np.arange(60) + 0.5) * 0.1 - 3.0
    return np.exp(-0.5 * ((ticks[None, :] - x) ** 2 + (ticks[:, None] - y) ** 2)) / (2 * np.pi)


def test_chains_are_drawn_over_contours_of_their_energy():
    chains = {"from noise": POINTS, "from the buffer": POINTS[::-1]}
    found = _chains(chains, _bell(0.0, 0.0))
    assert (found != _chains(chains, FLAT)).any()  # a flat energy has no contours
    assert (found != _chains({**chains, "from noise": POINTS[:0]}, _bell(0.0, 0.0))).any()
    assert found.shape[1] == pytest.approx(2 * _chains({"one": POINTS}, FLAT).shape[1], abs=2)


def test_contours_of_an_energy_stand_where_it_is_low():
    none = {"a": POINTS[:0]}
    flat = _chains(none, FLAT)
    rows, columns = (_chains(none, _bell(2.0, -2.0)) != flat).any(-1).nonzero()  # to the right, and low
    assert rows.mean() > 0.6 * len(flat)
    assert columns.mean() > 0.6 * flat.shape[1]


def test_a_page_of_chains_checks_what_it_is_given():
    with pytest.raises(ValueError, match="at least one"):
        chains_page({}, FLAT, half=3.0, title="")
    with pytest.raises(ValueError, match=r"\(N, 2\)"):
        chains_page({"a": np.zeros((4, 3))}, FLAT, half=3.0, title="")
    with pytest.raises(ValueError, match="square"):
        chains_page({"a": POINTS}, np.ones((4, 5)), half=3.0, title="")
