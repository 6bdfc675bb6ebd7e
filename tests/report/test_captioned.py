import numpy as np
import pytest
from PIL import ImageFont

from genbench.report.captioned import LEAST_SIDE, MOST_SIDE, Captioned, _wrapped, captioned_page, prompted_rows

FONT = ImageFont.load_default(size=12)
RED = np.zeros((1, 3, 8, 8), dtype=np.uint8)
RED[:, 0] = 200


def _part(count, **changes):
    given = {"images": RED.repeat(count, 0), "remarks": ["0.5"] * count, "captions": ["a red square"] * count}
    return Captioned(**{**given, **changes})


def _ink(pixels):
    """Rows in which something darker than paper and greyer than a picture stands."""
    grey = (pixels.max(2).astype(int) - pixels.min(2)) < 10
    return (grey & (pixels.max(2) < 160)).any(1)


def test_words_stand_below_their_picture():
    pixels = np.asarray(captioned_page({"best": _part(1)}))
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 50)
    rows = np.flatnonzero(red.any(1))
    assert red.sum() == LEAST_SIDE**2
    below = _ink(pixels[rows[-1] + 1 :])
    assert below.any()
    assert _ink(pixels[: rows[0]]).any()  # the heading


def test_pictures_fill_lines_of_so_many_columns():
    one, two = (captioned_page({"all": _part(count)}, columns=3) for count in (3, 4))
    assert two.width == one.width
    assert two.height > one.height + LEAST_SIDE


def test_large_pictures_are_shrunk_and_grey_ones_shown():
    large = np.zeros((1, 1, 512, 512), dtype=np.uint8)
    page = captioned_page({"all": _part(1, images=large)})
    assert MOST_SIDE < page.width < MOST_SIDE + 100


def test_text_is_wrapped_within_its_width_and_nothing_is_lost():
    text = "a small red circle at the top left on a black background, extraordinarilyunbreakable" + "x" * 9
    lines = _wrapped(text, FONT, 100.0)
    assert all(FONT.getlength(line) <= 100.0 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    long = _wrapped("word " * 100, FONT, 60.0)
    assert len(long) == 8
    assert long[-1].endswith("...")
    assert FONT.getlength(long[-1]) <= 60.0
    assert _wrapped("", FONT, 50.0) == [""]


def test_rows_share_the_words_below_their_columns():
    rows = {"one[a=1,b=2]": RED.repeat(3, 0), "two": RED.repeat(3, 0)}
    page = prompted_rows(rows, ["red", "a red square", "red"], ["", "never shown:", ""])
    pixels = np.asarray(page)
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 50)
    assert red.sum() == 6 * LEAST_SIDE**2
    assert _ink(pixels[np.flatnonzero(red.any(1))[-1] + 1 :]).any()


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(ValueError, match="one remark and one caption"):
        captioned_page({"all": _part(2, captions=["one"])})
    with pytest.raises(ValueError, match="a picture in each section"):
        captioned_page({"all": _part(0)})
    with pytest.raises(ValueError, match="one picture"):
        prompted_rows({"one": RED}, ["a", "b"], ["", ""])
