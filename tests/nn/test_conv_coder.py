"""Encoder and decoder of the variational autoencoders: shapes, published sizes, gradients."""

import pytest
import torch

from genbench.nn import conv_coder

KINDS = ("residual", "strided")


def _networks(kind, shape, *, latent_dim=3, num_outputs=5, width=8, hidden=16):
    torch.manual_seed(0)
    return conv_coder.networks(
        kind,
        shape,
        width=width,
        num_blocks=1,
        hidden=hidden,
        latent_dim=latent_dim,
        num_outputs=num_outputs,
        initial_scale=torch.zeros(2, 3),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [2, 7, 8, 16, 28, 32, 64])
def test_images_of_any_side_pass_to_moments_and_codes_to_outputs_for_every_pixel(kind, side):
    encoder, decoder = _networks(kind, (3, side, side))
    mu, log_sigma = encoder(torch.randn(4, 3, side, side))
    assert mu.shape == log_sigma.shape == (4, 3)
    outputs, scale = decoder(mu)
    assert outputs.shape == (4, 5, side, side)
    assert scale.shape == (2, 3)


def test_the_strided_networks_have_the_published_sizes_at_64_pixels():
    """Higgins et al., 2017, Table 1: 32, 32, 64 and 64 channels, 4 x 4, stride 2, and 256 units."""
    encoder, decoder = _networks("strided", (3, 64, 64), width=32, hidden=256, latent_dim=32)
    down = [tuple(weight.shape) for name, weight in encoder.named_parameters() if name.endswith("weight")]
    assert down == [(32, 3, 4, 4), (32, 32, 4, 4), (64, 32, 4, 4), (64, 64, 4, 4), (256, 1024), (64, 256)]
    up = [tuple(weight.shape) for name, weight in decoder.named_parameters() if name.endswith("weight")]
    assert up == [(256, 32), (1024, 256), (64, 64, 4, 4), (64, 32, 4, 4), (32, 32, 4, 4), (32, 5, 4, 4)]


def test_the_strided_encoder_ends_on_the_same_grid_that_the_decoder_starts_from():
    encoder, decoder = _networks("strided", (1, 28, 28))
    assert encoder.tower(torch.zeros(1, 1, 28, 28)).shape[1:] == decoder.grid == (16, 3, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_of_either_kind_gets_a_gradient(kind):
    encoder, decoder = _networks(kind, (3, 16, 16))
    mu, log_sigma = encoder(torch.randn(8, 3, 16, 16))
    outputs, scale = decoder(mu + torch.exp(log_sigma))
    (outputs.square().sum() + torch.exp(scale).sum()).backward()
    weights = [*encoder.parameters(), *decoder.parameters()]
    assert all(weight.grad is not None and bool(weight.grad.any()) for weight in weights)


def test_dense_layers_keep_the_scale_of_what_passes_a_rectifier():
    torch.manual_seed(0)
    layers = conv_coder.dense(512, 512, 512, 512, 512, activation=torch.nn.ReLU)
    x = torch.randn(64, 512)
    assert layers(x).square().mean().item() == pytest.approx(2.0, rel=0.4)  # He et al., 2015: twice that of the input
    assert [type(layer).__name__ for layer in layers] == [*["Linear", "ReLU"] * 3, "Linear"]
