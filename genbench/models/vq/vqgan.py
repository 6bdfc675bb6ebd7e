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
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import DiscreteLatents, GenerativeModel, Loss, Phase, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Share, Whole
from genbench.models._picture_autoencoder import Critic, Decoder, Encoder, Perceptual, player
from genbench.nn.causal_transformer import CausalTransformer
from genbench.nn.resnet import halved_sides
from genbench.nn.vector_quantizer import Codebook, Gradient, VectorQuantizer
from genbench.prob.pixels import to_signed, to_uint8

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("vqgan")
class VQGAN(GenerativeModel, DiscreteLatents):
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

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`vqgan` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.config, self.levels = config, spec.levels
        num_channels, side, _ = spec.shape
        self.code_side = halved_sides(side, config.num_halvings)[-1]
        sizes = {"width": config.width, "num_blocks": config.num_blocks, "num_halvings": config.num_halvings}
        self.encoder = Encoder(num_channels, num_outputs=config.code_dim, **sizes)
        self.quantizer = VectorQuantizer(
            config.num_codes,
            config.code_dim,
            decay=config.decay,
            revival_share=config.revival_share,
            codebook=config.codebook,
            gradient=config.gradient,
        )
        self.decoder = Decoder(config.code_dim, num_channels, side, **sizes)
        self.critic = Critic(
            num_channels,
            side,
            width=config.discriminator_width,
            perceptual=config.perceptual,
            perceptual_weight=config.perceptual_weight,
            adversarial_weight=config.adversarial_weight,
        )
        self.prior = CausalTransformer(
            num_levels=config.num_codes,
            length=self.code_side**2,
            width=config.prior_width,
            num_layers=config.prior_layers,
            num_heads=config.prior_heads,
            dropout=config.prior_dropout,
        )

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.config.num_codes

    def phases(self) -> tuple[Phase, ...]:
        """Reconstruction, then with a discriminator, then a prior over codes that no longer move."""
        c = self.config
        modules = (self.encoder, self.quantizer, self.decoder)
        first = player("autoencoder", *modules, lr=c.learning_rate)
        second = player("generator", *modules, lr=c.adversarial_learning_rate, betas=(0.5, 0.9))
        judge = player("discriminator", self.critic, lr=c.adversarial_learning_rate, betas=(0.5, 0.9))
        prior = player("prior", self.prior, lr=c.prior_learning_rate, betas=(0.9, 0.95), ema_decay=0.99)
        rest = 1.0 - c.adversarial_share - c.prior_share
        return (
            Phase(name="reconstruction", share=rest, players=(first,), batch_size=c.batch_size),
            Phase(name="adversarial", share=c.adversarial_share, players=(second, judge), batch_size=c.batch_size),
            Phase(name="prior", share=c.prior_share, players=(prior,), batch_size=2 * c.batch_size),
        )

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Start the codebook from k-means on the untrained encoder's features, and find what judges pictures.

        Raises:
            DataError: the weights of LPIPS are not there.
        """
        self.critic.prepare(batch.x.device)
        self.quantizer.fit(self._features(batch.x))

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `autoencoder` or `generator`, of `discriminator`, or of `prior` in nats per code."""
        if player == "prior":
            return self._prior_loss(batch.x)
        if player == "discriminator":
            return self._discriminator_loss(batch.x)
        return self._autoencoder_loss(batch.x, adversarial=player == "generator")

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw codes from the prior and decode them: (N, C, H, W) uint8."""
        codes = self.prior.sample(num_samples, generator=generator, top_k=self.config.top_k)
        return self.decode(codes.view(num_samples, self.code_side, self.code_side))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes of images: (B, h, w) int64, 0 .. num_codes-1."""
        return self.quantizer.nearest(self._features(x))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Images of codes (B, h, w): (B, C, H, W) uint8."""
        return to_uint8(self.decoder(self.quantizer.embed(codes)), self.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images of the codes of images: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _autoencoder_loss(self, x: Tensor, *, adversarial: bool) -> Loss:
        real, features = to_signed(x, self.levels), self._features(x)
        quantised = self.quantizer(features)
        self.quantizer.update(features, quantised.codes)
        fake = self.decoder(quantised.values)
        total, parts = self.critic(real, fake, last_weight=self.decoder.last_weight, adversarial=adversarial)
        total = total + self.config.commitment * quantised.commitment
        if self.config.codebook == "gradient":
            total = total + quantised.attraction
        parts = {name: part.detach() for name, part in (parts | {"commitment": quantised.commitment}).items()}
        return Loss(total, {**parts, "perplexity": self.quantizer.perplexity()})

    def _discriminator_loss(self, x: Tensor) -> Loss:
        """Hinge between real and rebuilt patches; the autoencoder is a constant of it."""
        real = to_signed(x, self.levels)
        with torch.no_grad():
            fake = self.decoder(self.quantizer(self._features(x)).values)
        return self.critic.discriminator_loss(real, fake)

    def _prior_loss(self, x: Tensor) -> Loss:
        codes = self.encode(x).flatten(1)
        per_code = -self.prior.log_prob(codes).mean() / codes.shape[1]
        return Loss(per_code, {"nats_per_code": per_code.detach()})

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.encoder(to_signed(x, self.levels))
        return features
