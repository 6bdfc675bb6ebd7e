"""VQGAN: an autoencoder with discrete codes that is trained to look right, and a transformer over the codes.

Taming Transformers for High-Resolution Image Synthesis. Patrick Esser, Robin Rombach and Bjorn Ommer, 2021, 2012.09841.

A VQ-VAE that counts errors pixel by pixel keeps few codes or blurs. Here a perceptual distance and a discriminator of
patches say what is wrong with a reconstruction, so that a small grid of codes is enough, and a transformer learns which
grids occur.

Symbols: x image, f features E(x), e_k codes, e the nearest of each feature, x^ = G(e) reconstruction, D discriminator
of patches, d perceptual distance, beta weight of the commitment, sg the stop of gradients, s codes in raster order.

- Phase `reconstruction`:  L_rec + ||sg(f) - e||^2 + beta ||sg(e) - f||^2  with  L_rec = |x - x^| + d(x, x^)  (Eq. 4).
- Phase `adversarial`:  the autoencoder adds -lambda E D(x^) with  lambda = w |grad L_rec| / (|grad -E D(x^)| + delta),
  gradients at the last layer of G (Eq. 7); the discriminator minimises a hinge of its logits (Eq. 5).
- Phase `prior`:  -log p(s) = -sum_i log p(s_i | s_<i), Eq. 9's model; encoder, codebook and decoder are frozen.
- Images are G(e) of drawn codes. There is no p(x|e), hence no likelihood of pixels.

**Departures**: the hinge of the authors' code in place of the logarithms of Eq. 5, and its L1 in place of the squared
distance of Eq. 4; its cap of lambda. The second phase starts the optimiser anew. Encoder and decoder are the residual
towers of `genbench.nn.resnet`, of one width, with attention on the grid of codes; the codebook starts from k-means on
the first batch and codes without followers restart, as in `vqvae`. `smoke` and `small` need no published weights: their
perceptual distance is the mean L1 distance of the discriminator's own activations (after Larsen et al. 2016,
1512.09300; untrained ones in the first phase), where `paper` has LPIPS; their codebook follows running means. The
sliding window for images larger than a sequence (Sec. 3.2) is not there: a sequence holds the whole grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Share, Whole
from genbench.models._picture_autoencoder import Perceptual
from genbench.models._two_stage import JudgedCodes
from genbench.nn.causal_transformer import CausalTransformer
from genbench.nn.vector_quantizer import Codebook, Gradient, VectorQuantizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("vqgan")
class VQGAN(JudgedCodes):
    """A vector-quantised autoencoder with perceptual and adversarial losses."""

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
        perceptual: Perceptual = "discriminator"
        """Distance d: of the discriminator's activations, or `lpips`, whose weights must be at hand."""
        perceptual_weight: NonNegative = 1.0
        """Of d beside the distance of pixels."""
        adversarial_weight: NonNegative = 0.8
        """w, of the adversarial gradient in units of the other's; 0 trains without a discriminator's verdict."""
        discriminator_width: Count = 32
        """Channels of its first layer."""
        adversarial_share: OpenShare = 0.25
        """Share of the samples seen that trains autoencoder and discriminator together."""
        prior_width: Count = 64
        prior_layers: Count = 4
        prior_heads: Count = 4
        prior_dropout: Fraction = 0.0
        prior_share: OpenShare = 0.5
        """Share of the samples seen that trains the transformer."""
        top_k: Whole = 0
        """Codes are drawn among the most probable ones; 0 draws among all."""
        learning_rate: Positive = 2e-3
        adversarial_learning_rate: Positive = 5e-4
        """Of autoencoder and discriminator in the second phase."""
        prior_learning_rate: Positive = 2e-3
        batch_size: Count = 32

        def __post_init__(self) -> None:
            if self.adversarial_share + self.prior_share >= 1.0:
                raise ValueError("`adversarial_share` and `prior_share` leave nothing to the first phase")

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(
            num_codes=64,
            decay=0.95,
            discriminator_width=16,
            prior_width=32,
            prior_layers=2,
            adversarial_learning_rate=2e-3,
        ),
        "small": Config(),
        "paper": Config(
            num_codes=1024,
            code_dim=256,
            num_halvings=4,
            width=256,
            num_blocks=2,
            codebook="gradient",
            perceptual="lpips",
            discriminator_width=64,
            adversarial_share=0.35,
            prior_width=1024,
            prior_layers=24,
            prior_heads=16,
            top_k=100,
            learning_rate=5.4e-5,
            adversarial_learning_rate=5.4e-5,
            prior_learning_rate=5.4e-5,
            batch_size=12,
        ),
    }

    config: Config
    quantizer: VectorQuantizer

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.prior = CausalTransformer(
            num_levels=config.num_codes,
            length=self.code_side**2,
            width=config.prior_width,
            num_layers=config.prior_layers,
            num_heads=config.prior_heads,
            dropout=config.prior_dropout,
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

    @property
    def second_stage(self) -> tuple[nn.Module, ...]:
        """The transformer."""
        return (self.prior,)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw codes from the prior and decode them: (N, C, H, W) uint8."""
        codes = self.prior.sample(num_samples, generator=generator, top_k=self.config.top_k)
        return self.decode(codes.view(num_samples, self.code_side, self.code_side))

    def prior_loss(self, batch: Batch) -> Loss:
        """Nats per code; encoder, codebook and decoder are frozen."""
        codes = self.encode(batch.x).flatten(1)
        per_code = -self.prior.log_prob(codes).mean() / codes.shape[1]
        return Loss(per_code, {"nats_per_code": per_code.detach()})
