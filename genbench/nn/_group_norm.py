"""Group normalisation with a number of groups that suits narrow networks too."""

from __future__ import annotations

import math

from torch import nn


def group_norm(channels: int, *, max_groups: int = 32, min_channels: int = 4) -> nn.GroupNorm:
    """Group norm of as many groups as divide `channels` evenly, each of at least `min_channels` channels.

    At 128 channels and their multiples these are the 32 groups of Wu and He (2018); narrow networks get fewer.
    """
    tiles = channels % min_channels == 0
    return nn.GroupNorm(math.gcd(max_groups, channels // min_channels) if tiles else 1, channels)
