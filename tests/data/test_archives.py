"""Files of images: zip, tar, npy, pt. One set of pictures, written in every form."""

import contextlib
import io
import json
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError
from genbench.core.spec import parse_ref

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
LABELS = [2, 0, 1, 1, 0, 2]


def _png(picture, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **options)
    return buffer.getvalue()


def _zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def _tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _members(pictures=PICTURES):
    return {f"set/{index:03d}.png": _png(picture) for index, picture in enumerate(pictures)}


def _write(kind, path, members):
    return (_zip if kind == "zip" else _tar)(path / f"images.{kind}", members)


def _built(kind, path, settings=""):
    return build_dataset(parse_ref(f"{kind}:{path}{settings}"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_give_their_pictures_in_the_order_of_their_names(kind, tmp_path):
    members = dict(reversed(_members().items()))
    dataset = _built(kind, _write(kind, tmp_path, members))
    assert dataset.spec.shape == (3, 5, 7)
    assert dataset.size("train") == 6
    np.testing.assert_array_equal(dataset.load("train", [4, 0]).x.permute(0, 2, 3, 1), PICTURES[[4, 0]])
    assert dataset.identify("train", [4]) == ["set/004.png"]


def test_the_labels_of_a_zip_and_of_a_tar_are_read(tmp_path):
    rows = [[f"set/{index:03d}.png", label] for index, label in enumerate(LABELS)]
    zipped = _built("zip", _zip(tmp_path / "a.zip", _members() | {"dataset.json": json.dumps({"labels": rows})}))
    beside = {f"set/{index:03d}.cls": str(label).encode() for index, label in enumerate(LABELS)}
    tarred = _built("tar", _tar(tmp_path / "a.tar", _members() | beside))
    for dataset in (zipped, tarred):
        assert dataset.load("train", range(6)).y.tolist() == LABELS
        assert dataset.spec.num_classes == 3


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_truncated_member_is_named_and_left_out_only_when_asked(kind, tmp_path):
    members = _members()
    members["set/002.png"] = members["set/002.png"][:60]
    path = _write(kind, tmp_path, members)
    with pytest.raises(DataError, match=r"002\.png"):
        _built(kind, path).load("train", range(6))
    patient = _built(kind, path, "[skip_bad=true]")
    assert patient.size("train") == 5
    (reason,) = patient.skipped()
    assert "002.png" in reason


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (_png(PICTURES[0, :, :, 0]), "grey"),
        (_png(PICTURES[0][:3]), "all must be alike"),
        (_png(np.zeros((5, 7, 4), np.uint8)), "transparent"),
    ],
    ids=["grey among colour", "another size", "transparent"],
)
def test_members_that_do_not_fit_are_refused(kind, odd, message, tmp_path):
    dataset = _built(kind, _write(kind, tmp_path, _members() | {"set/odd.png": odd}))
    with pytest.raises(DataError, match=message):
        dataset.load("train", range(7))


