"""Small convolutional network that reads the factors of `tones`: features of sounds and ground truth offline.

Trained by `genbench features train tones_net` on the dataset `tones` at 512, 1024, 2048 and 4096 samples to
name every factor, to be unsure of sounds that are none of its kind (outlier exposure, Hendrycks et al. 2019,
arXiv:1812.04606), and to tell how badly a sound is damaged, so that damage is far from real data in feature space. It
looks at the logarithm of a spectrogram, frequencies as channels, over time. The features are the 64 activations
before the last layer, scaled to variance 1 in the mean over features of real notes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import DataKind, Factor
from genbench.core.features import FactorPredictions, FactorReader, FeatureExtractor, register_features
from genbench.core.spec import Scalar
from genbench.features._factor_reading import described, predictions
from genbench.prob import mu_law

SHIPPED = Path(__file__).parent / "weights" / "tones_net.safetensors"
SAMPLE_RATE = 8_000
"""Samples a second of what the network was trained on; it cannot see the rate of what it is given."""
WINDOW = 512
"""Samples behind one column of the spectrogram, 64 ms, weighted by a Hann window."""
HOP = 128
LEAST_MAGNITUDE = 1e-5
"""Of a partial over that of a sine at full scale; what is softer counts as this soft."""
NUM_FEATURES = 64
WIDTH = 96
NUM_GROUPS = 4
"""Of features that are normalised together; no statistics of other sounds play a part."""
STRETCHES = 4
"""Parts of equal length into which a sound is cut, so that an attack and a decay look different."""


class TonesNetwork(nn.Module):
    """Three convolutions over time, a linear layer that keeps beginning and end apart, and one linear reader.

    Args:
        num_values: number of values of each factor.
    """

    amplitudes: Tensor
    window: Tensor

    def __init__(self, num_values: tuple[int, ...]) -> None:
        super().__init__()
        self.num_values = num_values
        table = torch.from_numpy(mu_law.decode(np.arange(256))).float()
        self.register_buffer("amplitudes", table, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.convolutions = nn.Sequential(
            *_convolution(WINDOW // 2 + 1, WIDTH),
            *_convolution(WIDTH, WIDTH),
            *_convolution(WIDTH, WIDTH),
        )
        self.features = nn.Linear(WIDTH * STRETCHES, NUM_FEATURES)
        self.reader = nn.Linear(NUM_FEATURES, sum(num_values))

    def forward(self, codes: Tensor) -> Tensor:
        """Features of mu-law codes (N, 1, T) with values 0 .. 255: (N, 64), none negative."""
        hidden = self.convolutions(self.spectrogram(codes))
        return F.relu(self.features(F.adaptive_avg_pool1d(hidden, STRETCHES).flatten(1)))

    def spectrogram(self, codes: Tensor) -> Tensor:
        """Log-magnitudes (N, WINDOW // 2 + 1, columns), -1 for silence and 1 for a sine at full scale."""
        sound = F.pad(self.amplitudes[codes[:, 0].long()], (WINDOW // 2, WINDOW // 2))
        frames = sound.unfold(1, WINDOW, HOP) * self.window  # (N, columns, WINDOW)
        magnitude = torch.fft.rfft(frames, dim=2).abs() / (0.5 * self.window.sum())
        share = magnitude.clamp_min(LEAST_MAGNITUDE).log10() / math.log10(LEAST_MAGNITUDE)  # 1 for silence
        columns: Tensor = (1.0 - 2.0 * share).transpose(1, 2)
        return columns

    def logits(self, features: Tensor) -> tuple[Tensor, ...]:
        """Unnormalised log-probabilities of the values of each factor: (N, number of values) each."""
        together: Tensor = self.reader(features)
        return torch.split_with_sizes(together, list(self.num_values), dim=1)


def _convolution(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv1d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(NUM_GROUPS, out_channels),
        nn.ReLU(),
    )


@register_features("tones_net")
class TonesNet(FeatureExtractor, FactorReader):
    """The trained network, frozen.

    Raises:
        DataError: weights or their description are missing or do not belong together.
    """

    kind: ClassVar[DataKind] = "waveform"
    source: ClassVar[str] = "trained by `genbench features train tones_net` on `tones`; ships with genbench"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Which weights."""

        weights: str = ""
        """Path of a safetensors file with its JSON beside it; empty for the shipped one."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        given = "" if config is None else config.weights
        path = Path(given).expanduser() if given else SHIPPED
        self._factors, self._sha256 = described(path, owner="tones_net")
        self.network = TonesNetwork(tuple(len(factor.values) for factor in self._factors))
        self.network.load_state_dict(load_file(path))
        self.eval().requires_grad_(False)

    @property
    def num_features(self) -> int:
        """64."""
        return NUM_FEATURES

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Factors of `tones`."""
        return self._factors

    def protocol(self) -> dict[str, Scalar]:
        """Extractor, digest of its weights, sample rate and precision."""
        return {
            "extractor": "tones_net",
            "sha256": self._sha256[:16],
            "resize": "none",
            "sample_rate": SAMPLE_RATE,
            "dtype": "float32",
        }

    def forward(self, images: Tensor) -> Tensor:
        """Features of waveforms (N, 1, T), mu-law codes at 8 kHz: (N, 64) float32, none negative."""
        features: Tensor = self.network(images)
        return features

    @torch.no_grad()
    def read_factors(self, images: Tensor) -> FactorPredictions:
        """Factors of waveforms (N, 1, T), mu-law codes at 8 kHz."""
        return predictions(self.network.logits(self(images)), self.factors)
