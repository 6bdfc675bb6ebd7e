"""Zip files: what only they can have wrong."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from genbench.core.errors import DataError
from genbench.data import _archive
from genbench.data import zip as zip_files
from genbench.data.zip import Zip

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def _png(picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


MEMBERS = {f"{index}.png": _png(picture) for index, picture in enumerate(PICTURES)}


def _zip(path, members=MEMBERS, compression=zipfile.ZIP_STORED, **settings) -> Zip:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return Zip(str(path), **settings)


def _labelled(path, labels) -> Zip:
    return _zip(path, MEMBERS | {"dataset.json": json.dumps({"labels": labels})})


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_members_are_read_as_zipfile_reads_them(compression, tmp_path):
    data = _zip(tmp_path / "a.zip", compression=compression)
    np.testing.assert_array_equal(data.load("train", range(6)).x.permute(0, 2, 3, 1), PICTURES)


def test_a_zip_file_behind_other_bytes_is_read(tmp_path):
    path = tmp_path / "a.zip"
    _zip(path)
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    assert Zip(str(path)).load("train", range(6)).x.sum() == PICTURES.sum()


def test_flipped_bytes_are_found_by_the_checksum_and_left_out_when_asked(tmp_path):
    path = tmp_path / "a.zip"
    _zip(path)
    content = bytearray(path.read_bytes())
    content[content.find(MEMBERS["2.png"]) + 60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"2\.png: cannot be unpacked: the checksum does not match"):
        _ = Zip(str(path)).spec
    patient = Zip(str(path), skip_bad=True)
    assert patient.size("train") == 5
    assert "checksum" in patient.skipped()[0]


def test_a_member_that_would_unpack_to_too_much_is_refused_unopened(tmp_path, monkeypatch):
    monkeypatch.setattr(zip_files, "MAX_BYTES", 10_000)
    bomb = MEMBERS | {"bomb.png": MEMBERS["0.png"] + bytes(100_000)}
    data = _zip(tmp_path / "a.zip", bomb, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"bomb\.png: .*unpacks to 100\d\d\d bytes, expected at most 10000"):
        _ = data.spec
    assert Zip(data.path, skip_bad=True).size("train") == 6
    assert _archive.MAX_BYTES == 256 * 2**20


def test_a_member_that_lies_about_its_size_is_refused_after_that_size(tmp_path):
    path = tmp_path / "a.zip"
    _zip(path, {"a.png": bytes(1_000_000)}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace((1_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(content)
    with pytest.raises(DataError, match="does not unpack to the 100 bytes"):
        _ = Zip(str(path)).spec


def test_encrypted_and_strangely_packed_members_are_refused(tmp_path):
    strange = _zip(tmp_path / "a.zip", compression=zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match="compression method 14, expected stored or deflated"):
        _ = strange.spec
    path = tmp_path / "b.zip"
    _zip(path)
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="it is encrypted"):
        _ = Zip(str(path)).spec


def test_two_members_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", MEMBERS["0.png"])
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", MEMBERS["1.png"])
    with pytest.raises(DataError, match=r"two members `a\.png`"):
        _ = Zip(str(path)).spec


def test_the_directory_is_read_once_for_many_loads(tmp_path, monkeypatch):
    data, opened = _zip(tmp_path / "a.zip"), []
    real = zipfile.ZipFile.__init__
    monkeypatch.setattr(zipfile.ZipFile, "__init__", lambda self, *a, **k: (opened.append(a), real(self, *a, **k))[1])
    for row in range(6):
        data.load("train", [row])
    assert len(opened) == 1


def test_labels_of_edm_that_are_null_are_none(tmp_path):
    data = _zip(tmp_path / "a.zip", MEMBERS | {"dataset.json": json.dumps({"labels": None})})
    assert data.load("train", [0]).y is None
    assert data.spec.num_classes == 0


def test_labels_of_bad_members_are_left_out_with_them(tmp_path):
    rows = [[name, index] for index, name in enumerate(MEMBERS)]
    members = MEMBERS | {"1.png": b"x", "dataset.json": json.dumps({"labels": rows})}
    assert _zip(tmp_path / "a.zip", members, skip_bad=True).load("train", range(5)).y.tolist() == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "described",
    [
        b"[1]",
        b"no json",
        b"{}",
        b'{"labels": 3}',
        b'{"labels": [["0.png"]]}',
        b'{"labels": [["0.png", 1]]}',
        b"[" * 100_000,
    ],
)
def test_labels_that_cannot_be_read_are_refused(described, tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: ") as caught:
        _ = _zip(tmp_path / "a.zip", MEMBERS | {"dataset.json": described}).spec
    assert "labels" in caught.value.hint


@pytest.mark.parametrize("label", [1.5, -1, "cat", [0, 1], True, None])
def test_labels_that_are_no_whole_numbers_are_refused_rather_than_cut(label, tmp_path):
    with pytest.raises(DataError, match=r"is no class|could not convert"):
        _ = _labelled(tmp_path / "a.zip", [[name, label] for name in MEMBERS]).spec