def test_an_animation_and_a_cmyk_picture_are_refused(tmp_path):
    frames = [Image.fromarray(picture) for picture in PICTURES]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="an animation"):
        _ = _built("zip", _zip(tmp_path / "a.zip", {"a.gif": buffer.getvalue()})).spec
    cmyk = io.BytesIO()
    frames[0].convert("CMYK").save(cmyk, "JPEG")
    with pytest.raises(DataError, match="mode CMYK"):
        _ = _built("zip", _zip(tmp_path / "b.zip", {"a.jpg": cmyk.getvalue()})).spec


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_is_no_archive_or_holds_no_pictures_is_refused(kind, tmp_path):
    broken = tmp_path / f"broken.{kind}"
    broken.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DataError, match="cannot be read"):
        _ = _built(kind, broken).spec
    with pytest.raises(DataError, match="no images"):
        _ = _built(kind, _write(kind, tmp_path, {"a.txt": b"x"})).spec
    with pytest.raises(DataError, match="there is no file"):
        _ = _built(kind, tmp_path / "nowhere").spec


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_number_of_bad_headers_is_told_with_the_first(kind, tmp_path):
    path = _write(kind, tmp_path, _members() | {"set/001.png": b"x", "set/004.png": b"y"})
    with pytest.raises(
        DataError, match=r"001\.png: not a readable image.* \(the first of 2 bad files among 6\)"
    ) as caught:
        _ = _built(kind, path).spec
    assert "skip_bad" in caught.value.hint
    assert "object at 0x" not in caught.value.message


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_left_where_every_member_is_bad(kind, tmp_path):
    path = _write(kind, tmp_path, {f"{index}.png": b"x" for index in range(3)})
    with pytest.raises(DataError, match="all 3 images are bad"):
        _ = _built(kind, path, "[skip_bad=true]").spec


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_hidden_members_and_those_that_macos_adds_are_no_images(kind, tmp_path):
    extra = {"__MACOSX/set/._000.png": b"x", "set/._001.png": b"x", ".cache/a.png": b"x"}
    dataset = _built(kind, _write(kind, tmp_path, _members() | extra))
    assert dataset.size("train") == 6
    assert dataset.spec.shape == (3, 5, 7)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_more_members_than_threads_hold_at_once_keep_their_order(kind, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (600, 4, 4, 3), dtype=np.uint8)
    dataset = _built(kind, _write(kind, tmp_path, _members(pictures)))
    order = np.random.default_rng(2).permutation(600)
    np.testing.assert_array_equal(dataset.load("train", order).x.permute(0, 2, 3, 1), pictures[order])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_file_that_is_written_again_is_read_again(kind, tmp_path):
    path = _write(kind, tmp_path, _members())
    before = _built(kind, path).fingerprint()
    again = _built(kind, _write(kind, tmp_path, _members(PICTURES[:4])))
    assert again.size("train") == 4
    assert again.fingerprint() != before


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_decompression_bomb_is_refused_by_its_header(kind, tmp_path):
    bomb = bytearray(_png(PICTURES[0]))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(DataError, match=r"bomb\.png: .*pixels"):
        _ = _built(kind, _write(kind, tmp_path, _members() | {"set/bomb.png": bytes(bomb)})).spec


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_sixteen_bits_are_refused(kind, tmp_path):
    deep = _png(np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000)
    with pytest.raises(DataError, match=r"odd\.png: mode I;16, expected 8-bit"):
        _ = _built(kind, _write(kind, tmp_path, _members() | {"set/odd.png": deep})).spec


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_bytes_are_damaged_the_error_is_one_of_data(kind, seed, tmp_path):
    rng = np.random.default_rng(seed)
    whole = _write(kind, tmp_path, _members()).read_bytes()
    for trial in range(20):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 12):
            damaged[place] = rng.integers(256)
        path = tmp_path / f"{trial}.{kind}"
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            dataset = _built(kind, path, "[skip_bad=true]")
            assert len(dataset.load("train", range(dataset.size("train")))) + len(dataset.skipped()) <= 6


@pytest.mark.parametrize("kind", ["npy", "npz", "pt"])
@pytest.mark.parametrize("seed", range(2))
def test_whatever_bytes_of_an_array_are_damaged_the_error_is_one_of_data(kind, seed, tmp_path):
    rng, path = np.random.default_rng(seed), tmp_path / f"a.{kind}"
    write = {"npy": np.save, "npz": np.savez, "pt": lambda place, array: torch.save(torch.from_numpy(array), place)}
    write[kind](path, PICTURES)
    whole = path.read_bytes()
    for trial in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 160 if trial % 2 else len(whole)), 6):
            damaged[place] = rng.integers(256)
        broken = tmp_path / f"{trial}.{kind}"
        broken.write_bytes(damaged)
        with warnings.catch_warnings(), contextlib.suppress(DataError):
            warnings.simplefilter("ignore")  # NumPy's, on odd literals
            dataset = _built(kind, broken)
            dataset.load("train", range(dataset.size("train")))


def test_a_changed_picture_changes_the_fingerprint(tmp_path):
    first = _built("zip", _zip(tmp_path / "a.zip", _members())).fingerprint()
    other = _built("zip", _zip(tmp_path / "b.zip", _members(255 - PICTURES))).fingerprint()
    again = _built("zip", _zip(tmp_path / "c.zip", _members())).fingerprint()
    assert first == again != other


@pytest.mark.parametrize("layout", ["channels last", "channels first", "grey"])
def test_arrays_and_tensors_give_the_same_pictures(layout, tmp_path):
    array = {"channels last": PICTURES, "channels first": PICTURES.transpose(0, 3, 1, 2), "grey": PICTURES[..., 0]}[
        layout
    ]
    np.save(tmp_path / "a.npy", array)
    torch.save(torch.from_numpy(array.copy()), tmp_path / "a.pt")
    expected = PICTURES[..., :1] if layout == "grey" else PICTURES
    for kind in ("npy", "pt"):
        dataset = _built(kind, tmp_path / f"a.{kind}")
        assert dataset.spec.shape == expected.transpose(0, 3, 1, 2).shape[1:]
        np.testing.assert_array_equal(dataset.load("train", [3, 1]).x.permute(0, 2, 3, 1), expected[[3, 1]])


@pytest.mark.parametrize("kind", ["npy", "pt"])
@pytest.mark.parametrize(("meaning", "scale", "shift"), [("unit", 255.0, 0.0), ("signed", 127.5, -1.0)])
def test_floats_are_rounded_once_their_meaning_is_said(kind, meaning, scale, shift, tmp_path):
    floats = (PICTURES / scale + shift).astype(np.float32)
    np.save(tmp_path / "a.npy", floats)
    torch.save(torch.from_numpy(floats), tmp_path / "a.pt")
    path = tmp_path / f"a.{kind}"
    with pytest.raises(DataError, match="holds floats") as caught:
        _built(kind, path).load("train", [0])
    assert f"value_range={meaning}" in caught.value.hint
    found = _built(kind, path, f"[value_range={meaning}]").load("train", range(6)).x.permute(0, 2, 3, 1)
    np.testing.assert_array_equal(found, PICTURES)


