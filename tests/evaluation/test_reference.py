import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from torch import nn

from genbench.core.dataset import build_dataset
from genbench.core.errors import StaleStatistics
from genbench.core.features import FeatureExtractor, build_features, extract, load_statistics, save_statistics
from genbench.core.shipped import shipped
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation import pictures, reference
from genbench.evaluation.reference import compute_statistics, dataset_label, reference_statistics

DATASET = parse_ref("shapes[resolution=8]")
EXTRACTOR = Ref(name="averages")


class Averages(FeatureExtractor):
    """Mean of each channel and of each quadrant's brightness, far from the origin."""

    def __init__(self, sha256="a"):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.sha256 = sha256

    @property
    def num_features(self):
        return 7

    def protocol(self):
        return {"extractor": "averages", "sha256": self.sha256}

    def forward(self, images):
        x = images.float() + 1e4
        quadrants = nn.functional.adaptive_avg_pool2d(x.mean(dim=1, keepdim=True), 2).flatten(1)
        return torch.cat([x.mean(dim=(2, 3)), quadrants], dim=1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(reference, "shipped", lambda kind: tmp_path / kind)
    return tmp_path / "cache" / "statistics"


def _find(extractor, dataset_ref=DATASET, num_examples=300):
    dataset = build_dataset(dataset_ref)
    return reference_statistics(dataset_ref, dataset, extractor, extractor_ref=EXTRACTOR, num_examples=num_examples)


def test_moments_in_chunks_equal_those_of_all_features_at_once(monkeypatch):
    monkeypatch.setattr(pictures, "CHUNK", 77)
    dataset, extractor = build_dataset(DATASET), Averages()
    found = compute_statistics(DATASET, dataset, extractor, num_examples=500)
    features = extract(extractor, dataset.load("train", range(500)).x).double().numpy()
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), rtol=1e-9, atol=1e-9)
    assert (found.num_samples, found.dataset, found.split) == (500, "shapes[resolution=8]", "train")
    assert found.dataset_fingerprint == dataset.fingerprint()


def test_statistics_are_computed_once_and_then_read(cache, monkeypatch):
    first = _find(Averages())
    assert len(list(cache.glob("*.npz"))) == 1
    monkeypatch.setattr(reference, "compute_statistics", lambda *args, **kwargs: pytest.fail("computed again"))
    assert _find(Averages()).sha256 == first.sha256


@pytest.mark.parametrize(
    "other",
    [
        lambda: _find(Averages("b")),
        lambda: _find(Averages(), parse_ref("shapes[resolution=16]")),
        lambda: _find(Averages(), num_examples=200),
    ],
    ids=["other weights", "other data", "other number"],
)
def test_anything_that_changes_the_numbers_is_cached_apart(cache, other):
    _find(Averages())
    other()
    assert len(list(cache.glob("*.npz"))) == 2


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"no zip"), lambda path: path.unlink()])
def test_a_damaged_cache_file_is_set_aside_with_a_warning_and_made_again(cache, caplog, damage):
    first = _find(Averages())
    (path,) = cache.glob("*.npz")
    damage(path)
    with caplog.at_level(logging.WARNING):
        again = _find(Averages())
    assert again.sha256 == first.sha256
    assert "set aside" in caplog.text
    assert list((cache / "bad").iterdir())
    assert load_statistics(path).sha256 == first.sha256


def _ship(cache, statistics):
    path = cache.parent.parent / "reference_stats" / "shapes-8" / "averages-train.npz"
    save_statistics(statistics, path)
    return path


def _look_up(extractor):
    return reference_statistics(DATASET, build_dataset(DATASET), extractor, extractor_ref=EXTRACTOR)


def test_a_shipped_file_is_taken_as_it_is(cache):
    made = compute_statistics(DATASET, build_dataset(DATASET), Averages(), num_examples=50)
    _ship(cache, made)
    assert _look_up(Averages()).sha256 == made.sha256
    assert not cache.exists()


def test_a_shipped_file_of_another_extractor_is_refused_with_the_command_that_remakes_it(cache):
    path = _ship(cache, compute_statistics(DATASET, build_dataset(DATASET), Averages("a"), num_examples=50))
    with pytest.raises(StaleStatistics, match="sha256 `a`, `averages` has sha256 `b`") as caught:
        _look_up(Averages("b"))
    assert caught.value.hint == f"genbench stats shapes[resolution=8] --features averages -o {path}"


def test_a_shipped_file_of_other_data_is_refused(cache):
    made = compute_statistics(DATASET, build_dataset(DATASET), Averages(), num_examples=50)
    _ship(cache, dataclasses.replace(made, dataset_fingerprint="0123"))
    with pytest.raises(StaleStatistics, match="fingerprint 0123"):
        _look_up(Averages())


def test_a_damaged_shipped_file_is_refused(cache):
    path = _ship(cache, compute_statistics(DATASET, build_dataset(DATASET), Averages(), num_examples=50))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StaleStatistics, match="SHA-256"):
        _look_up(Averages())


def test_datasets_are_labelled_by_name_and_values_of_settings():
    assert dataset_label(parse_ref("digits")) == "digits"
    assert dataset_label(parse_ref("shapes[resolution=16]")) == "shapes-16"
    assert dataset_label(parse_ref("folder:/a/b[resolution=32]")).startswith("folder-")
    assert "/" not in dataset_label(parse_ref("folder:/a/b"))


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_shipped_statistics_of_shapes_fit_the_shipped_extractor(resolution):
    ref = parse_ref(f"shapes[resolution={resolution}]")
    extractor_ref = Ref(name="shapes_net")
    found = reference_statistics(ref, build_dataset(ref), build_features(extractor_ref), extractor_ref=extractor_ref)
    assert found.num_samples == 50_000
    path = shipped("reference_stats") / f"shapes-{resolution}" / "shapes_net-train.json"
    assert json.loads(path.read_text())["sha256"] == found.sha256


@pytest.mark.slow
def test_shipped_statistics_are_made_again_from_nothing():
    """50,000 pictures; float32 features differ by rounding between machines, hence 1e-6 of the largest entry."""
    shipped_path = shipped("reference_stats") / "shapes-8" / "shapes_net-train.npz"
    expected = load_statistics(shipped_path)
    found = compute_statistics(DATASET, build_dataset(DATASET), build_features(Ref(name="shapes_net")))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6, atol=1e-6 * np.abs(expected.mean).max())
    largest = np.abs(expected.covariance).max()
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-6, atol=1e-6 * largest)
