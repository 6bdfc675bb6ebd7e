"""Webdataset tar files: examples, classes, captions, and what is refused."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from genbench.core.errors import DataError
from genbench.data import tar as tar_files
from genbench.data.tar import Tar

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
CAPTIONS = ["a red square", "a  blue\ncircle", "one", "a red circle on a square"]


def _png(picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


MEMBERS = {f"shard/{index}.png": _png(picture) for index, picture in enumerate(PICTURES)}


def _tar(path, members=MEMBERS, mode="w", **settings) -> Tar:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return Tar(str(path), **settings)


def _beside(suffix, contents):
    return {f"shard/{index}.{suffix}": content.encode() for index, content in enumerate(contents)}


def _captions(data):
    return [data.spec.caption(row) for row in data.load("train", range(data.size("train"))).text]


def test_captions_come_back_word_for_word(tmp_path):
    data = _tar(tmp_path / "a.tar", MEMBERS | _beside("txt", CAPTIONS))
    assert _captions(data) == [" ".join(caption.split()) for caption in CAPTIONS]
    assert data.load("train", [2]).text.tolist() == [[data.spec.vocabulary.index("one"), 0, 0, 0, 0, 0]]


def test_a_json_file_gives_class_and_caption_where_nothing_else_does(tmp_path):
    described = [json.dumps({"label": 3 - index, "caption": text, "x": 1}) for index, text in enumerate(CAPTIONS)]
    data = _tar(tmp_path / "a.tar", MEMBERS | _beside("json", described))
    assert data.load("train", range(4)).y.tolist() == [3, 2, 1, 0]
    assert _captions(data)[0] == CAPTIONS[0]
    over = _tar(tmp_path / "b.tar", MEMBERS | _beside("json", described) | _beside("cls", "0123"))
    assert over.load("train", range(4)).y.tolist() == [0, 1, 2, 3]


def test_a_json_file_without_class_or_caption_says_nothing(tmp_path):
    batch = _tar(tmp_path / "a.tar", MEMBERS | _beside("json", ['{"label": "cat"}'] * 4)).load("train", [0])
    assert batch.y is None
    assert batch.text is None


@pytest.mark.parametrize(("suffix", "what"), [("cls", "class"), ("txt", "caption")])
def test_what_stands_beside_some_images_only_is_refused(suffix, what, tmp_path):
    data = _tar(tmp_path / "a.tar", MEMBERS | _beside(suffix, "12"))
    with pytest.raises(DataError, match=f"2 of 4 images have a {what}, `shard/2.png` has none"):
        _ = data.spec


@pytest.mark.parametrize("content", ["cat", "1.5", "-1", ""])
def test_a_class_that_is_no_whole_number_is_refused(content, tmp_path):
    with pytest.raises(DataError, match="a class is no whole number"):
        _ = _tar(tmp_path / "a.tar", MEMBERS | _beside("cls", [content] * 4)).spec


def test_broken_json_and_broken_text_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"shard/0\.json: no JSON"):
        _ = _tar(tmp_path / "a.tar", MEMBERS | _beside("json", ["{", "{}", "{}", "{}"])).spec
    with pytest.raises(DataError, match="no text in UTF-8"):
        _ = _tar(tmp_path / "b.tar", MEMBERS | {f"shard/{index}.txt": b"\xff\xfe" for index in range(4)}).spec


def test_two_images_of_one_example_are_refused(tmp_path):
    with pytest.raises(DataError, match="are two images of one example"):
        _ = _tar(tmp_path / "a.tar", MEMBERS | {"shard/0.mask.png": MEMBERS["shard/1.png"]}).spec


def test_names_that_begin_at_the_current_folder_are_the_same(tmp_path):
    data = _tar(tmp_path / "a.tar", {f"./{name}": content for name, content in MEMBERS.items()})
    assert data.identify("train", [1]) == ["shard/1.png"]


def test_classes_and_captions_of_bad_images_are_left_out_with_them(tmp_path):
    members = MEMBERS | {"shard/1.png": b"x"} | _beside("cls", "0123") | _beside("txt", CAPTIONS)
    data = _tar(tmp_path / "a.tar", members, skip_bad=True)
    assert data.load("train", range(3)).y.tolist() == [0, 2, 3]
    assert _captions(data)[1] == "one"
    assert data.identify("train", [1]) == ["shard/2.png"]


def test_captions_and_classes_change_the_fingerprint(tmp_path):
    extras = [{}, _beside("cls", "0123"), _beside("cls", "1123"), _beside("txt", CAPTIONS), _beside("txt", "abcd")]
    found = {_tar(tmp_path / f"{place}.tar", MEMBERS | extra).fingerprint() for place, extra in enumerate(extras)}
    assert len(found) == 5


def test_a_compressed_file_is_refused_with_the_reason(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a tar file") as caught:
        _ = _tar(tmp_path / "a.tar", mode="w:gz").spec
    assert "not compressed" in caught.value.hint


@pytest.mark.parametrize("cut", [100, 600, 1024, 1200, 1600])
def test_a_file_that_was_cut_is_refused_and_not_read_as_a_shorter_one(cut, tmp_path):
    path = tmp_path / "a.tar"
    _tar(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="cannot be read as a tar file"):
        _ = Tar(str(path)).spec


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path):
    path = tmp_path / "a.tar"
    _tar(path)
    content = bytearray(path.read_bytes())
    content[content.find(b"shard/2.png") + 3] ^= 0xFF
    path.write_bytes(content)
    with tarfile.open(path) as archive:
        assert len(archive.getnames()) == 2  # the library says nothing
    with pytest.raises(DataError, match="after 2 files, at byte 2048, there is neither a file nor the end"):
        _ = Tar(str(path)).spec


def test_links_and_devices_are_no_images(tmp_path):
    path = tmp_path / "a.tar"
    _tar(path)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("shard/9.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert Tar(str(path)).size("train") == 4


def test_a_member_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_files, "MAX_BYTES", 10_000)
    data = _tar(tmp_path / "a.tar", MEMBERS | {"shard/9.png": bytes(20_000)})
    with pytest.raises(DataError, match=r"9\.png: has 20000 bytes, expected at most 10000"):
        _ = data.spec
    assert Tar(data.path, skip_bad=True).size("train") == 4