@pytest.mark.parametrize("kind", ["npy", "pt"])
def test_floats_in_the_wrong_range_are_refused(kind, tmp_path):
    unit = (PICTURES / 255.0).astype(np.float32)
    for name, array, meaning, message in [
        ("a", unit, "signed", "no value below 0"),
        ("b", 2 * unit - 1, "unit", "expected 0 .. 1"),
        ("d", PICTURES.astype(np.float32), "unit", "expected 0 .. 1"),
        ("c", np.where(unit > 0.9, np.nan, unit), "unit", "NaN"),
    ]:
        np.save(tmp_path / f"{name}.npy", array)
        torch.save(torch.from_numpy(array), tmp_path / f"{name}.pt")
        with pytest.raises(DataError, match=message):
            _built(kind, tmp_path / f"{name}.{kind}", f"[value_range={meaning}]").load("train", range(6))


def test_pickled_objects_are_never_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=np.array([{"a": 1}], dtype=object))
    torch.save({"images": io.StringIO}, tmp_path / "a.pt")
    for kind in ("npy", "npz", "pt"):
        with pytest.raises(DataError) as caught:
            _ = _built(kind, tmp_path / f"a.{kind}").spec
        assert "not opened" in caught.value.hint


def test_features_are_not_taken_for_pictures(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((5, 3)))
    with pytest.raises(DataError, match="expected images") as caught:
        _ = _built("npy", tmp_path / "a.npy").spec
    assert "--features given" in caught.value.hint


def _cut(members):
    """One picture whose header is whole and whose pixels are not: it has a size, and cannot be decoded."""
    return members | {"set/002.png": members["set/002.png"][:60]}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_classes_are_had_without_decoding_a_picture(kind, tmp_path):
    rows = [[f"set/{index:03d}.png", label] for index, label in enumerate(LABELS)]
    beside = {f"set/{index:03d}.cls": str(label).encode() for index, label in enumerate(LABELS)}
    told = {"dataset.json": json.dumps({"labels": rows}).encode()} if kind == "zip" else beside
    dataset = _built(kind, _write(kind, tmp_path, _cut(_members()) | told))
    with pytest.raises(DataError, match=r"002\.png"):
        dataset.load("train", [2])
    assert dataset.labels("train", [2, 0, 5]).tolist() == [1, 2, 2]


def test_captions_are_had_without_decoding_a_picture(tmp_path):
    words = {f"set/{index:03d}.txt": f"picture  number {index}".encode() for index in range(6)}
    dataset = _built("tar", _write("tar", tmp_path, _cut(_members()) | words))
    assert dataset.captions("train", [2, 0]) == ["picture number 2", "picture number 0"]
    whole = _built("tar", _tar(tmp_path / "whole.tar", _members() | words))
    said = [whole.spec.caption(tokens) for tokens in whole.load("train", range(6)).text]
    assert whole.captions("train", range(6)) == said


def test_classes_beside_arrays_are_those_that_come_with_the_pictures(tmp_path):
    labels = np.array(LABELS)
    np.savez(tmp_path / "a.npz", images=np.tile(PICTURES, (5, 1, 1, 1)), labels=np.tile(labels, 5))
    torch.save({"images": torch.from_numpy(PICTURES), "labels": torch.from_numpy(labels)}, tmp_path / "a.pt")
    for kind in ("npz", "pt"):
        dataset = _built(kind, tmp_path / f"a.{kind}")
        for split in dataset.splits:
            rows = range(dataset.size(split))
            assert len(rows) > 0
            assert torch.equal(dataset.labels(split, rows), dataset.load(split, rows).y)
        with pytest.raises(IndexError):
            dataset.labels("train", [99])


def test_arrays_and_zip_files_have_no_captions_and_plain_ones_no_classes(tmp_path):
    np.save(tmp_path / "a.npy", PICTURES)
    np.savez(tmp_path / "a.npz", PICTURES)
    torch.save(torch.from_numpy(PICTURES), tmp_path / "a.pt")
    _zip(tmp_path / "a.zip", _members())
    for kind in ("npy", "npz", "pt", "zip"):
        dataset = _built(kind, tmp_path / f"a.{kind}")
        assert dataset.captions("train", [0]) is None
        assert dataset.labels("train", [0]) is None


def test_a_data_set_that_overrides_nothing_gives_what_it_loads():
    shapes = build_dataset(parse_ref("shapes[resolution=8]"))
    batch = shapes.load("train", range(5))
    assert torch.equal(shapes.labels("train", range(5)), batch.y)
    assert shapes.captions("train", range(5)) == [shapes.spec.caption(tokens) for tokens in batch.text]
