"""A randomly initialised Inception file in torch-fidelity's layout: agreement needs the same file, not the trained one.

Convolutions are drawn as in He et al. (2015), BatchNorm is calibrated on coloured noise (else features
collapse to constants), and the features then look like the trained network's: none negative, full rank.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

SIDES = (4, 16, 64, 299)
"""Sides of the noise that BatchNorm is calibrated on, so that smooth and rough pictures both spread."""


def write_random_inception(path: Path, *, seed: int = 0, images_per_side: int = 3) -> Path:
    """Write a state dict that `feature_extractor_weights_path` and `GENBENCH_WEIGHTS` accept; returns `path`.

    Takes about four seconds on one core and 96 MB. Equal seeds give equal files on one machine only, so
    share the file, not the seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _without_download()
        network.apply(_draw)
        _calibrate(network, images_per_side)
    torch.save(network.state_dict(), path)
    return path


def _without_download() -> nn.Module:
    from torch_fidelity import feature_extractor_inceptionv3 as peer

    kind = peer.FeatureExtractorInceptionV3
    with (
        mock.patch.object(peer, "load_state_dict_from_url", return_value={}),
        mock.patch.object(kind, "load_state_dict"),
    ):
        return kind("inception-v3-compat", ["2048", "logits_unbiased"])


def _draw(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, 0.0, 0.2)
        module.momentum = None  # the running statistics become those of the one calibrating batch
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 2.0 * module.in_features**-0.5)
        nn.init.zeros_(module.bias)


@torch.no_grad()
def _calibrate(network: nn.Module, images_per_side: int) -> None:
    noise = [torch.randint(256, (images_per_side, 3, side, side), dtype=torch.uint8) for side in SIDES]
    images = torch.cat([F.interpolate(part.float(), size=(299, 299), mode="bilinear") for part in noise])
    network.train()
    network(images.round().to(torch.uint8))
    network.eval()
