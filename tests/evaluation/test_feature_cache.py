import logging

import numpy as np
import pytest

from genbench.evaluation import feature_cache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    return tmp_path / "features"


IDENTITY = feature_cache.entry("abc", {"extractor": "x", "sha256": "1"}, "features")
FEATURES = np.arange(12.0, dtype=np.float32).reshape(4, 3)


def test_features_come_back_as_they_were_kept():
    assert feature_cache.cached(IDENTITY) is None
    feature_cache.keep(IDENTITY, FEATURES)
    np.testing.assert_array_equal(feature_cache.cached(IDENTITY), FEATURES)


@pytest.mark.parametrize(
    "other",
    [
        feature_cache.entry("abd", {"extractor": "x", "sha256": "1"}, "features"),
        feature_cache.entry("abc", {"extractor": "x", "sha256": "2"}, "features"),
        feature_cache.entry("abc", {"extractor": "x", "sha256": "1"}, "spatial"),
    ],
    ids=["other pictures", "other weights", "other layer"],
)
def test_other_pictures_weights_and_layers_are_another_entry(other):
    feature_cache.keep(IDENTITY, FEATURES)
    assert feature_cache.cached(other) is None


def test_a_damaged_entry_is_set_aside_with_a_warning(folder, caplog):
    feature_cache.keep(IDENTITY, FEATURES)
    (path,) = folder.glob("*.npy")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with caplog.at_level(logging.WARNING):
        assert feature_cache.cached(IDENTITY) is None
    assert "set aside" in caplog.text
    assert [part.name for part in (folder / "bad").glob("*.npy")] == [path.name]
