"""Folders of images: splits, classes, sizes, conversions, and everything that is refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError, SettingError
from genbench.core.spec import parse_ref
from genbench.data.folder import Folder


def _noise(seed: int, size=(6, 6), mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture
def plain(tmp_path):
    """Sixty RGB images directly in a folder."""
    for number in range(60):
        _noise(number).save(tmp_path / f"{number:02}.png")
    return tmp_path


def _all(data: Folder, split: str) -> torch.Tensor:
    return data.load(split, range(data.size(split))).x


def test_every_image_is_in_exactly_one_split_and_in_order(plain):
    data = Folder(str(plain))
    assert data.size("train") + data.size("test") == 60
    assert 1 <= data.size("test") <= 15
    expected = [np.asarray(_noise(number)).transpose(2, 0, 1).tobytes() for number in range(60)]
    places = [[expected.index(row.numpy().tobytes()) for row in _all(data, split)] for split in ("train", "test")]
    assert sorted(places[0] + places[1]) == list(range(60))
    assert all(found == sorted(found) for found in places)


def test_a_new_file_moves_no_other_to_another_split(plain, tmp_path_factory):
    other = tmp_path_factory.mktemp("more")
    for path in plain.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    _noise(99).save(other / "00a.png")
    before, after = (
        [{row.numpy().tobytes() for row in _all(Folder(str(root)), split)} for split in ("train", "test")]
        for root in (plain, other)
    )
    assert before[0] <= after[0]
    assert before[1] <= after[1]


def test_sub_folders_train_and_test_are_the_splits_and_theirs_are_the_classes(tmp_path):
    for split, name, seed in (("train", "cat", 0), ("train", "dog", 1), ("test", "dog", 2), ("valid", "dog", 3)):
        (tmp_path / split / name).mkdir(parents=True)
        _noise(seed).save(tmp_path / split / name / "a.png")
    data = Folder(str(tmp_path))
    assert (data.size("train"), data.size("test")) == (2, 1)
    assert data.spec.num_classes == 2
    assert data.load("train", [0, 1]).y.tolist() == [0, 1]
    assert data.load("test", [0]).y.tolist() == [1]


def test_images_beside_class_folders_leave_no_classes(plain):
    (plain / "more").mkdir()
    _noise(70).save(plain / "more/a.png")
    data = Folder(str(plain))
    assert data.spec.num_classes == 0
    assert data.load("train", [0]).y is None


def test_hidden_files_and_other_files_are_no_images(plain):
    (plain / ".hidden.png").write_bytes(b"")
    (plain / "notes.txt").write_text("x")
    (plain / ".cache").mkdir()
    (plain / ".cache/a.png").write_bytes(b"")
    data = Folder(str(plain))
    assert data.size("train") + data.size("test") == 60


def test_mixed_sizes_are_refused_with_the_first_that_differs_and_the_remedy(plain):
    _noise(70, (7, 6)).save(plain / "zz.png")
    with pytest.raises(DataError, match=r"zz.png: 7 x 6 RGB, but \d\d.png is 6 x 6 RGB") as caught:
        Folder(str(plain)).load("train", [0])
    assert "[resolution=32]" in caught.value.hint


def test_mixed_modes_are_refused_without_a_resolution_and_become_rgb_with_one(plain):
    _noise(70, mode="L").save(plain / "zz.png")
    with pytest.raises(DataError, match="6 x 6 grey"):
        _ = Folder(str(plain)).spec
    data = Folder(str(plain), resolution=6)
    assert data.spec.shape == (3, 6, 6)
    assert all(_all(data, split).shape[1:] == (3, 6, 6) for split in ("train", "test"))


def test_grey_images_have_one_channel(tmp_path):
    for number in range(3):
        _noise(number, mode="L").save(tmp_path / f"{number}.png")
    data = Folder(str(tmp_path))
    assert data.spec.shape == (1, 6, 6)
    images = torch.cat([_all(data, "train"), _all(data, "test")])
    assert len(images) == 3


def test_a_resolution_cuts_the_middle_square_and_averages_it(tmp_path):
    picture = np.zeros((8, 16, 3), dtype=np.uint8)
    picture[:, 4:12] = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    for number in range(3):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    data = build_dataset(parse_ref(f"folder:{tmp_path}[resolution=4]"))
    split = "train" if data.size("train") else "test"
    expected = picture[:, 4:12].reshape(4, 2, 4, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
    assert np.abs(data.load(split, [0]).x[0].numpy() - expected).max() <= 1


def test_a_cut_png_among_good_ones_is_named(plain):
    path = plain / "05.png"
    path.write_bytes(path.read_bytes()[:-40])
    data = Folder(str(plain))
    with pytest.raises(DataError, match=r"05.png: not a readable image"):
        [_all(data, split) for split in ("train", "test")]


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a"])
def test_a_file_that_is_no_image_is_named(content, plain):
    (plain / "05.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"05.jpg: not a readable image"):
        _ = Folder(str(plain)).spec


def test_an_opaque_alpha_channel_is_dropped_and_a_transparent_one_refused(tmp_path):
    picture = _noise(0)
    picture.putalpha(255)
    picture.save(tmp_path / "a.png")
    data = Folder(str(tmp_path))
    found = torch.cat([_all(data, "train"), _all(data, "test")])
    assert np.array_equal(found[0].numpy(), np.asarray(_noise(0)).transpose(2, 0, 1))
    picture.putpixel((2, 2), (0, 0, 0, 100))
    picture.save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: is partly transparent"):
        [_all(data, split) for split in ("train", "test")]


def test_cmyk_is_refused(tmp_path):
    Image.new("CMYK", (6, 6)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg: mode CMYK, expected 8-bit grey or RGB"):
        _ = Folder(str(tmp_path)).spec


def test_sixteen_bit_grey_is_refused(tmp_path):
    Image.fromarray(np.arange(36, dtype=np.uint16).reshape(6, 6) * 1000).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: mode I;16, expected 8-bit"):
        _ = Folder(str(tmp_path)).spec


def _png(header: bytes, content: bytes) -> bytes:
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_sixteen_bit_rgb_is_refused_rather_than_cut_to_eight(tmp_path):
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(_png(header, (b"\0" + bytes(12)) * 2))
    with pytest.raises(DataError, match=r"a.png: 16 bits per channel, expected 8"):
        _ = Folder(str(tmp_path)).spec


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_decompression_bomb_is_refused_by_its_header(side, tmp_path):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(_png(header, b"\0" * 100))
    with pytest.raises(DataError, match=r"bomb.png: .*pixels"):
        _ = Folder(str(tmp_path), resolution=32).spec


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_animations_are_refused(suffix, tmp_path):
    frames = [_noise(number) for number in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(DataError, match=f"a.{suffix}: an animation, expected a single picture"):
        _ = Folder(str(tmp_path)).spec


def test_a_photograph_is_turned_as_its_exif_tag_says(tmp_path):
    picture = Image.new("RGB", (16, 8), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    data = Folder(str(tmp_path))
    assert data.spec.shape == (3, 16, 8)
    assert sum(len(_all(data, split)) for split in ("train", "test")) == 1


def test_the_fingerprint_follows_content_and_resolution(plain, tmp_path_factory):
    twin = tmp_path_factory.mktemp("twin")
    for path in plain.iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    assert Folder(str(plain)).fingerprint() == Folder(str(twin)).fingerprint()
    assert Folder(str(plain)).fingerprint() != Folder(str(plain), 4).fingerprint()
    other = tmp_path_factory.mktemp("other")
    for path in plain.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    _noise(71).save(other / "05.png")
    assert Folder(str(plain)).fingerprint() != Folder(str(other)).fingerprint()


def test_a_missing_folder_and_an_empty_one_say_so(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        Folder(str(tmp_path / "no")).load("train", [0])
    with pytest.raises(DataError, match="no images"):
        Folder(str(tmp_path)).load("train", [0])


def test_an_empty_split_says_so(tmp_path):
    _noise(0).save(tmp_path / "a.png")
    data = Folder(str(tmp_path))
    empty = "test" if data.size("test") == 0 else "train"
    with pytest.raises(IndexError, match="it is empty"):
        data.load(empty, [0])
    assert data.load(empty, []).x.shape == (0, 3, 6, 6)


def test_a_folder_needs_a_path():
    with pytest.raises(SettingError, match="dataset `folder` needs a path"):
        build_dataset(parse_ref("folder"))


def test_unreadable_files_are_left_out_only_when_asked_and_each_with_its_reason(plain):
    (plain / "05.png").write_bytes((plain / "05.png").read_bytes()[:-40])
    (plain / "07.png").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"07\.png") as caught:
        _ = Folder(str(plain)).spec
    assert "--skip-bad" in caught.value.hint
    data = build_dataset(parse_ref(f"folder:{plain}[skip_bad=true]"))
    names = [name for split in data.splits for name in data.identify(split, range(data.size(split)))]
    assert sorted(names) == [f"{number:02}.png" for number in range(60) if number not in (5, 7)]
    assert [reason.partition(": ")[0] for reason in data.skipped()] == [f"{plain}/05.png", f"{plain}/07.png"]
    assert sum(len(_all(data, split)) for split in data.splits) == 58


def test_a_good_folder_leaves_nothing_out(plain):
    assert Folder(str(plain), skip_bad=True).skipped() == Folder(str(plain)).skipped() == ()


def test_the_number_of_bad_headers_is_told_with_the_first(plain):
    for name in ("05.png", "07.png", "11.png"):
        (plain / name).write_bytes(b"hello")
    with pytest.raises(DataError, match=r"05\.png: .*\(the first of 3 bad files among 60\)"):
        Folder(str(plain)).load("train", [0])


def test_a_folder_of_nothing_but_bad_files_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"no images: all 1 are bad, .*a\.png: not a readable image"):
        _ = Folder(str(tmp_path), skip_bad=True).spec


def test_a_folder_that_changed_is_seen_by_the_next_object(plain):
    before = Folder(str(plain))
    kept = before.fingerprint(), before.size("train") + before.size("test")
    _noise(99).save(plain / "05.png")
    _noise(98).save(plain / "99.png")
    after = Folder(str(plain))
    assert after.fingerprint() != kept[0]
    assert after.size("train") + after.size("test") == kept[1] + 1
    assert (before.fingerprint(), before.size("train") + before.size("test")) == kept


def test_a_folder_named_like_a_picture_is_no_picture(plain):
    (plain / "more.png").mkdir()
    _noise(70).save(plain / "more.png" / "a.png")
    data = Folder(str(plain))
    assert sum(len(_all(data, split)) for split in data.splits) == 61


@pytest.mark.parametrize("suffix", ["bmp", "gif"])
def test_bitmaps_and_still_gifs_are_read(suffix, tmp_path):
    picture = Image.new("RGB", (6, 6), (200, 40, 10))
    picture.save(tmp_path / f"a.{suffix}")
    data = Folder(str(tmp_path))
    assert torch.cat([_all(data, split) for split in data.splits])[0, :, 2, 3].tolist() == [200, 40, 10]


def test_a_moving_gif_is_refused_rather_than_passed_over(plain):
    frames = [_noise(number) for number in range(3)]
    frames[0].save(plain / "zz.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"zz\.gif: an animation, expected a single picture"):
        _ = Folder(str(plain)).spec


def test_an_unknown_split_has_no_names(plain):
    with pytest.raises(ValueError, match="has no split `valid`"):
        Folder(str(plain)).identify("valid", [0])


def test_classes_are_had_without_decoding_a_picture(tmp_path):
    for place in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 7, dtype=np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:50])  # the header is whole, the pixels are not
    data = build_dataset(parse_ref(f"folder:{tmp_path}"))
    assert data.spec.num_classes == 2
    found = {
        name: int(label)
        for split in data.splits
        for rows in [range(data.size(split))]
        for name, label in zip(data.identify(split, rows), data.labels(split, rows), strict=True)
    }
    assert found == {"cat/0.png": 0, "cat/1.png": 0, "dog/0.png": 1, "dog/1.png": 1}
    assert data.captions("train", [0]) is None
