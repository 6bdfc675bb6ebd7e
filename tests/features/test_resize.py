import warnings

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genbench.features._resize import bicubic_weights, resize, resize_clean, resize_legacy, resize_tf1, tf1_weights

SIZES = [(32, 32), (64, 48), (1, 1), (28, 299), (299, 299), (299, 17), (512, 301)]
GREY_LEVELS = 1e-4


def _pictures(height, width, num=2):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(256, (num, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_tf1_equals_torch_fidelitys_resize(size):
    peer = pytest.importorskip("torch_fidelity.interpolate_compat_tensorflow")
    images = _pictures(*size)
    expected = peer.interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    torch.testing.assert_close(resize_tf1(images, 299), expected, rtol=0, atol=GREY_LEVELS)


@pytest.mark.parametrize("size", SIZES)
def test_clean_equals_clean_fids_resize(size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    images = _pictures(*size)
    expected = np.stack([peer(image.permute(1, 2, 0).numpy()).transpose(2, 0, 1) for image in images])
    np.testing.assert_allclose(resize_clean(images, 299).numpy(), expected, rtol=0, atol=GREY_LEVELS)


@pytest.mark.parametrize("size", SIZES)
def test_legacy_equals_pytorchs_bilinear_resize(size):
    images = _pictures(*size)
    expected = F.interpolate(images.float() / 255, size=(299, 299), mode="bilinear", align_corners=False) * 255
    torch.testing.assert_close(resize_legacy(images, 299), expected, rtol=0, atol=GREY_LEVELS)


def test_each_way_maps_a_ramp_to_its_own_line():
    ramp = torch.arange(50.0, dtype=torch.float64).expand(1, 1, 50, 50)
    scale, to = 50 / 299, torch.arange(299, dtype=torch.float64)
    by_tf1 = resize_tf1(ramp, 299, dtype=torch.float64)[0, 0, 7]
    by_legacy = resize_legacy(ramp, 299, dtype=torch.float64)[0, 0, 7]
    by_clean = resize_clean(ramp, 299, dtype=torch.float64)[0, 0, 7]
    middle = slice(20, -20)  # away from edges, where a cubic kernel is cut
    torch.testing.assert_close(by_tf1, (to * scale).clamp_max(49), rtol=0, atol=1e-5)  # the fraction is float32
    torch.testing.assert_close(by_legacy, ((to + 0.5) * scale - 0.5).clamp(0, 49), rtol=0, atol=1e-12)
    torch.testing.assert_close(by_clean[middle], ((to + 0.5) * scale - 0.5)[middle], rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", ["tf1", "clean", "legacy"])
@pytest.mark.parametrize("size", [(5, 8), (700, 3)])
def test_a_plain_picture_stays_plain(how, size):
    plain = torch.full((1, 3, *size), 201, dtype=torch.uint8)
    expected = torch.full((1, 3, 299, 299), 201.0, dtype=torch.float64)
    torch.testing.assert_close(resize(plain, 299, how=how, dtype=torch.float64), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("how", ["tf1", "clean", "legacy"])
def test_a_picture_of_the_right_size_is_left_alone(how):
    images = _pictures(224, 224)
    assert torch.equal(resize(images, 224, how=how), images.float())


@pytest.mark.parametrize("size", [3, 32, 299, 640])
def test_weights_of_every_output_pixel_sum_to_one(size):
    for weights in (tf1_weights, bicubic_weights):
        sums = weights(size, 299, dtype=torch.float64).sum(dim=1)
        torch.testing.assert_close(sums, torch.ones(299, dtype=torch.float64), rtol=0, atol=1e-12)


def test_clean_does_not_overshoot_the_range_and_does_not_round():
    edges = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    edges[..., 8:] = 255
    resized = resize_clean(edges, 299)
    unclipped = bicubic_weights(16, 299, dtype=torch.float64) @ edges[0, 0, 0].double()
    assert unclipped.min() < -5
    assert resized.min() == 0
    assert resized.max() == 255
    assert (resized != resized.round()).any()


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match="tf1, clean, legacy"):
        resize(_pictures(4, 4), 8, how="nearest")
