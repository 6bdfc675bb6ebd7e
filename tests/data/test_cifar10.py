"""CIFAR-10 in both layouts, and the refusal to open pickles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import DataError
from genbench.data.cifar10 import CIFAR10, CLASSES


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    return tmp_path / "cifar10"


def _records(seed: int) -> np.ndarray:
    records = np.random.default_rng(seed).integers(0, 256, (10_000, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    return records


def _write_binary(root, records: np.ndarray) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").write_bytes(records.tobytes())


def test_a_binary_record_is_a_label_and_three_planes(root):
    records = _records(0)
    _write_binary(root, records)
    batch = CIFAR10().load("test", [17])
    assert batch.y.tolist() == [records[17, 0]]
    assert batch.x[0, 1, 5, 7] == records[17, 1 + 1024 + 5 * 32 + 7]
    assert CIFAR10().size("test") == 10_000


def test_smaller_images_are_rounded_averages(root):
    _write_binary(root, _records(1))
    native = CIFAR10().load("test", range(20)).x.double()
    expected = (torch.nn.functional.avg_pool2d(native, 4) + 0.5).floor().to(torch.uint8)
    assert torch.equal(CIFAR10(8).load("test", range(20)).x, expected)


def test_a_truncated_binary_file_is_named_with_bytes_found_and_expected(root):
    _write_binary(root, _records(2)[:9_999])
    with pytest.raises(DataError, match=r"test_batch.bin: found 30726927 bytes, expected 30730000"):
        CIFAR10().load("test", [0])


def test_a_binary_file_that_is_missing_is_named(root):
    _write_binary(root, _records(3))
    with pytest.raises(DataError, match=r"data_batch_1.bin") as caught:
        CIFAR10().load("train", [0])
    assert "cifar-10-binary.tar.gz" in caught.value.hint


def test_the_pickled_version_is_not_opened(root):
    (root / "cifar-10-batches-py").mkdir(parents=True)
    (root / "cifar-10-batches-py/data_batch_1").write_bytes(b"cos\nabort\n(tR.")  # ends the process if opened
    with pytest.raises(DataError, match=r"looked for .*cifar-10-batches-bin") as caught:
        CIFAR10().load("train", [0])
    assert "not read: they can run code" in caught.value.hint


def _write_folder(root, colour_of) -> None:
    for split in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (32, 32), colour_of(split, label, number)).save(root / split / name / f"{number}.png")


def test_folders_of_classes_are_read_in_the_published_order_of_classes(root):
    _write_folder(root, lambda split, label, number: (label, number, 5 if split == "test" else 6))
    batch = CIFAR10().load("test", range(20))
    assert batch.x[:, :, 0, 0].tolist() == [[label, number, 5] for label in range(10) for number in range(2)]
    assert batch.y.tolist() == [label for label in range(10) for _ in range(2)]


def test_a_class_without_images_is_named(root):
    _write_folder(root, lambda split, label, number: (label, number, 0))
    for path in (root / "train/frog").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="frog: no images, expected those of class `frog`"):
        CIFAR10().load("train", [0])
