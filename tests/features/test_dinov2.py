"""DINOv2 features against timm and against formulas, on random weights."""

import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import DataError
from genbench.core.features import build_features
from genbench.core.spec import Ref
from genbench.features.dinov2 import DINOv2, positions

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    timm = pytest.importorskip("timm")

SMALL = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture(scope="module")
def network():
    """timm's smallest at 224 pixels, with random weights that no initial value hides."""
    torch.manual_seed(3)
    network = timm.create_model(SMALL, pretrained=False, img_size=224, num_classes=0).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("gamma"):
                value.fill_(0.3)  # the layers' scale starts at 1e-5
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("dinov2") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def _pictures(num, height, width, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, height, width), generator=generator).to(torch.uint8)


@pytest.mark.slow
def test_features_are_the_class_token_of_timms_network(network, weights):
    ours = build_features(Ref(name="dinov2", config={"weights": str(weights)}))
    images = _pictures(2, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = network.forward_features(x)[:, 0]
    found = ours(images)
    assert found.shape == (2, ours.num_features) == (2, 384)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="uint8"):
        ours(images.float())


@pytest.mark.slow
def test_the_resize_by_pillow_is_pillows_and_the_other_one_does_not_round(weights):
    rounded = DINOv2(DINOv2.Config(weights=str(weights), resize="pil"))
    floating = DINOv2(DINOv2.Config(weights=str(weights)))
    images = _pictures(2, 40, 33)
    resized = [
        np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC))
        for image in images
    ]
    pillow = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()  # layouts round differently
    assert torch.equal(rounded(images), floating(pillow))  # at 224 pixels neither resizes
    assert not torch.equal(rounded(images), floating(images))
    assert rounded.protocol()["resize"] != floating.protocol()["resize"]


def _cubic(x):
    """Keys' kernel with a = -0.75, which PyTorch uses without antialiasing."""
    a, x = -0.75, abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def _line(size, side, scale):
    """Weights (side, size) of the original code's interpolation along one axis, edges repeated."""
    weights = np.zeros((side, size))
    for i in range(side):
        centre = (i + 0.5) / scale - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(j, 0), size - 1)] += _cubic(centre - j)
    return weights


def test_position_embeddings_are_interpolated_as_in_the_original_code():
    """Scale (16 + 0.1) / 37 in place of 16 / 37, and no antialiasing: both move the published features."""
    grid = np.random.default_rng(0).normal(size=(37, 37, 5))
    embeddings = torch.from_numpy(np.concatenate([np.zeros((1, 5)), grid.reshape(-1, 5)])[None]).double()
    line = _line(37, 16, 16.1 / 37)
    expected = np.einsum("ai,bj,ijf->abf", line, line, grid).reshape(-1, 5)
    found = positions(embeddings)
    assert found.shape == (1, 257, 5)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected, atol=1e-12)
    plain = _line(37, 16, 16 / 37)
    assert np.abs(np.einsum("ai,bj,ijf->abf", plain, plain, grid).reshape(-1, 5) - expected).max() > 0.1


def test_position_embeddings_of_the_right_number_are_left_alone_and_odd_ones_refused():
    embeddings = torch.randn(1, 257, 3)
    assert positions(embeddings) is embeddings
    with pytest.raises(ValueError, match="square"):
        positions(torch.zeros(1, 258, 3))


@pytest.mark.slow
def test_a_file_of_the_authors_at_518_pixels_is_read(weights, tmp_path):
    state = torch.load(weights)
    state["pos_embed"] = torch.randn(1, 1 + 37 * 37, 384)
    state["mask_token"] = torch.zeros(1, 384)
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    ours = DINOv2(DINOv2.Config(weights=str(tmp_path)))
    assert ours(_pictures(1, 8, 8)).isfinite().all()
    torch.testing.assert_close(ours.network.pos_embed, positions(state["pos_embed"]))


def test_missing_weights_are_refused_with_address_and_folder(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError) as caught:
        build_features(Ref(name="dinov2", config={"model": "vit_large_patch14_dinov2.lvd142m"}))
    assert "https://huggingface.co/timm/vit_large_patch14_dinov2.lvd142m" in str(caught.value.hint)
    assert str(tmp_path) in str(caught.value.hint)
    assert "--weights FILE" in str(caught.value.hint)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"pos_embed": torch.zeros(1, 257, 384), "more": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(DataError, match="not the weights of `dinov2`"):
        DINOv2(DINOv2.Config(weights=str(tmp_path / "x.pth")))
    torch.save({"other": torch.zeros(2)}, tmp_path / "y.pth")
    with pytest.raises(DataError, match="no tensor `pos_embed`"):
        DINOv2(DINOv2.Config(weights=str(tmp_path / "y.pth")))
