"""VQ-VAE: an autoencoder with discrete codes, and an autoregressive prior over them.

Neural Discrete Representation Learning. Aaron van den Oord, Oriol Vinyals and Koray Kavukcuoglu, 2017,
1711.00937.

An encoder turns an image into a grid of features, each replaced by its nearest vector of a codebook, from
which a decoder rebuilds the image; once codes stand still, a gated PixelCNN learns which grids of codes
occur, and drawing from it and decoding draws images.

Symbols: x image, f features z_e(x), e_k codes, z grid of the nearest codes' numbers, beta weight of the commitment,
sg the stop of gradients.

- Phase `codes` (Eq. 3):  -log p(x|e_z) + beta ||f - sg(e_z)||^2; the gradient at e_z is copied to f. The codebook
  follows running means (Appendix A.1); with `codebook=gradient` the middle term of Eq. 3, ||sg(f) - e_z||^2, moves it.
- Phase `prior`:  -log p(z) with encoder, codebook and decoder frozen; codes are computed on the fly.
- Likelihood: q(z|x) is a point, so log p(x) >= log p(x|z) + log p(z) at the encoder's own z.

**Departures**: a mixture of discretised logistics as decoder, with scales learned but shared by all pixels, so
that the bound is one on stored integers; pixel-unshuffle in place of strided convolutions; k-means on the first
batch starts the codebook, and codes without followers restart at features of the batch. Weights are not
averaged in the first phase: an averaged encoder would no longer fit the codebook. With `gradient=rotation` the
gradient at e_z is turned and scaled on its way to f (Fifty et al., 2024, 2410.06424); this is not in the paper.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import LikelihoodBound, Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Share
from genbench.models._two_stage import LikelyCodes
from genbench.nn.gated_pixelcnn import GatedPixelCNNStack
from genbench.nn.vector_quantizer import Codebook, Gradient, VectorQuantizer
from genbench.prob import discretized_logistic as logistic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("vqvae")
class VQVAE(LikelyCodes, LikelihoodBound):
    """The vector-quantised variational autoencoder."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        num_codes: Count = 128
        """Size of the codebook, K."""
        code_dim: Count = 16
        """Length of a code vector, D."""
        num_halvings: Count = 2
        """The grid of codes has 2**num_halvings fewer rows than the image."""
        width: Count = 32
        """Channels of every grid of encoder and decoder."""
        num_blocks: Count = 1
        """Residual blocks on each grid of either network."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        codebook: Codebook = "ema"
        """`ema`: codes follow running means of their features; `gradient`: the optimiser pulls them there."""
        gradient: Gradient = "straight_through"
        """How the decoder's gradient passes the quantiser: as it is, or by the `rotation` from feature to code."""
        commitment: NonNegative = 0.25
        """Weight beta of the encoder's distance to its codes."""
        decay: Fraction = 0.99
        """Of the codebook's running means, or of the counts that tell which codes are dead."""
        revival_share: Share = 0.05
        """A code chosen less often than this share of the mean is restarted; 0 lets codes die."""
        prior_width: Count = 64
        prior_layers: Count = 4
        prior_kernel_size: Count = 3
        prior_share: OpenShare = 0.5
        """Share of the samples seen that trains the prior."""
        learning_rate: Positive = 2e-3
        prior_learning_rate: Positive = 2e-3

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(num_codes=64, width=32, prior_width=32, prior_layers=2, learning_rate=2e-3, decay=0.95),
        "small": Config(),
        "paper": Config(
            num_codes=512,
            code_dim=64,
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
    quantizer: VectorQuantizer
    prior: GatedPixelCNNStack

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config, num_features=config.code_dim, code_dim=config.code_dim)
        self.prior = GatedPixelCNNStack(
            num_channels=1,
            num_levels=config.num_codes,
            width=config.prior_width,
            num_layers=config.prior_layers,
            kernel_size=config.prior_kernel_size,
            inputs="categorical",
        )

    def make_quantizer(self) -> VectorQuantizer:
        """One codebook."""
        c = self.config
        return VectorQuantizer(
            c.num_codes,
            c.code_dim,
            decay=c.decay,
            revival_share=c.revival_share,
            codebook=c.codebook,
            gradient=c.gradient,
        )

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.config.num_codes

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Start the codebook from k-means on the untrained encoder's features."""
        self.quantizer.fit(self._features(batch.x))

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `codes`, nats per dimension with the commitment, or of `prior`, nats per code."""
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
        """Bound log p(x|z) + log p(z) at the encoder's codes: (B,), nats per example; draws nothing."""
        codes = self.encode(x)
        return self._log_prob_given(x, self.quantizer.embed(codes)) + self.prior.log_prob(codes.unsqueeze(1))

    def _codes_loss(self, x: Tensor) -> Loss:
        features = self._features(x)
        quantised = self.quantizer(features)
        self.quantizer.update(features, quantised.codes)
        distortion = -self._log_prob_given(x, quantised.values).mean() / self.spec.num_dims
        parts = {
            "distortion": distortion.detach(),
            "commitment": quantised.commitment.detach(),
            "perplexity": self.quantizer.perplexity(),
        }
        pull = self.config.commitment * quantised.commitment
        if self.config.codebook == "gradient":
            pull = pull + quantised.attraction
        return Loss(distortion + pull, parts)

    def _prior_loss(self, x: Tensor) -> Loss:
        codes = self.encode(x)
        per_code = self.prior.mean_nll(codes.unsqueeze(1)) / codes[0].numel()
        return Loss(per_code, {"nats_per_code": per_code.detach()})
