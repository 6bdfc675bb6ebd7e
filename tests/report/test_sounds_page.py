"""The page of sounds: what a parser finds in it plays as the sound that went in."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from genbench.prob import mu_law
from genbench.report.sounds import spectrograms
from genbench.report.sounds_page import Sounds, sounds_page

CODES = mu_law.encode(0.5 * np.sin(np.arange(1, 4)[:, None] * np.arange(800) / 9.0))


class Found(HTMLParser):
    """Sources of players and pictures, and headings."""

    def __init__(self, page):
        super().__init__()
        self.sources, self.headings, self.open = {"audio": [], "img": []}, [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag in self.sources:
            kind, _, content = dict(attrs)["src"].partition(";base64,")
            self.sources[tag].append((kind, base64.b64decode(content, validate=True)))
        self.open.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2" and data.strip():
            self.headings.append(data)


def test_every_player_holds_a_wav_file_of_its_sound_and_every_picture_its_spectrogram():
    found = Found(sounds_page({"one": Sounds(CODES, 256, 8000)}, title="t", columns=8))
    assert [kind for kind, _ in found.sources["audio"]] == ["data:audio/wav"] * 3
    for (_, content), codes in zip(found.sources["audio"], CODES, strict=True):
        rate, heard = wavfile.read(io.BytesIO(content))
        assert rate == 8000
        np.testing.assert_array_equal(mu_law.encode(heard / (2**15 - 1)), codes)
    for (kind, content), picture in zip(found.sources["img"], spectrograms(CODES, levels=256), strict=True):
        assert kind == "data:image/png"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), picture[0])


def test_models_keep_their_order_and_no_more_than_the_columns_are_there():
    rows = {name: Sounds(CODES, 256, 8000) for name in ("b", "a", "<script>")}
    page = sounds_page(rows, title="a & b", columns=2)
    found = Found(page)
    assert found.headings == ["b", "a", "<script>"]
    assert len(found.sources["audio"]) == 6
    assert "<script>" not in page
    assert "<title>a &amp; b</title>" in page
    assert "over 0.1 s" in page


def test_remarks_stand_below_the_legend_as_they_are_written():
    page = sounds_page({"a": Sounds(CODES, 256, 8000)}, title="t", columns=1, remarks=["left out `<b>`", "and more"])
    assert "</p>\n<p>left out `&lt;b&gt;`</p>\n<p>and more</p>\n<section>" in page


def test_a_page_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one model"):
        sounds_page({}, title="t", columns=8)
    with pytest.raises(ValueError, match="one column"):
        sounds_page({"a": Sounds(CODES, 256, 8000)}, title="t", columns=0)
