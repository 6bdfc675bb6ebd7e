"""One pass over pictures, what is kept of it, and what is said of pictures that were seen before."""

from __future__ import annotations

import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.errors import SampleError
from genbench.core.features import build_features
from genbench.core.spec import parse_ref
from genbench.evaluation.extraction import extract_layers
from genbench.evaluation.inspect_samples import Inspection
from genbench.evaluation.pictures import HeldImages, every_picture


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture(scope="module")
def network():
    return build_features(parse_ref("shapes_net"))


@pytest.fixture
def odd():
    """Pictures of which one is blank and two are alike."""
    images = build_dataset(parse_ref("shapes[resolution=8]")).load("train", range(210)).x
    images[3], images[4] = 9, images[5]
    return images


WARNINGS = ("1 of 210 samples are of one value throughout", "only 209 of 210 samples are distinct")


def _inspected(images, network, *, caching=True, tell=lambda *_: None):
    inspection = Inspection()
    pictures = every_picture(HeldImages(images))
    layers = extract_layers(
        pictures, network, ("features",), caching=caching, inspection=inspection, batch_size=50, tell=tell
    )
    return layers["features"], inspection.warnings()


def test_what_is_odd_is_said_again_when_the_features_are_cached(odd, network):
    looked = []
    first, again = (_inspected(odd, network, tell=lambda *done: looked.append(done[1:])) for _ in range(2))
    assert first[1] == again[1] == WARNINGS
    assert torch.equal(first[0], again[0])
    assert looked == [(50, 210), (100, 210), (150, 210), (200, 210), (210, 210)]  # the second time nothing is looked at


def test_pictures_that_were_cached_uninspected_are_inspected_now(odd, network):
    extract_layers(every_picture(HeldImages(odd)), network, ("features",), caching=True)
    assert _inspected(odd, network)[1] == WARNINGS
    with pytest.raises(SampleError, match="same picture"):
        _inspected(odd[:1].expand(9, -1, -1, -1).contiguous(), network)


def test_pictures_that_were_refused_are_refused_again(odd, network, cache):
    alike = odd[:1].expand(9, -1, -1, -1).contiguous()
    for _ in range(2):
        with pytest.raises(SampleError, match="same picture"):
            _inspected(alike, network)
    extract_layers(every_picture(HeldImages(alike)), network, ("features",), caching=True)  # as a reference
    with pytest.raises(SampleError, match="same picture"):
        _inspected(alike, network)


def test_an_inspection_is_known_to_every_extractor(odd, network, cache):
    _inspected(odd, network)
    found = _inspected(odd, build_features(parse_ref("shapes_clip")))
    assert found[1] == WARNINGS
    assert len(list(cache.glob("*.npy"))) == 3  # features of both, and one inspection


def test_without_a_cache_everything_is_looked_at_and_nothing_kept(odd, network, cache):
    assert _inspected(odd, network, caching=False)[1] == WARNINGS
    assert not cache.exists()


def test_a_damaged_inspection_is_made_again(odd, network, cache):
    _inspected(odd, network)
    small = min(cache.glob("*.npy"), key=lambda path: path.stat().st_size)
    small.write_bytes(small.read_bytes()[:-1] + b"x")
    assert _inspected(odd, network)[1] == WARNINGS
