"""What is made of whatever stands on one side of a comparison."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from genbench.core.errors import DataError
from genbench.evaluation.sides import read_reference, read_side

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
MOMENTS = {"mu": np.zeros(4), "sigma": np.eye(4)}
SPATIAL = {"mu_s": np.ones(3), "sigma_s": 2.0 * np.eye(3)}


def _read(path, **arrays):
    np.savez(path, **arrays)
    return read_side(path, split=None, features_given=False, assumed="x")


def test_a_reference_batch_gives_its_moments_and_all_of_its_pictures(tmp_path):
    side = _read(tmp_path / "adm.npz", arr_0=PICTURES, **MOMENTS, **SPATIAL)
    assert len(side.pictures()) == 40
    assert side.statistics.protocol["extractor"] == "x"
    np.testing.assert_array_equal(side.statistics.covariance, np.eye(4))
    np.testing.assert_array_equal(side.spatial.mean, np.ones(3))


def test_compressed_and_grey_reference_batches_are_recognised(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=PICTURES[..., 0], **MOMENTS)
    side = read_side(tmp_path / "a.npz", split=None, features_given=False)
    assert side.dataset.spec.shape == (1, 8, 8)
    assert side.statistics is not None
    assert side.spatial is None


def test_moments_alone_and_pictures_alone_are_only_what_they_are(tmp_path):
    alone = _read(tmp_path / "moments.npz", **MOMENTS, **SPATIAL)
    assert alone.dataset is None
    assert alone.spatial is not None
    pictures = _read(tmp_path / "pictures.npz", arr_0=PICTURES)
    assert pictures.statistics is None


def test_an_array_that_is_no_picture_leaves_moments_alone(tmp_path):
    side = _read(tmp_path / "a.npz", x=np.zeros((5, 3)), **MOMENTS)
    assert side.dataset is None
    assert side.statistics is not None


def test_moments_are_of_no_split(tmp_path):
    _read(tmp_path / "a.npz", arr_0=PICTURES, **MOMENTS)
    side = read_side(tmp_path / "a.npz", split="train", features_given=False)
    assert side.statistics is None
    assert 0 < len(side.pictures()) < 40


def test_pictures_that_are_damaged_are_not_passed_over_for_the_moments_beside_them(tmp_path):
    path = tmp_path / "a.npz"
    side = _read(path, arr_0=PICTURES.astype(np.float32) + 0.5, **MOMENTS)
    with pytest.raises(DataError, match="floats"):
        side.pictures().images()


@pytest.mark.parametrize(("features", "known"), [({}, "moments"), ({"features": np.ones((5, 4))}, "features")])
def test_moments_stand_for_given_features_unless_these_are_there_too(features, known, tmp_path):
    np.savez(tmp_path / "a.npz", **MOMENTS, **features)
    side = read_side(tmp_path / "a.npz", split=None, features_given=True, assumed="given")
    assert (side.features is None) == (known == "moments")
    assert (side.statistics is None) == (known == "features")


def test_what_the_user_has_set_apart_is_no_part_of_the_reference(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    for split, rows in (("train", pictures[:20]), ("test", pictures[20:])):
        (tmp_path / "own" / split).mkdir(parents=True)
        for index, picture in enumerate(rows):
            Image.fromarray(picture).save(tmp_path / "own" / split / f"{index}.png")
    (tmp_path / "flat").mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "flat" / f"{index}.png")
    np.savez(tmp_path / "own.npz", train=pictures[:20], test=pictures[20:])
    np.savez(tmp_path / "flat.npz", pictures)
    for name, count in (("own", 20), ("own.npz", 20), ("flat", 30), ("flat.npz", 30)):
        side = read_reference(tmp_path / name, split=None, features_given=False)
        assert len(side.pictures()) == count, name
        assert len(read_side(tmp_path / name, split=None, features_given=False).pictures()) == 30, name
    assert read_reference(tmp_path / "own", split="test", features_given=False).splits == ("test",)
