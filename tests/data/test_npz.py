"""Archives of arrays: layouts, labels, splits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError
from genbench.core.spec import parse_ref
from genbench.data.npz import Npz

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (50, 5, 6), dtype=np.uint8)
RGB = RNG.integers(0, 256, (50, 5, 6, 3), dtype=np.uint8)


def _saved(tmp_path, **arrays) -> Npz:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return Npz(str(path))


def _all(data: Npz, split: str) -> np.ndarray:
    return data.load(split, range(data.size(split))).x.numpy()


@pytest.mark.parametrize("name", ["images", "x", "arr_0"])
@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (RGB, RGB.transpose(0, 3, 1, 2)),
        (RGB.transpose(0, 3, 1, 2), RGB.transpose(0, 3, 1, 2)),
    ],
    ids=["NHW", "NHW1", "NHWC", "NCHW"],
)
def test_a_single_array_of_any_layout_is_divided_without_loss(name, array, expected, tmp_path):
    data = _saved(tmp_path, **{name: array})
    found = np.concatenate([_all(data, "train"), _all(data, "test")])
    assert data.spec.shape == expected.shape[1:]
    assert sorted(row.tobytes() for row in found) == sorted(row.tobytes() for row in expected)
    assert 1 <= data.size("test") <= 12


def test_labels_follow_their_images(tmp_path):
    marked = GREY.copy()
    marked[:, 0, 0] = np.arange(50) % 7
    data = _saved(tmp_path, images=marked, labels=np.arange(50) % 7)
    assert data.spec.num_classes == 7
    for split in ("train", "test"):
        batch = data.load(split, range(data.size(split)))
        assert batch.x[:, 0, 0, 0].tolist() == batch.y.tolist()


@pytest.mark.parametrize(
    "names", [("train", "test", "train_labels", "test_labels"), ("x_train", "x_test", "y_train", "y_test")]
)
def test_named_splits_are_respected(names, tmp_path):
    arrays = dict(zip(names, (GREY[:40], GREY[40:], np.arange(40) % 3, np.arange(10) % 3), strict=True))
    data = _saved(tmp_path, **arrays)
    assert np.array_equal(_all(data, "train")[:, 0], GREY[:40])
    assert np.array_equal(_all(data, "test")[:, 0], GREY[40:])
    assert data.load("test", [4]).y.tolist() == [1]


def test_whole_numbers_of_other_types_are_accepted_in_range(tmp_path):
    data = _saved(tmp_path, images=GREY.astype(np.int64))
    assert _all(data, "train").dtype == np.uint8


def test_levels_bound_the_values(tmp_path):
    data = _saved(tmp_path, images=GREY % 2)
    binary = build_dataset(parse_ref(f"npz:{data.path}[levels=2]"))
    assert binary.spec.levels == 2
    assert binary.load("train", range(5)).x.max() == 1
    _saved(tmp_path, images=GREY % 3)
    with pytest.raises(DataError, match=r"`images` holds 0 .. 2, expected 0 .. 1"):
        binary.load("train", [0])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (GREY / 255.0, "holds floats 0 .. 1, expected whole numbers 0 .. 255"),
        (GREY.astype(np.int16) - 1, "holds -1 .. 25"),
        (GREY.astype(np.int32) + 1, "holds 1 .. 256, expected 0 .. 255"),
        (GREY.reshape(50, 30), "no images"),
        (np.zeros((4, 5, 6, 2), dtype=np.uint8), "no images"),
        (np.zeros((4, 3, 6, 3), dtype=np.uint8), "ambiguous"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, said, tmp_path):
    with pytest.raises(DataError, match=said):
        _saved(tmp_path, images=array).load("train", [0])


def test_pickled_objects_are_never_opened(tmp_path):
    data = _saved(tmp_path, images=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match=r"data.npz: cannot be read: Object arrays cannot be loaded") as caught:
        data.load("train", [0])
    assert "pickled objects can run code" in caught.value.hint


@pytest.mark.parametrize("damage", ["cut", "text", "pickle", "empty"])
def test_a_damaged_file_is_named(damage, tmp_path):
    data = _saved(tmp_path, images=GREY)
    path = tmp_path / "data.npz"
    content = {"cut": path.read_bytes()[:-30], "text": b"hello", "pickle": b"cos\nabort\n(tR.", "empty": b""}[damage]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"data.npz: cannot be read"):
        data.load("train", [0])


def test_flipped_bytes_are_found_by_the_checksum(tmp_path):
    data = _saved(tmp_path, images=GREY)
    path = tmp_path / "data.npz"
    content = bytearray(path.read_bytes())
    content[700] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"data.npz: cannot be read: Bad CRC-32"):
        data.load("train", [0])


def test_a_single_npy_array_is_refused(tmp_path):
    with (tmp_path / "data.npz").open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="a single array, expected an archive"):
        Npz(str(tmp_path / "data.npz")).load("train", [0])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": GREY}, "holds pictures, expected `train` and `test`, or `images`"),
        ({"images": GREY, "labels": np.arange(49)}, "49 labels for 50 images"),
        ({"images": GREY, "labels": np.arange(50) / 2}, "`labels` is float64 of shape"),
        ({"train": GREY, "test": GREY[:, :4]}, r"differ in shape: \(1, 5, 6\) and \(1, 4, 6\)"),
        ({"train": GREY, "test": GREY, "train_labels": np.arange(50)}, "0 labels for 50 images of test"),
    ],
)
def test_archives_that_do_not_fit_together_are_refused(arrays, said, tmp_path):
    with pytest.raises(DataError, match=said):
        _saved(tmp_path, **arrays).load("train", [0])


def test_a_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=f"there is no file {tmp_path}/no.npz"):
        Npz(str(tmp_path / "no.npz")).load("train", [0])


def test_the_fingerprint_follows_the_content(tmp_path):
    one = _saved(tmp_path, images=GREY).fingerprint()
    (tmp_path / "b").mkdir()
    assert _saved(tmp_path / "b", images=GREY).fingerprint() == one
    (tmp_path / "c").mkdir()
    assert _saved(tmp_path / "c", images=GREY[::-1]).fingerprint() != one


@pytest.mark.parametrize(("meaning", "scale", "shift"), [("unit", 255.0, 0.0), ("signed", 127.5, -1.0)])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_level_once_their_meaning_is_said(kind, meaning, scale, shift, tmp_path):
    path = _saved(tmp_path, images=(RGB / scale + shift).astype(kind)).path
    with pytest.raises(DataError, match="holds floats") as caught:
        Npz(path).load("train", [0])
    assert f"`{path}[value_range={meaning}]`" in caught.value.hint
    data = Npz(path, value_range=meaning)
    found = np.concatenate([_all(data, split) for split in ("train", "test")])
    assert sorted(row.tobytes() for row in found) == sorted(row.tobytes() for row in RGB.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("array", "meaning", "said"),
    [
        (GREY / 255.0, "signed", "no value below 0"),
        (GREY / 127.5 - 1.0, "unit", "expected 0 .. 1"),
        (np.where(GREY == 7, np.nan, GREY / 255.0), "unit", "NaN"),
        (np.where(GREY == 7, np.inf, GREY / 255.0), "unit", "infinity"),
    ],
)
def test_floats_in_the_wrong_range_are_refused(array, meaning, said, tmp_path):
    path = _saved(tmp_path, images=array).path
    with pytest.raises(DataError, match=said):
        Npz(path, value_range=meaning).load("train", [0])


def test_levels_and_floats_exclude_each_other():
    with pytest.raises(ValueError, match="gives 256 levels"):
        Npz("a.npz", levels=2, value_range="unit")


def test_adms_layout_is_read_with_its_labels_and_beside_its_moments(tmp_path):
    labels = np.arange(50) % 5
    data = _saved(tmp_path, arr_0=RGB, arr_1=labels, mu=np.zeros(4), sigma=np.eye(4))
    assert data.spec.shape == (3, 5, 6)
    assert data.spec.num_classes == 5
    places = [int(name) for split in ("train", "test") for name in data.identify(split, range(data.size(split)))]
    found = np.concatenate([_all(data, split) for split in ("train", "test")])
    assert sorted(places) == list(range(50))
    assert np.array_equal(found, RGB[places].transpose(0, 3, 1, 2))


def test_a_statistics_file_is_called_one(tmp_path):
    with pytest.raises(DataError, match="moments of features and no images") as caught:
        _saved(tmp_path, mu=np.zeros(4), sigma=np.eye(4)).load("train", [0])
    assert "statistics file" in caught.value.hint


@pytest.mark.parametrize("array", [RGB, np.asfortranarray(RGB), RGB.astype(">i4"), RGB[::-1]])
def test_stored_and_compressed_files_give_the_same_pictures_and_digests(array, tmp_path):
    np.savez(tmp_path / "a.npz", images=array)
    np.savez_compressed(tmp_path / "b.npz", images=array)
    stored, packed = (Npz(str(tmp_path / name)) for name in ("a.npz", "b.npz"))
    assert np.array_equal(_all(stored, "train"), _all(packed, "train"))
    assert stored.fingerprint() == packed.fingerprint()


def test_rows_of_a_stored_file_are_the_callers_own(tmp_path):
    data = _saved(tmp_path, images=RGB)
    data.load("train", [0]).x.zero_()
    assert _all(data, "train")[0].any()


def test_an_array_that_claims_more_than_its_member_holds_is_refused(tmp_path):
    data = _saved(tmp_path, images=GREY, other=RGB)
    path = tmp_path / "data.npz"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(50, 5, 6)", b"(90, 5, 6)", 1))
    with pytest.raises(DataError, match="cannot be read"):
        data.load("train", [0])
