"""MNIST and Fashion-MNIST: the idx format, damaged files, missing files, and the real data where they are."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError, SettingError
from genbench.core.spec import parse_ref
from genbench.data._idx import read_idx, resized
from genbench.data.fashion_mnist import FashionMNIST
from genbench.data.mnist import MNIST


def _idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 4), dtype=np.uint8)


@pytest.mark.parametrize("name", ["plain-idx3-ubyte", "packed-idx3-ubyte.gz"])
def test_an_idx_file_is_read_plain_or_gzipped(name, images, tmp_path):
    path = tmp_path / name
    path.write_bytes(gzip.compress(_idx(images)) if name.endswith(".gz") else _idx(images))
    assert np.array_equal(read_idx(path, (5, 3, 4)), images)


def test_a_truncated_idx_file_is_named_with_bytes_found_and_expected(images, tmp_path):
    path = tmp_path / "cut-idx3-ubyte"
    path.write_bytes(_idx(images)[:-7])
    with pytest.raises(DataError, match=r"cut-idx3-ubyte: found 53 bytes after the header, expected 60"):
        read_idx(path, (5, 3, 4))


def test_an_idx_file_with_something_behind_it_is_refused(images, tmp_path):
    path = tmp_path / "long-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(_idx(images) + b"more"))
    with pytest.raises(DataError, match="found more bytes after the header, expected 60"):
        read_idx(path, (5, 3, 4))


@pytest.mark.parametrize("keep", [0, 3, 9])
def test_an_idx_file_cut_in_its_header_is_refused(keep, images, tmp_path):
    path = tmp_path / "head-idx3-ubyte"
    path.write_bytes(_idx(images)[:keep])
    with pytest.raises(DataError, match=r"head-idx3-ubyte: (starts with|found 9 bytes)"):
        read_idx(path, (5, 3, 4))


def test_labels_in_the_place_of_images_are_found_by_the_magic_number(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(_idx(np.zeros(60, dtype=np.uint8)))
    with pytest.raises(DataError, match="starts with 00 00 08 01, expected 00 00 08 03"):
        read_idx(path, (5, 3, 4))


def test_another_number_of_images_is_refused(images, tmp_path):
    path = tmp_path / "few"
    path.write_bytes(_idx(images[:4]))
    with pytest.raises(DataError, match=r"shape \(4, 3, 4\), expected \(5, 3, 4\)"):
        read_idx(path, (5, 3, 4))


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_gzip_is_named(damage, images, tmp_path):
    packed = bytearray(gzip.compress(_idx(images)))
    if damage == "flipped":
        packed[-6] ^= 0xFF  # in the checksum
    path = tmp_path / "bad.gz"
    path.write_bytes({"cut": bytes(packed[:-20]), "flipped": bytes(packed), "text": b"<html>"}[damage])
    with pytest.raises(DataError, match=r"bad.gz: cannot be read"):
        read_idx(path, (5, 3, 4))


def test_padding_to_32_leaves_the_image_in_the_middle():
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
    padded = resized(images, 32)
    assert np.array_equal(padded[:, :, 2:-2, 2:-2], images)
    assert int(padded.sum()) == int(images.sum())


@pytest.mark.parametrize("resolution", [8, 16])
def test_smaller_images_are_rounded_averages(resolution):
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), dtype=np.uint8)
    padded = torch.nn.functional.pad(torch.from_numpy(images).double(), (2, 2, 2, 2))
    expected = torch.nn.functional.avg_pool2d(padded, 32 // resolution)
    assert torch.equal(torch.from_numpy(resized(images, resolution)), (expected + 0.5).floor().to(torch.uint8))


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_missing_files_are_reported_with_place_source_and_variable(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    data = kind()
    with pytest.raises(DataError) as caught:
        data.load("train", [0])
    assert str(tmp_path / data.folders[0] / "train-images-idx3-ubyte") in caught.value.message
    assert "http" in caught.value.hint
    assert "GENBENCH_DATA" in caught.value.hint


def test_without_the_variables_data_are_looked_for_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("GENBENCH_DATA", raising=False)
    monkeypatch.delenv("GENBENCH_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / ".cache/genbench/data/mnist")):
        MNIST().load("test", [0])
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match=str(tmp_path / "elsewhere/data/mnist")):
        MNIST().load("test", [0])


def test_another_resolution_is_a_setting_error():
    with pytest.raises(SettingError, match="`resolution` is 64, expected one of 8, 16, 28, 32"):
        build_dataset(parse_ref("mnist[resolution=64]"))
    with pytest.raises(ValueError, match="resolution is 64, expected one of 8, 16, 28, 32"):
        MNIST(resolution=64)


def _written(root: Path, labels: np.ndarray) -> np.ndarray:
    """A complete Fashion-MNIST test split of noise."""
    raw = root / "fashion_mnist/FashionMNIST/raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(1).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
    (raw / "t10k-images-idx3-ubyte").write_bytes(_idx(images))
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(labels), compresslevel=1))
    return images


def test_images_and_labels_come_in_the_files_order(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    images = _written(tmp_path, np.arange(10_000, dtype=np.int64).astype(np.uint8) % 10)
    batch = FashionMNIST().load("test", [3, 9999, 3])
    assert np.array_equal(batch.x[:, 0].numpy(), images[[3, 9999, 3]])
    assert batch.y.dtype == torch.int64
    assert batch.x.shape == (3, 1, 28, 28)
    with pytest.raises(IndexError, match=r"index 10000 is out of range, expected 0 .. 9999"):
        FashionMNIST().load("test", [10_000])


def test_a_label_beyond_nine_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    _written(tmp_path, np.full(10_000, 11, dtype=np.uint8))
    with pytest.raises(DataError, match=r"found label 11, expected 0 .. 9"):
        FashionMNIST().load("test", [0])


@pytest.fixture
def real():
    root = os.environ.get("GENBENCH_DATA")
    if not root or not (Path(root) / "mnist/MNIST/raw").is_dir():
        pytest.skip("GENBENCH_DATA holds no mnist/MNIST/raw")
    return MNIST()


def test_the_real_test_images_are_the_published_file(real):
    batch = real.load("test", range(10_000))
    content = struct.pack(">IIII", 2051, 10_000, 28, 28) + batch.x.numpy().tobytes()
    digest = hashlib.md5(content).hexdigest()
    assert digest == "2646ac647ad5339dbf082846283269ea"  # of the unpacked t10k-images-idx3-ubyte
    assert torch.bincount(batch.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_the_real_training_labels_begin_with_those_everybody_knows(real):
    batch = real.load("train", range(60_000))
    assert batch.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert batch.x.double().mean().item() / 255 == pytest.approx(0.1307, abs=5e-5)  # the well-known mean
    assert batch.x.double().std().item() / 255 == pytest.approx(0.3081, abs=5e-5)


@pytest.fixture
def noise(tmp_path, monkeypatch):
    """MNIST's two splits, of noise."""
    raw = tmp_path / "mnist/MNIST/raw"
    raw.mkdir(parents=True)
    for prefix, size in (("train", 60_000), ("t10k", 10_000)):
        images = np.random.default_rng(size).integers(0, 256, (size, 28, 28), dtype=np.uint8)
        images[:, 0] = 0
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx((np.arange(size) % 10).astype(np.uint8)))
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))


