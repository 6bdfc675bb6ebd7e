"""`genbench evaluate` and `genbench compare` as a user calls them."""

from __future__ import annotations

import csv
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.cli.main import main
from genbench.core.dataset import build_dataset
from genbench.core.spec import parse_ref

SHAPES = "shapes[resolution=8]"
FAST = ["--reference", SHAPES, "--num-reference", "100", "--metrics", "kernel_distance"]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def batch():
    return build_dataset(parse_ref(SHAPES)).load("test", range(24))


@pytest.fixture
def folder(batch, tmp_path):
    path = tmp_path / "drawn"
    path.mkdir()
    for index, image in enumerate(batch.x.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(path / f"{index:03d}.png")
    return path


def test_what_is_nearest_is_written_as_csv_json_and_picture(folder, batch, capsys, tmp_path):
    train = build_dataset(parse_ref(SHAPES)).load("train", range(60)).x
    train[41] = batch.x[9]
    np.save(tmp_path / "train.npy", train.permute(0, 2, 3, 1).numpy())
    np.save(tmp_path / "held.npy", train.flip(3).permute(0, 2, 3, 1).numpy())
    near = tmp_path / "near"
    words = [
        "--held-out",
        str(tmp_path / "held.npy"),
        "--nearest",
        str(near),
        "--num-nearest",
        "7",
        "--metrics",
        "kernel_distance",
    ]
    assert main(["evaluate", str(folder), "--reference", str(tmp_path / "train.npy"), *words]) == 0
    said = capsys.readouterr().out
    assert all(str(near / name) in said for name in ("nearest.csv", "nearest.json", "nearest.png"))
    with (near / "nearest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["sample", "reference", "distance", "held_out_distance"]
    assert (rows[0]["sample"], rows[0]["reference"]) == ("009.png", "00000041")
    distances = [float(row["distance"]) for row in rows]
    assert len(rows) == 7
    assert distances == sorted(distances)
    assert distances[0] == pytest.approx(0.0, abs=1e-4)
    document = json.loads((near / "nearest.json").read_text())
    assert [row["sample"] for row in document["rows"]] == [row["sample"] for row in rows]
    assert [row["held_out_distance"] for row in document["rows"]] == pytest.approx(
        [float(row["held_out_distance"]) for row in rows]
    )
    first_line = np.asarray(Image.open(near / "nearest.png"))[:105]  # margin, heads, and one picture of 64 pixels
    tile = batch.x[9].permute(1, 2, 0).numpy().repeat(8, axis=0).repeat(8, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(first_line, tile.shape)[:, :, 0]
    assert (windows == tile).all(axis=(2, 3, 4)).sum() == 2  # the sample, and the training picture that it is


def test_features_have_lists_of_what_is_nearest_and_no_picture(capsys, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(30, 3)))
    words = ["--features", "given", "--metrics", "kernel_distance", "--nearest", str(tmp_path / "near")]
    assert main(["evaluate", str(tmp_path / "a.npy"), "--reference", str(tmp_path / "b.npy"), *words]) == 0
    assert sorted(path.name for path in (tmp_path / "near").iterdir()) == ["nearest.csv", "nearest.json"]
    assert str(tmp_path / "near" / "nearest.csv") in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize("command", ["evaluate", "compare", "stats", "audit"])
def test_a_device_that_is_not_there_is_said_by_every_command_that_looks_at_pictures(command, folder, capsys, tmp_path):
    words = {
        "evaluate": [str(folder), "--reference", SHAPES],
        "compare": [str(folder), str(folder), "--reference", SHAPES],
        "stats": [SHAPES, "-o", str(tmp_path / "a.npz")],
        "audit": [SHAPES],
    }[command]
    assert main([command, *words, "--device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: `--device cuda`: no NVIDIA driver")
    assert "genbench doctor" in said


def test_a_reason_is_printed_once_with_all_the_metrics_that_it_skips(folder, capsys, tmp_path, monkeypatch):
    missing = str(tmp_path / "nothing.pth")
    network = ["--features", "inception_v3", "--weights", missing]
    monkeypatch.setenv("GENBENCH_WEIGHTS", missing)
    names = "kernel_distance,precision_recall[k=3],frechet_distance"
    assert main(["evaluate", str(folder), *FAST, *network, "--metrics", names]) == 2
    said = capsys.readouterr().err
    assert said.count("nothing.pth") == 1
    assert said.startswith("error: no metric applies: kernel_distance, precision_recall[k=3], frechet_distance: ")
    monkeypatch.setenv("COLUMNS", "1000")
    assert (
        main(["evaluate", str(folder), *FAST, "--metrics", "bits_per_dim,kernel_distance,codebook_usage,exact_kl"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "skipped" in line] == [
        "bits_per_dim, exact_kl: skipped: samples alone have no likelihood",
        "codebook_usage: skipped: the samples are pictures, not codes",
    ]


def test_json_on_stdout_is_json_and_nothing_else(folder, capsys, tmp_path):
    words = ["--json", "-", "--nearest", str(tmp_path / "near")]
    assert main(["evaluate", str(folder), *FAST, *words]) == 0
    assert "kd_shapes_net" in json.loads(capsys.readouterr().out)["scores"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nearest", "near", "--num-nearest", "0"], "list at least 1"),
        (["--text-encoder", "clpi"], "unknown judge of captions `clpi`\n\nhint: did you mean `clip`?"),
        (["--metrics", "clip_score", "--text-encoder", "clip[model=none_such]"], "open_clip has no model"),
        (["--metrics", "clip_score", "--text-encoder", "shapes_net"], "embeds no captions"),
        (["--metrics", "lpips_diversity", "--perceptual", "shapes_net"], "gives no perceptual distances"),
        (["--captions", "nothing.json"], "nothing.json: there is no such file\n\nhint: check the path"),
        (["--metrics", ""], "no metric was named"),
        (["--metrics", " , "], "no metric was named"),
    ],
)
def test_mistakes_exit_with_2_and_say_what_they_are(words, message, folder, batch, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for picture in folder.iterdir():
        picture.with_suffix(".txt").write_text("a red circle")
    assert main(["evaluate", str(folder), *FAST, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "near").exists()


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "given features"])
def test_skipping_bad_pictures_changes_nothing_of_an_array(kind, batch, capsys, tmp_path):
    images = batch.x.permute(0, 2, 3, 1).numpy()
    path, words = tmp_path / f"a.{kind}", FAST
    if kind == "given features":
        path = tmp_path / "a.npy"
        words = ["--reference", str(path), "--features", "given", "--metrics", "kernel_distance"]
        images = np.random.default_rng(0).normal(size=(30, 3))
    if kind == "pt":
        torch.save(batch.x, path)
    else:
        (np.savez if kind == "npz" else np.save)(path, images)
    said = []
    for more in ([], ["--skip-bad"]):
        assert main(["evaluate", str(path), *words, *more]) == 0
        said.append(capsys.readouterr())
    assert said[0] == said[1]


def test_a_damaged_array_is_refused_though_bad_pictures_are_skipped(batch, capsys, tmp_path):
    np.savez(tmp_path / "a.npz", batch.x.numpy())
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:2000])
    assert main(["evaluate", str(tmp_path / "a.npz"), *FAST, "--skip-bad"]) == 2
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_bad_pictures_are_left_out_by_name(kind, folder, capsys, tmp_path):
    (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:60])
    path = folder
    if kind == "tar":
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            archive.add(folder, "set")
    assert main(["evaluate", str(path), *FAST]) == 2
    assert "003.png" in capsys.readouterr().err
    assert main(["evaluate", str(path), *FAST, "--skip-bad"]) == 0
    said = capsys.readouterr()
    assert "1 unreadable samples were left out" in said.err
    assert "003.png" in said.err
    assert " 23 " in said.out


def _tar_with_captions(path, batch, captions):
    with tarfile.open(path, "w") as archive:
        for index, (image, words) in enumerate(zip(batch.x.permute(0, 2, 3, 1).numpy(), captions, strict=True)):
            picture = io.BytesIO()
            Image.fromarray(image).save(picture, "PNG")
            for suffix, content in (("png", picture.getvalue()), ("txt", words.encode())):
                info = tarfile.TarInfo(f"{index:03d}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_a_comparison_uses_the_captions_that_each_side_carries(batch, capsys, tmp_path):
    spec = build_dataset(parse_ref(SHAPES)).spec
    captions = [spec.caption(tokens) for tokens in batch.text]
    _tar_with_captions(tmp_path / "right.tar", batch, captions)
    _tar_with_captions(tmp_path / "wrong.tar", batch, captions[::-1])
    words = ["--metrics", "clip_score", "--text-encoder", "shapes_clip", "--groups", "4", "--json", "-"]
    paths = [str(tmp_path / "right.tar"), str(tmp_path / "wrong.tar")]
    assert main(["compare", *paths, "--reference", SHAPES, *words]) == 0
    assert json.loads(capsys.readouterr().out)["scores"]["clip_score"]["winner"] == "first"
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    (tmp_path / "others.json").write_text(json.dumps([[words] for words in captions]))
    both = ["--captions", str(tmp_path / "captions.json"), "--reference-captions", str(tmp_path / "others.json")]
    assert main(["compare", *paths, "--reference", SHAPES, *words, *both]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert set(scores) == {"clip_score", "ref_clip_score"}
    assert {score["winner"] for score in scores.values()} == {"tie"}


def test_a_comparison_says_what_is_odd_about_either_side(folder, batch, capsys, tmp_path):
    odd = batch.x.clone()
    odd[3] = 9
    np.save(tmp_path / "odd.npy", odd.permute(0, 2, 3, 1).numpy())
    words = ["--reference", SHAPES, "--num-reference", "100", "--metrics", "kernel_distance", "--groups", "4"]
    assert main(["compare", str(tmp_path / "odd.npy"), str(folder), *words]) == 0
    said = capsys.readouterr().err
    assert "odd.npy: 1 of 24 samples are of one value throughout" in said
    assert f"folder:{folder}: 1 of" not in said
