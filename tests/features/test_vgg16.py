"""Agreement with torch-fidelity's `fc2_relu` on one small file of random weights."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import nn

from genbench.core.errors import DataError
from genbench.core.features import build_features, extract
from genbench.core.spec import Ref
from genbench.features.vgg16 import URL

FLOAT32_NORM = 1e-5  # relative; twice the largest seen between layouts


def _hankel(shape, scale, generator):
    """Random numbers whose rows overlap in memory, so that a file of 138 million weights takes 2 MB."""
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    numbers = torch.randn(7 * rows + columns, generator=generator) * scale
    return numbers.as_strided(shape, (7, *torch.empty(shape[1:], device="meta").stride()))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """torchvision's layout, He's scale."""
    from torchvision.models import vgg16

    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in vgg16(weights=None, init_weights=False).state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        scale = (2 / torch.Size(shape[1:]).numel()) ** 0.5 if len(shape) > 1 else 0.1
        state[name] = (
            _hankel(shape, scale, generator) if len(shape) > 1 else torch.randn(shape, generator=generator) * 0.1
        )
    path = tmp_path_factory.mktemp("vgg16") / "random.pth"
    torch.save(state, path)
    assert path.stat().st_size < 2**22
    return path


def _build(weights, **config):
    return build_features(Ref(name="vgg16", config={"weights": str(weights), **config}))


@pytest.fixture(scope="module")
def exact(weights):
    return _build(weights)


def _pictures(num):
    return torch.randint(256, (num, 3, 32, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _norm_error(found, expected):
    found, expected = found.double(), expected.double()
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()


def test_missing_weights_name_the_address(tmp_path, monkeypatch):
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    with (
        mock.patch("urllib.request.urlopen", side_effect=OSError("offline")),
        pytest.raises(DataError, match=r"vgg16: weights .* are missing and cannot be downloaded: offline") as caught,
    ):
        build_features(Ref(name="vgg16"))
    assert URL in str(caught.value)


@pytest.mark.slow
def test_features_equal_torch_fidelitys(exact, weights):
    peer = pytest.importorskip("torch_fidelity.feature_extractor_vgg16").FeatureExtractorVGG16(
        "peer", ["fc2_relu"], feature_extractor_weights_path=str(weights)
    )
    images = _pictures(3)
    features = exact(images)
    assert features.shape == (3, exact.num_features) == (3, 4096)
    assert features.min() == 0
    assert 0.2 < (features > 0).double().mean() < 0.8
    assert _norm_error(features, peer(images)[0]) < FLOAT32_NORM
    assert _norm_error(features[:1], features[1:2]) > 100 * FLOAT32_NORM


@pytest.mark.slow
def test_every_setting_shows_in_the_protocol_and_fast_holds_to_rounding(exact, weights):
    images = _pictures(2)
    fast, clean = _build(weights, arithmetic="fast"), _build(weights, resize="clean")
    protocols = [extractor.protocol() for extractor in (exact, fast, clean)]
    assert len({tuple(sorted(protocol.items())) for protocol in protocols}) == 3
    assert {protocol["quantisation"] for protocol in protocols} == {"uint8"}
    assert _norm_error(fast(images), exact(images)) < FLOAT32_NORM
    assert _norm_error(clean(images), exact(images)) > 1e-3


@pytest.mark.slow
def test_float64_runs_in_float64(exact, weights):
    double = _build(weights, dtype="float64")
    images = _pictures(1)
    assert {parameter.dtype for parameter in double.parameters()} == {torch.float64}
    features = double(images)
    assert features.dtype == torch.float64
    assert 1e-9 < _norm_error(exact(images), features) < FLOAT32_NORM


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(exact):
    images = _pictures(9)
    whole = extract(exact, images)
    for batch_size in (1, 2, 5):
        assert _norm_error(extract(exact, images, batch_size=batch_size), whole) < 1e-6


@pytest.mark.slow
def test_weights_of_inception_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(DataError, match="not the weights of `vgg16`"):
        _build(tmp_path / "other.pth")