@pytest.mark.usefixtures("noise")
def test_ink_is_drawn_with_the_probability_that_the_grey_names():
    data = MNIST(binarised="dynamic")
    assert data.spec.levels == 2
    grey = MNIST().load("train", [7]).x[0].double() / 255
    draws = data.load("train", [7 + 60_000 * epoch for epoch in range(400)]).x
    assert set(draws.unique().tolist()) <= {0, 1}
    error = (draws.double().mean(0) - grey).abs()
    assert error.max() < 4.5 * 0.5 / 400**0.5  # 784 pixels, each within 4.5 standard errors
    assert not draws[:, grey == 0].any()


@pytest.mark.usefixtures("noise")
def test_static_images_are_drawn_once_and_dynamic_ones_in_every_epoch():
    static, dynamic = MNIST(binarised="static"), MNIST(binarised="dynamic")
    assert (static.size("train"), static.size("test")) == (60_000, 10_000)
    assert (dynamic.size("train"), dynamic.size("test")) == (None, 10_000)
    assert torch.equal(static.load("train", [3, 5]).x, static.load("train", [5, 3]).x.flip(0))
    assert torch.equal(static.load("train", [3]).x, dynamic.load("train", [3]).x)
    first, second = dynamic.load("train", [3, 60_003]).x
    assert not torch.equal(first, second)
    assert torch.equal(static.load("test", range(4)).x, dynamic.load("test", range(4)).x)
    assert not torch.equal(static.load("test", [0]).x, static.load("train", [0]).x)
    assert dynamic.load("train", [60_003]).y == static.load("train", [3]).y
    assert len({MNIST().fingerprint(), static.fingerprint(), dynamic.fingerprint()}) == 3


def test_an_unknown_way_to_binarise_is_a_setting_error():
    with pytest.raises(SettingError, match="`binarised` is 'yes', expected one of 'no', 'static', 'dynamic'"):
        build_dataset(parse_ref("mnist[binarised=yes]"))
