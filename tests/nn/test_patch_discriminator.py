"""A patch's logit depends on its own pixels, and images of any side have patches."""

import pytest
import torch
from torch import nn

from genbench.nn.patch_discriminator import PatchDiscriminator


@pytest.mark.parametrize(
    ("side", "patches", "num_halvings"),
    [(256, 30, 3), (64, 6, 3), (32, 2, 3), (28, 1, 3), (16, 2, 2), (8, 2, 1), (3, 1, 0)],
)
def test_images_of_any_side_have_patches(side, patches, num_halvings):
    model = PatchDiscriminator(3, side, width=4)
    assert model(torch.zeros(2, 3, side, side)).shape == (2, 1, patches, patches)
    strides = [layer[0].stride[0] for layer in model.layers]
    assert strides == [2] * num_halvings + [1]


def test_the_networks_at_256_pixels_are_the_published_ones():
    """70 x 70 patches: C64-C128-C256-C512, then one logit; 2.8 million parameters with a bias in the last two only."""
    model = PatchDiscriminator(3, 256, width=64)
    widths = [layer[0].out_channels for layer in model.layers]
    assert widths == [64, 128, 256, 512]
    assert [any(isinstance(part, nn.BatchNorm2d) for part in layer) for layer in model.layers] == [
        False,
        True,
        True,
        True,
    ]
    convolutions = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    assert sum(p.numel() for p in model.parameters()) == convolutions + 2 * (128 + 256 + 512)


def test_a_patch_sees_seventy_pixels():
    model = PatchDiscriminator(1, 256, width=2).eval()
    x = torch.zeros(1, 1, 256, 256, requires_grad=True)
    (grad,) = torch.autograd.grad(model(x + torch.randn(1, 1, 256, 256))[0, 0, 15, 15], x)
    rows = grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 70


def test_logits_of_known_activations_are_those_of_the_image():
    model, x = PatchDiscriminator(3, 16, width=4), torch.randn(2, 3, 16, 16)
    features = model.features(x)
    assert [h.shape[1] for h in features] == [4, 8, 16]
    model.eval()
    assert torch.equal(model.logits(model.features(x)), model(x))


def test_an_image_without_room_for_a_patch_is_refused():
    with pytest.raises(ValueError, match="at least 3 pixels a side, found 2"):
        PatchDiscriminator(3, 2, width=4)
