"""Arrays in `.npy` files: rows, rounding, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from genbench.core.errors import DataError
from genbench.data._arrays import StoredImages
from genbench.data.npy import Npy

RGB = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)


def _saved(tmp_path, array, **settings) -> Npy:
    np.save(tmp_path / "a.npy", array)
    return Npy(str(tmp_path / "a.npy"), **settings)


def test_the_file_is_mapped_and_not_read(tmp_path):
    data = _saved(tmp_path, RGB)
    assert isinstance(data.content().images.array, np.memmap)
    assert data.content().images is data.content().images


def test_whole_numbers_0_to_255_need_no_look_at_the_whole_file():
    class Watched(np.ndarray):
        def min(self, *args, **settings):
            raise AssertionError("the whole file was looked at")

    StoredImages(RGB.view(Watched), "a").rows(np.array([3]))


def test_a_whole_file_is_looked_at_once_however_often_it_is_loaded(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr("genbench.data._arrays.check_range", lambda *given: looks.append(given))
    data = _saved(tmp_path, RGB / 127.5 - 1.0, value_range="signed")
    for row in range(5):
        data.load("train", [row])
    assert len(looks) == 1


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_every_level_survives_the_way_there_and_back_in_every_float(kind, tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    unit = _saved(tmp_path, (levels / 255.0).astype(kind), value_range="unit")
    assert np.array_equal(unit.load("train", [0]).x[0].numpy(), levels)
    (tmp_path / "b").mkdir()
    signed = _saved(tmp_path / "b", (levels / 127.5 - 1.0).astype(kind), value_range="signed")
    assert np.array_equal(signed.load("train", [0]).x[0].numpy(), levels)


def test_floats_are_rounded_to_the_nearest_level_and_not_cut(tmp_path):
    values = np.array([[[0.0, 0.4, 0.6, 254.6]]]) / 255.0
    assert _saved(tmp_path, values, value_range="unit").load("train", [0]).x.tolist() == [[[[0, 0, 1, 255]]]]


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (RGB / 255.0, "`{path}[value_range=unit]`"),
        (RGB / 127.5 - 1.0, "`{path}[value_range=signed]`"),
        (RGB * 0.99, "np.round"),
        (RGB / 100.0 - 1.0, "clip them"),
    ],
)
def test_floats_without_a_meaning_are_refused_with_their_range_and_the_setting_that_fits(array, advice, tmp_path):
    with pytest.raises(DataError, match=rf"holds floats {array.min():.4g} \.\. {array.max():.4g}") as caught:
        _saved(tmp_path, array).load("train", [0])
    assert advice.format(path=tmp_path / "a.npy") in caught.value.hint


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_whole_numbers_stored_as_floats_are_called_so_and_the_advice_mends_them(kind, tmp_path):
    with pytest.raises(DataError, match=rf"whole numbers 0 \.\. 255 stored as floats \({np.dtype(kind)}\)") as caught:
        _saved(tmp_path, RGB.astype(kind)).load("train", [0])
    assert "x.astype(np.uint8)" in caught.value.hint
    mended = _saved(tmp_path, RGB.astype(kind).astype(np.uint8)).load("train", range(40)).x
    assert np.array_equal(mended.numpy(), RGB.transpose(0, 3, 1, 2))


def test_floats_that_are_only_0_and_1_may_be_pictures_in_0_to_1(tmp_path):
    with pytest.raises(DataError, match=r"holds floats 0 \.\. 1") as caught:
        _saved(tmp_path, (RGB > 99).astype(np.float32)).load("train", [0])
    assert "[value_range=unit]`" in caught.value.hint


def test_a_value_out_of_range_in_a_row_that_is_not_asked_for_is_found(tmp_path):
    array = RGB / 255.0
    array[-1, 0, 0, 0] = 1.5
    with pytest.raises(DataError, match=r"holds 0 \.\. 1\.5, expected 0 \.\. 1"):
        _saved(tmp_path, array, value_range="unit").load("train", [0])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (RGB.astype(np.uint16) * 257, r"holds 0 \.\. 65535, expected 0 \.\. 255"),
        (RGB.astype(np.int16) - 1, r"holds -1 \.\. 254"),
        (RGB > 99, "is bool"),
        (RGB.astype(complex), "is complex128"),
        (np.zeros((5, 0, 4, 3)), "no images"),
        (np.zeros((0, 4, 4, 3)), "no images"),
        (np.float32(3.0), "no images"),
        (np.zeros((2, 3, 8, 3), np.uint8), "ambiguous"),
        (np.zeros((2, 8, 8, 4), np.uint8), "no images"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, said, tmp_path):
    with pytest.raises(DataError, match=said):
        _saved(tmp_path, array).load("train", [0])


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY\x01\x00", b"cos\nsystem\n(S'id'\ntR."])
def test_what_is_no_array_is_refused_and_never_unpickled(content, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read") as caught:
        _ = Npy(str(tmp_path / "a.npy")).spec
    assert "not opened" in caught.value.hint


def test_a_file_that_was_cut_and_one_that_is_an_archive_are_refused(tmp_path):
    path = tmp_path / "a.npy"
    _saved(tmp_path, RGB)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        _ = Npy(str(path)).spec
    with path.open("wb") as file:
        np.savez(file, RGB)
    with pytest.raises(DataError, match="an archive of arrays"):
        _ = Npy(str(path)).spec


def test_a_file_that_is_written_again_is_read_again(tmp_path):
    before = _saved(tmp_path, RGB).fingerprint()
    after = _saved(tmp_path, RGB[:30])
    assert after.size("train") == 30
    assert after.fingerprint() != before


def test_the_meaning_of_values_is_part_of_the_fingerprint(tmp_path):
    array = RGB / 127.5 - 1.0
    array[array < 0] = 0.0
    array[0, 0, 0, 0] = -0.0005
    found = {_saved(tmp_path, array, value_range=meaning).fingerprint() for meaning in ("unit", "signed")}
    assert len(found) == 2


def test_names_are_rows(tmp_path):
    assert _saved(tmp_path, RGB).identify("train", [3, 39]) == ["00000003", "00000039"]
    with pytest.raises(IndexError, match="index 40 is out of range"):
        Npy(str(tmp_path / "a.npy")).identify("train", [40])
