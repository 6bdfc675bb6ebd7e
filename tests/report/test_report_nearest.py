import io

import numpy as np
import pytest
from PIL import Image

from genbench.report.grid import LEGIBLE
from genbench.report.nearest import LARGEST, neighbour_page, png_bytes


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _found(page, tile):
    """Where the tile (H, W, 3) stands on the page: x and y of every place."""
    pixels = np.asarray(page)
    height, width = tile.shape[:2]
    starts = np.argwhere((pixels == tile[0, 0]).all(axis=2))
    inside = [(y, x) for y, x in starts if y + height <= pixels.shape[0] and x + width <= pixels.shape[1]]
    return [(x, y) for y, x in inside if np.array_equal(pixels[y : y + height, x : x + width], tile)]


def _enlarged(picture):
    factor = LEGIBLE // picture.shape[1]
    return picture.transpose(1, 2, 0).repeat(factor, axis=0).repeat(factor, axis=1)


def test_every_sample_stands_in_one_line_with_its_neighbours_in_order():
    samples, references = _noise(4, 3, 8, 8), _noise(4, 3, 3, 8, 8, seed=1)
    page = neighbour_page(samples, references, [[f"{i}.png", "distance 1"] for i in range(4)])
    last = -1
    for sample, neighbours in zip(samples, references, strict=True):
        ((x, y),) = _found(page, _enlarged(sample))
        places = [_found(page, _enlarged(neighbour)) for neighbour in neighbours]
        assert [len(place) for place in places] == [1, 1, 1]
        assert [place[0][1] for place in places] == [y] * 3
        right = [x, *(place[0][0] for place in places)]
        assert right == sorted(right)
        assert right[1] - right[0] > right[2] - right[1]  # the sample stands apart
        assert y > last
        last = y


def test_what_is_said_of_a_sample_is_drawn_and_long_paths_keep_their_end():
    samples, references = np.full((1, 3, 8, 8), 255, np.uint8), np.full((1, 1, 3, 8, 8), 255, np.uint8)
    blank = np.asarray(neighbour_page(samples, references, [[""]]))
    said = neighbour_page(samples, references, [["a/long/" * 30 + "0.png"]])
    other = neighbour_page(samples, references, [["a/long/" * 30 + "1.png"]])
    assert (blank != 255).any()  # the heads
    assert said.width < 600
    assert not np.array_equal(np.asarray(said), np.asarray(other))


def test_large_pictures_are_shrunk_to_fit_a_page():
    page = neighbour_page(_noise(2, 3, 512, 512), _noise(2, 5, 3, 512, 512), [["a"], ["b"]])
    assert page.width < 7 * LARGEST + 200
    assert page.height < 2 * LARGEST + 100


def test_labels_beyond_the_pictures_are_left_out():
    samples, references = _noise(2, 3, 8, 8), _noise(2, 1, 3, 8, 8)
    pages = [neighbour_page(samples, references, [["a"], ["b"], *more]) for more in ([], [["c"], ["d"]])]
    assert png_bytes(pages[0]) == png_bytes(pages[1])
    assert Image.open(io.BytesIO(png_bytes(pages[0]))).size == pages[0].size


@pytest.mark.parametrize(
    ("samples", "references", "labels"),
    [
        (_noise(0, 3, 8, 8), _noise(0, 1, 3, 8, 8), []),
        (_noise(2, 3, 8, 8), _noise(1, 1, 3, 8, 8), [["a"], ["b"]]),
        (_noise(2, 3, 8, 8), _noise(2, 1, 3, 8, 8), [["a"]]),
    ],
)
def test_what_does_not_belong_together_is_refused(samples, references, labels):
    with pytest.raises(ValueError, match="as many lists"):
        neighbour_page(samples, references, labels)
