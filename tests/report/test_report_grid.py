import numpy as np
import pytest
from PIL import Image

from genbench.report.grid import LEGIBLE, comparison_grid, sample_grid, save_png, sectioned_grid


def noise(n, channels=3, side=8, levels=256, seed=0):
    return np.random.default_rng(seed).integers(0, levels, (n, channels, side, side), dtype=np.uint8)


def test_every_pixel_of_a_tile_is_the_pixel_of_its_image():
    images = noise(7)
    grid = np.asarray(sample_grid(images, columns=3, scale=4))
    assert grid.shape == (3 * 32 + 2 * 2, 3 * 32 + 2 * 2, 3)
    for index in range(7):
        row, column = divmod(index, 3)
        tile = grid[row * 34 : row * 34 + 32, column * 34 : column * 34 + 32]
        for y in range(4):
            for x in range(4):
                np.testing.assert_array_equal(tile[y::4, x::4], images[index].transpose(1, 2, 0))


def test_what_no_image_covers_is_white():
    grid = np.asarray(sample_grid(noise(4), columns=3, scale=1))
    assert (grid[10:, 10:] == 255).all()
    assert (grid[8:10] == 255).all()


def test_grey_levels_are_stretched_to_the_whole_range():
    images = np.arange(17, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 8, 8), dtype=np.uint8)
    grid = np.asarray(sample_grid(images, columns=17, scale=1, levels=17))
    shown = [int(grid[0, 10 * k, 0]) for k in range(17)]
    assert shown == [round(k * 255 / 16) for k in range(17)]
    assert (grid[..., 0] == grid[..., 2]).all()


@pytest.mark.parametrize(("side", "factor"), [(8, 8), (16, 4), (28, 2), (64, 1), (256, 1)])
def test_small_images_are_enlarged_by_a_whole_factor(side, factor):
    assert factor == max(1, LEGIBLE // side)
    assert sample_grid(noise(1, side=side), columns=1).size == (side * factor, side * factor)


def test_no_images_make_an_empty_strip():
    assert sample_grid(noise(0), columns=2, scale=1).size == (18, 1)


@pytest.mark.parametrize(
    ("images", "how"),
    [
        (noise(2).astype(np.float32), {}),
        (noise(2)[0], {}),
        (noise(2, channels=2), {}),
        (noise(2), {"levels": 17}),
        (noise(2), {"scale": 0}),
        (noise(2), {"columns": 0}),
        (noise(2), {"levels": 1}),
    ],
)
def test_images_that_are_not_pictures_are_refused(images, how):
    with pytest.raises(ValueError, match=r"expected|at least"):
        sample_grid(images, **{"columns": 2, **how})


def test_a_comparison_shows_the_same_samples_side_by_side():
    a, b = noise(5, seed=1), noise(2, seed=2)
    page = comparison_grid({"vae": a, "ddpm": b}, columns=4, scale=8)
    pixels = np.asarray(page)
    strip_a = np.asarray(sample_grid(a[:4], columns=4, scale=8))
    strip_b = np.asarray(sample_grid(b, columns=4, scale=8))
    left = page.width - 8 - strip_a.shape[1]
    np.testing.assert_array_equal(pixels[8:72, left : left + strip_a.shape[1]], strip_a)
    np.testing.assert_array_equal(pixels[74:138, left : left + strip_b.shape[1]], strip_b)
    assert (pixels[8:72, :left] < 128).any()  # the label is there


def test_rows_of_another_size_keep_their_place():
    page = comparison_grid({"small": noise(3), "grey": noise(3, channels=1, side=28)}, columns=3)
    assert page.height == 8 + 64 + 2 + 56 + 8


def test_a_long_label_is_cut_and_the_page_stays_narrow():
    page = comparison_grid({"x" * 500 + "\nline": noise(1)}, columns=1)
    assert page.width < 400


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        comparison_grid({})


def test_a_saved_grid_reads_back_and_leaves_no_partial_file(tmp_path):
    grid = sample_grid(noise(6), columns=3)
    save_png(grid, tmp_path / "deep" / "grid.png")
    with Image.open(tmp_path / "deep" / "grid.png") as read:
        np.testing.assert_array_equal(np.asarray(read), np.asarray(grid))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["grid.png"]


def test_a_page_of_sections_has_every_row_of_every_model_in_line():
    a, b, c = noise(3, seed=1), noise(3, seed=2), noise(2, seed=3)
    page = np.asarray(sectioned_grid({"vae": {"one": a, "two": b}, "other": {"a longer label": c}}))
    strips = [np.asarray(sample_grid(images, columns=3)) for images in (a, b, c)]
    left = page.shape[1] - 8 - strips[0].shape[1]
    tops = [8 + 20, 8 + 20 + 64 + 2, 8 + 20 + 64 + 2 + 64 + 8 + 20]
    for strip, top in zip(strips, tops, strict=True):
        np.testing.assert_array_equal(page[top : top + 64, left : left + strip.shape[1]], strip)
    assert page.shape[0] == tops[-1] + 64 + 8
    for top in tops:
        assert (page[top : top + 64, :left] < 128).any()  # a label
    assert (page[8:28, :left] < 128).any()  # the first model's name
    assert (page[tops[1] + 64 + 8 : tops[2], :left] < 128).any()  # the second's


def test_words_stand_above_their_columns_and_a_caption_above_all():
    rows = {"vae": {"one": noise(3, seed=1)}}
    plain = np.asarray(sectioned_grid(rows))
    headed = np.asarray(sectioned_grid(rows, heads=("-2", "", "+2"), caption="what is shown"))
    assert headed.shape == (plain.shape[0] + 2 * 20, plain.shape[1], 3)
    np.testing.assert_array_equal(headed[-72:], plain[-72:])
    left = plain.shape[1] - 8 - (3 * 66 - 2)
    band = headed[8 + 20 + 20 : -72, left:]
    inked = [(band[:, 66 * k : 66 * k + 64] < 128).any() for k in range(3)]
    assert inked == [True, False, True]
    assert (headed[:24] < 128).any()


def test_a_word_wider_than_its_column_and_a_caption_wider_than_the_page_are_cut():
    rows = {"vae": {"one": noise(1)}}
    wide = sectioned_grid(rows, heads=("far too long for a column",), caption="x" * 500)
    assert wide.width == sectioned_grid(rows).width
    assert wide.height == sectioned_grid(rows, caption="x").height


@pytest.mark.parametrize("sections", [{}, {"vae": {}}])
def test_a_page_without_rows_is_refused(sections):
    with pytest.raises(ValueError, match="at least one row"):
        sectioned_grid(sections)
