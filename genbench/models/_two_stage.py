"""What autoencoders with discrete codes share: images to codes and back, and two ways to train them before a prior.

The first stage turns images into features, features into codes of a finite alphabet, and the vectors of codes back into
images. It is trained on the likelihood of pixels (`LikelyCodes`), or to look right (`JudgedCodes`, Esser et al. 2021,
2012.09841). The second stage learns which codes occur while the first stands still; it is what a paper's file adds.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import DiscreteLatents, GenerativeModel, Loss, Phase
from genbench.models._picture_autoencoder import Critic, Decoder, Encoder, Perceptual, player
from genbench.nn.grid_coder import GridDecoder, GridEncoder
from genbench.nn.multi_scale_quantizer import MultiScaleQuantizer
from genbench.nn.resnet import halved_sides
from genbench.nn.vector_quantizer import VectorQuantizer
from genbench.prob import discretized_logistic as logistic
from genbench.prob.pixels import to_signed, to_uint8

PRIOR_EMA_DECAY = 0.99
"""Of the weights of a second stage."""
ADVERSARIAL_BETAS, PRIOR_BETAS = (0.5, 0.9), (0.9, 0.95)
"""Of Adam, in the phase with a discriminator and in the second stage."""


class Quantizer(Protocol):
    """What stands between encoder and decoder."""

    def nearest(self, features: Tensor, /) -> Tensor:
        """Codes of features (B, F, s, s): int64."""

    def embed(self, codes: Tensor, /) -> Tensor:
        """Vectors of codes: (B, D, s, s)."""


class TwoStage(GenerativeModel, DiscreteLatents):
    """Images of integers to codes on a grid of `code_side` and back.

    Args:
        spec: of the data.
        num_halvings: from the image to the grid.

    Raises:
        ValueError: the data are no images of integers.
    """

    encoder: nn.Module
    quantizer: Quantizer

    def __init__(self, spec: DataSpec, *, num_halvings: int) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            name = type(self).__module__.rpartition(".")[2]
            raise ValueError(f"`{name}` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.levels = spec.levels
        self.code_side = halved_sides(spec.shape[1], num_halvings)[-1]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes of images: (B, ...) int64, 0 .. num_codes-1."""
        return self.quantizer.nearest(self._features(x))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images of the codes of images: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.encoder(to_signed(x, self.levels))
        return features


class LikelySettings(Protocol):
    """What the `Config` of a paper with a likelihood of pixels must hold; the meaning of each is said there."""

    @property
    def num_halvings(self) -> int:
        """From the image to the grid of codes."""

    @property
    def width(self) -> int:
        """Channels of every grid."""

    @property
    def num_blocks(self) -> int:
        """Residual blocks on each grid."""

    @property
    def num_mixtures(self) -> int:
        """Logistic components of each pixel."""

    @property
    def prior_share(self) -> float:
        """Of the samples seen, for the second stage."""

    @property
    def learning_rate(self) -> float:
        """Of the first stage."""

    @property
    def prior_learning_rate(self) -> float:
        """Of the second."""


class LikelyCodes(TwoStage):
    """Codes with p(x|codes), a mixture of discretised logistics for every pixel, of scales that all pixels share.

    Phases `codes` and `prior` follow each other, with players of these names; the second is the attribute `prior`.

    Args:
        spec: of the data.
        config: settings.
        num_features: of each place, which the encoder gives.
        code_dim: of the vectors that the decoder takes.
    """

    quantizer: Quantizer
    prior: nn.Module
    coder_batch, prior_batch = 32, 64

    def __init__(self, spec: DataSpec, config: LikelySettings, *, num_features: int, code_dim: int) -> None:
        super().__init__(spec, num_halvings=config.num_halvings)
        self.config = config
        num_channels, side, _ = spec.shape
        self.encoder = GridEncoder(
            num_channels,
            width=config.width,
            num_blocks=config.num_blocks,
            num_halvings=config.num_halvings,
            code_dim=num_features,
        )
        self.quantizer = self.make_quantizer()
        self.decoder = GridDecoder(
            code_dim,
            width=config.width,
            num_outputs=logistic.num_parameters(config.num_mixtures, num_channels),
            side=side,
            num_blocks=config.num_blocks,
            num_halvings=config.num_halvings,
            initial_scale=logistic.initial_scale(config.num_mixtures, num_channels),
        )

    @abstractmethod
    def make_quantizer(self) -> Quantizer:
        """A new quantiser, a module."""

    def phases(self) -> tuple[Phase, ...]:
        """Codes first, then a prior over codes that no longer move."""
        c = self.config
        first = [module for module in (self.encoder, self.quantizer, self.decoder) if isinstance(module, nn.Module)]
        codes = player("codes", *first, lr=c.learning_rate)
        prior = player("prior", self.prior, lr=c.prior_learning_rate, ema_decay=PRIOR_EMA_DECAY)
        return (
            Phase(name="codes", share=1.0 - c.prior_share, players=(codes,), batch_size=self.coder_batch),
            Phase(name="prior", share=c.prior_share, players=(prior,), batch_size=self.prior_batch),
        )

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Mean images of codes: (B, C, H, W) uint8."""
        return logistic.mixture_mean(self._mixture(self.quantizer.embed(codes)), levels=self.levels)

    def _log_prob_given(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Log p(x|codes) for vectors of codes (B, D, s, s): (B,), nats."""
        return logistic.mixture_log_prob(x, self._mixture(vectors), levels=self.levels).sum((1, 2))

    def _mixture(self, vectors: Tensor) -> logistic.Mixture:
        """p(x|codes) for every pixel."""
        return logistic.split_mixture(*self.decoder(vectors))


