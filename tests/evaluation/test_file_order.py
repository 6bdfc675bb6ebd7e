"""Row i of one side belongs to row i of another, whatever the files are called and whichever form they have."""

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.dataset import build_dataset
from genbench.core.spec import parse_ref
from genbench.evaluation.compare import compare_samples
from genbench.evaluation.evaluate import evaluate

REFERENCE = "shapes[resolution=8]"
COUNT = 120


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return build_dataset(parse_ref(REFERENCE)).load("test", range(COUNT)).x


def _folder(path, images, name):
    path.mkdir()
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(path / name.format(index))
    return path


def _forms(folder, images):
    channels_last = images.permute(0, 2, 3, 1).contiguous().numpy()
    np.savez(folder / "images.npz", channels_last)
    np.save(folder / "images.npy", channels_last)
    return [
        _folder(folder / "png", images, "{:04d}.png"),
        _folder(folder / "bmp", images, "{:04d}.bmp"),
        _folder(folder / "named", images, "recon_{:05d}.png"),
        folder / "images.npz",
        folder / "images.npy",
    ]


def test_reconstructions_meet_their_originals_in_every_form(images, tmp_path):
    perfect = evaluate(images, REFERENCE, originals=images, metrics=["reconstruction"], num_reference=50)
    assert perfect.score("ssim").value == pytest.approx(1.0)
    for form in _forms(tmp_path, images):
        done = evaluate(form, REFERENCE, originals=images, metrics=["reconstruction"], num_reference=50)
        assert done.score("psnr").value == pytest.approx(perfect.score("psnr").value), form


def test_a_set_is_no_other_than_itself_in_every_form(images, tmp_path):
    for form in _forms(tmp_path, images):
        done = compare_samples(images, form, REFERENCE, metrics=["frechet_distance", "vendi_score"], num_reference=200)
        for row in done.differences:
            assert row.difference == pytest.approx(0.0, abs=1e-6 * abs(row.first)), form
            assert max(map(abs, row.ci95)) <= 1e-6 * abs(row.first), form


def test_what_is_cut_of_the_larger_set_is_said(images):
    done = compare_samples(images, images[:90], REFERENCE, metrics=["vendi_score"], num_reference=50)
    assert any("the last 30 of 120 samples are left out" in said for said in done.warnings)


def test_data_that_meet_themselves_are_named(images):
    other = build_dataset(parse_ref(REFERENCE)).load("train", range(COUNT)).x
    done = evaluate(images, images, held_out=other, metrics=["vendi_score"])
    assert any("the set of samples is the reference itself" in said for said in done.warnings)
    done = evaluate(images, other, held_out=other, metrics=["neighbour_ratio"])
    assert any("held-out data is the reference itself" in said for said in done.warnings)
