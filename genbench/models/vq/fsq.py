"""FSQ: an autoencoder whose features are rounded to a few levels, and an autoregressive prior over the codes.

Finite Scalar Quantization: VQ-VAE Made Simple. Fabian Mentzer, David Minnen, Eirikur Agustsson and Michael Tschannen,
2023, 2309.15505.

An encoder turns an image into a grid of short features; each of their channels is squashed and rounded to one of a few
levels, and a decoder rebuilds the image. The levels of all channels together number a code, so that there is no
codebook to learn, to collapse or to restart, and no loss but the reconstruction's; a prior then learns which grids of
codes occur, as for a VQ-VAE.

Symbols: x image, z features, d their channels, L_i levels of channel i, K = prod L_i, q whole numbers, v values of q in
[-1, 1], c grid of codes.

- Phase `codes`:  -log p(x|v), with v = round(bounded(z)) / floor(L/2) of `genbench.nn.finite_scalar_quantizer`; the
  gradient passes the rounding as if there were none.
- Phase `prior`:  -log p(c) with encoder and decoder frozen; codes are computed on the fly.
- Likelihood: q(c|x) is a point, so log p(x) >= log p(x|c) + log p(c) at the encoder's own c.

**Departures**: a mixture of discretised logistics as decoder, with scales learned but shared by all pixels, so
that the bound is one on stored integers (the paper adds perceptual and adversarial losses); small residual towers with
pixel-unshuffle; a gated PixelCNN as prior, as `vqvae` has it, in place of a masked transformer, so that two quantisers
differ in nothing else; the shift of even channels, see the quantiser. Levels are 3 or more: the paper advises 5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import LikelihoodBound, Loss, register_model
from genbench.core.ranges import Count, OpenShare, Positive
from genbench.models._two_stage import LikelyCodes
from genbench.nn.finite_scalar_quantizer import FiniteScalarQuantizer
from genbench.nn.gated_pixelcnn import GatedPixelCNNStack
from genbench.prob import discretized_logistic as logistic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("fsq")
class FSQ(LikelyCodes, LikelihoodBound):
    """An autoencoder with finite scalar quantisation."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        levels: str = "8x6x5"
        """Levels of each channel, joined by `x`; their product is the number of codes, K."""
        num_halvings: Count = 2
        """The grid of codes has 2**num_halvings fewer rows than the image."""
        width: Count = 32
        """Channels of every grid of encoder and decoder."""
        num_blocks: Count = 1
        """Residual blocks on each grid of either network."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        prior_width: Count = 64
        prior_layers: Count = 4
        prior_kernel_size: Count = 3
        prior_share: OpenShare = 0.5
        """Share of the samples seen that trains the prior."""
        learning_rate: Positive = 2e-3
        prior_learning_rate: Positive = 2e-3

        def __post_init__(self) -> None:
            if not all(part.isdecimal() for part in self.levels.split("x")):
                raise ValueError(f"`levels` is {self.levels!r}, expected numbers joined by `x`, such as 8x6x5")

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(levels="8x8", prior_width=32, prior_layers=2),
        "small": Config(levels="8x8", prior_share=0.6, prior_learning_rate=6e-3),
        "paper": Config(
            levels="8x5x5x5",
            width=256,
            num_blocks=2,
            num_mixtures=5,
            prior_width=256,
            prior_layers=12,
            prior_kernel_size=5,
            learning_rate=2e-4,
            prior_learning_rate=3e-4,
        ),
    }

    config: Config
    quantizer: FiniteScalarQuantizer
    prior: GatedPixelCNNStack

    def __init__(self, spec: DataSpec, config: Config) -> None:
        channels = len(config.levels.split("x"))
        super().__init__(spec, config, num_features=channels, code_dim=channels)
        self.prior = GatedPixelCNNStack(
            num_channels=1,
            num_levels=self.quantizer.num_codes,
            width=config.prior_width,
            num_layers=config.prior_layers,
            kernel_size=config.prior_kernel_size,
            inputs="categorical",
        )

    def make_quantizer(self) -> FiniteScalarQuantizer:
        """Rounding to the levels of the settings."""
        return FiniteScalarQuantizer([int(part) for part in self.config.levels.split("x")])

    @property
    def num_codes(self) -> int:
        """Number of codes, K, the product of the levels."""
        return self.quantizer.num_codes

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `codes`, nats per dimension, or of `prior`, nats per code."""
        return self._prior_loss(batch.x) if player == "prior" else self._codes_loss(batch.x)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw codes from the prior, then pixels given the codes: (N, C, H, W) uint8."""
        codes = self.prior.sample(num_samples, self.code_side, self.code_side, generator=generator).squeeze(1)
        return logistic.mixture_sample(
            self._mixture(self.quantizer.embed(codes)), levels=self.levels, generator=generator
        )

    usual_estimator: ClassVar[str] = "bound at the encoder's codes, no draw"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Bound log p(x|c) + log p(c) at the encoder's codes: (B,), nats per example; draws nothing."""
        codes = self.encode(x)
        return self._log_prob_given(x, self.quantizer.embed(codes)) + self.prior.log_prob(codes.unsqueeze(1))

    def _codes_loss(self, x: Tensor) -> Loss:
        rounded = self.quantizer(self._features(x))
        distortion = -self._log_prob_given(x, rounded.values).mean() / self.spec.num_dims
        return Loss(distortion, {"distortion": distortion.detach(), "perplexity": self._perplexity(rounded.codes)})

    def _prior_loss(self, x: Tensor) -> Loss:
        codes = self.encode(x)
        per_code = self.prior.mean_nll(codes.unsqueeze(1)) / codes[0].numel()
        return Loss(per_code, {"nats_per_code": per_code.detach()})

    def _perplexity(self, codes: Tensor) -> Tensor:
        """Exp of the entropy of the codes of one batch: at most K, and at most their number."""
        shares = codes.flatten().bincount(minlength=self.num_codes) / codes.numel()
        return torch.exp(torch.special.entr(shares).sum())