class JudgedSettings(Protocol):
    """What the `Config` of a paper with a judged autoencoder must hold; the meaning of each is said there."""

    @property
    def code_dim(self) -> int:
        """Length of a code vector."""

    @property
    def num_halvings(self) -> int:
        """From the image to the grid of codes."""

    @property
    def width(self) -> int:
        """Channels of every grid."""

    @property
    def num_blocks(self) -> int:
        """Residual blocks on each grid."""

    @property
    def commitment(self) -> float:
        """Weight of the encoder's distance to its codes."""

    @property
    def perceptual(self) -> Perceptual:
        """Which perceptual distance."""

    @property
    def perceptual_weight(self) -> float:
        """Of it."""

    @property
    def adversarial_weight(self) -> float:
        """Of the adversarial gradient in units of the other's."""

    @property
    def discriminator_width(self) -> int:
        """Channels of its first layer."""

    @property
    def adversarial_share(self) -> float:
        """Of the samples seen, with a discriminator."""

    @property
    def prior_share(self) -> float:
        """Of the samples seen, for the second stage."""

    @property
    def learning_rate(self) -> float:
        """Of the first phase."""

    @property
    def adversarial_learning_rate(self) -> float:
        """Of the second."""

    @property
    def prior_learning_rate(self) -> float:
        """Of the last."""

    @property
    def batch_size(self) -> int:
        """Of the first stage; the second takes twice as many."""


class JudgedCodes(TwoStage):
    """Codes of an autoencoder that is trained to look right.

    Phases `reconstruction` (player `autoencoder`), `adversarial` (`generator` and `discriminator`) and `prior` follow
    each other.

    Args:
        spec: of the data.
        config: settings.
    """

    quantizer: VectorQuantizer | MultiScaleQuantizer

    def __init__(self, spec: DataSpec, config: JudgedSettings) -> None:
        super().__init__(spec, num_halvings=config.num_halvings)
        self.config = config
        num_channels, side, _ = spec.shape
        sizes = {"width": config.width, "num_blocks": config.num_blocks, "num_halvings": config.num_halvings}
        self.encoder = Encoder(num_channels, num_outputs=config.code_dim, **sizes)
        self.quantizer = self.make_quantizer()
        self.decoder = Decoder(config.code_dim, num_channels, side, **sizes)
        self.critic = Critic(
            num_channels,
            side,
            width=config.discriminator_width,
            perceptual=config.perceptual,
            perceptual_weight=config.perceptual_weight,
            adversarial_weight=config.adversarial_weight,
        )

    @abstractmethod
    def make_quantizer(self) -> VectorQuantizer | MultiScaleQuantizer:
        """A new quantiser."""

    @property
    @abstractmethod
    def second_stage(self) -> tuple[nn.Module, ...]:
        """What the last phase trains."""

    @abstractmethod
    def prior_loss(self, batch: Batch) -> Loss:
        """Loss of the last phase."""

    def phases(self) -> tuple[Phase, ...]:
        """Reconstruction, then with a discriminator, then a prior over codes that no longer move."""
        c = self.config
        modules = (self.encoder, self.quantizer, self.decoder)
        first = player("autoencoder", *modules, lr=c.learning_rate)
        second = player("generator", *modules, lr=c.adversarial_learning_rate, betas=ADVERSARIAL_BETAS)
        judge = player("discriminator", self.critic, lr=c.adversarial_learning_rate, betas=ADVERSARIAL_BETAS)
        prior = player(
            "prior", *self.second_stage, lr=c.prior_learning_rate, betas=PRIOR_BETAS, ema_decay=PRIOR_EMA_DECAY
        )
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
        """Loss of `autoencoder` or `generator`, of `discriminator`, or of `prior`."""
        if player == "prior":
            return self.prior_loss(batch)
        if player == "discriminator":
            return self._discriminator_loss(batch.x)
        return self._autoencoder_loss(batch.x, adversarial=player == "generator")

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Images of codes: (B, C, H, W) uint8."""
        return to_uint8(self.decoder(self.quantizer.embed(codes)), self.levels)

    def _autoencoder_loss(self, x: Tensor, *, adversarial: bool) -> Loss:
        real, features = to_signed(x, self.levels), self._features(x)
        quantised = self.quantizer(features)
        self.quantizer.update(features, quantised.codes)
        fake = self.decoder(quantised.values)
        total, parts = self.critic(real, fake, last_weight=self.decoder.last_weight, adversarial=adversarial)
        total = total + self.config.commitment * quantised.commitment + quantised.attraction
        parts = {name: part.detach() for name, part in (parts | {"commitment": quantised.commitment}).items()}
        return Loss(total, {**parts, "perplexity": self.quantizer.perplexity()})

    def _discriminator_loss(self, x: Tensor) -> Loss:
        """Hinge between real and rebuilt patches; the autoencoder is a constant of it."""
        real = to_signed(x, self.levels)
        with torch.no_grad():
            fake = self.decoder(self.quantizer(self._features(x)).values)
        return self.critic.discriminator_loss(real, fake)
