"""VQ-VAE-2: two grids of discrete codes, one coarse and one fine, with an autoregressive prior over each.

Generating Diverse High-Fidelity Images with VQ-VAE-2. Ali Razavi, Aaron van den Oord and Oriol Vinyals, 2019,
1906.00446.

A coarse grid of codes holds what the whole image looks like; a fine grid, computed from image and coarse codes,
holds the detail that is left; a decoder rebuilds the image from both. Once codes stand still, one PixelCNN learns which
coarse grids occur and another which fine grids go with a coarse one.

Symbols: x image, h_b features of x on the fine ("bottom") grid, f_t and f_b features before quantisation, z_t and z_b
the codes of the two grids, e_t and e_b their vectors, K_t and K_b the sizes of the codebooks, beta weight of the
commitment, sg the stop of gradients.

- Encoding (Algorithm 1):  f_t = E_t(h_b);  e_t = nearest(f_t);  f_b = E_b(h_b, e_t);  e_b = nearest(f_b).
- Phase `autoencoder` (Eq. 2):  -log p(x|e_t, e_b) + beta (||f_t - sg(e_t)||^2 + ||f_b - sg(e_b)||^2); codebooks follow
  running means.
- Phases `top_prior`, `bottom_prior` (Algorithm 2):  -log p(z_t)  and  -log p(z_b|z_t), with all the rest frozen; codes
  are computed on the fly. The bottom prior reads e_t, brought to the fine grid, at every layer.
- Likelihood: q(z_t, z_b|x) is a point, so log p(x) >= log p(x|z_t, z_b) + log p(z_t) + log p(z_b|z_t) at the encoder's
  own codes. The product of the three is the joint of image and codes, not p(x).

Codes are one row for each image: first the coarse grid, then the fine one, each row after row. Both share one
alphabet, in which the K_t coarse codes come first and fine code k is K_t + k; `codebook_usage` and its perplexity are
of this alphabet: both books count as one of K_t + K_b entries, in which fine codes fill most positions.

**Departures**: a mixture of discretised logistics as decoder, with scales learned but shared by all pixels, so that the
bound is one on stored integers; pixel-unshuffle in place of strided convolutions; k-means on the first batch starts the
codebooks, and codes without followers restart at features of the batch; gated PixelCNNs without the attention and the
dropout of the paper's; no labels, so no rejection of samples by a classifier. `small` and `paper` have the paper's
grids of a quarter and an eighth of the side, `smoke` a half and a quarter. Weights are not averaged in the first phase:
an averaged encoder would no longer fit the codebooks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    DiscreteLatents,
    GenerativeModel,
    LikelihoodBound,
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Share
from genbench.nn.conditional_pixelcnn import ConditionalPixelCNN
from genbench.nn.gated_pixelcnn import GatedPixelCNNStack
from genbench.nn.grid_coder import GridDecoder, GridEncoder, GridRise
from genbench.nn.resnet import DownTower, halved_sides
from genbench.nn.vector_quantizer import Codebook, Gradient, Quantised, VectorQuantizer
from genbench.prob import discretized_logistic as logistic
from genbench.prob.pixels import to_signed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Grids(NamedTuple):
    """Something of either grid: codes or quantised features."""

    top: Tensor
    bottom: Tensor


class Autoencoder(nn.Module):
    """Algorithm 1: both encoders, both codebooks and the decoder.

    Args:
        spec: of the images.
        config: sizes.
    """

    def __init__(self, spec: DataSpec, config: VQVAE2.Config) -> None:
        super().__init__()
        num_channels, side, _ = spec.shape
        width, num_blocks, code_dim = config.width, config.num_blocks, config.code_dim
        bottom_side = halved_sides(side, config.bottom_halvings)[-1]
        self.encoder = DownTower(num_channels, width, num_halvings=config.bottom_halvings, num_blocks=num_blocks)
        self.top_encoder = GridEncoder(
            width, width=width, num_blocks=num_blocks, num_halvings=config.top_halvings, code_dim=code_dim
        )
        self.top_quantizer = _quantizer(config.num_top_codes, config)
        self.rise = GridRise(code_dim, width, bottom_side, num_halvings=config.top_halvings, num_blocks=num_blocks)
        self.bottom_head = nn.Conv2d(2 * width, code_dim, 1)
        self.bottom_quantizer = _quantizer(config.num_bottom_codes, config)
        self.decoder_rise = GridRise(
            code_dim, width, bottom_side, num_halvings=config.top_halvings, num_blocks=num_blocks
        )
        self.decoder = GridDecoder(
            code_dim + width,
            width=width,
            num_outputs=logistic.num_parameters(config.num_mixtures, num_channels),
            side=side,
            num_blocks=num_blocks,
            num_halvings=config.bottom_halvings,
            initial_scale=logistic.initial_scale(config.num_mixtures, num_channels),
        )

    def bottom_features(self, h: Tensor, top_vectors: Tensor) -> Tensor:
        """f_b of features h_b of images and the vectors e_t of their coarse codes: (B, D, h, w), float32."""
        features: Tensor = self.bottom_head(torch.cat([h, self.rise(top_vectors)], dim=1))
        return features.float()

    def encode(self, x: Tensor) -> Grids:
        """Codes z_t (B, h', w') and z_b (B, h, w) of images in [-1, 1]."""
        h = self.encoder(x)
        top = self.top_quantizer.nearest(self.top_encoder(h))
        return Grids(top, self.bottom_quantizer.nearest(self.bottom_features(h, self.top_quantizer.embed(top))))

    def quantise(self, x: Tensor) -> tuple[Quantised, Quantised]:
        """Both grids of images in [-1, 1] with all that training needs; the codebooks move towards their features."""
        h = self.encoder(x)
        top_features = self.top_encoder(h)
        top = self.top_quantizer(top_features)
        bottom_features = self.bottom_features(h, top.values)
        bottom = self.bottom_quantizer(bottom_features)
        self.top_quantizer.update(top_features, top.codes)
        self.bottom_quantizer.update(bottom_features, bottom.codes)
        return top, bottom

    def embed(self, codes: Grids) -> Grids:
        """Vectors of codes: (B, D, h', w') and (B, D, h, w)."""
        return Grids(self.top_quantizer.embed(codes.top), self.bottom_quantizer.embed(codes.bottom))

    def forward(self, vectors: Grids) -> logistic.Mixture:
        """p(x|z_t, z_b) for every pixel, of scales shared by all pixels, given e_t and e_b."""
        both = torch.cat([vectors.bottom, self.decoder_rise(vectors.top)], dim=1)
        return logistic.split_mixture(*self.decoder(both))

    def start(self, x: Tensor) -> None:
        """Start the codebooks from k-means on the features of images in [-1, 1], the coarse one first."""
        h = self.encoder(x)
        top_features = self.top_encoder(h)
        self.top_quantizer.fit(top_features)
        top = self.top_quantizer(top_features)
        self.bottom_quantizer.fit(self.bottom_features(h, top.values))


class BottomPrior(nn.Module):
    """p(z_b|z_t): a gated PixelCNN on the fine grid that reads the coarse codes at every layer.

    Args:
        side: of the fine grid.
        config: sizes.
    """

    def __init__(self, side: int, config: VQVAE2.Config) -> None:
        super().__init__()
        width = config.prior_width
        self.rise = GridRise(
            config.code_dim, width, side, num_halvings=config.top_halvings, num_blocks=config.num_blocks
        )
        self.pixels = ConditionalPixelCNN(
            num_levels=config.num_bottom_codes,
            condition_width=width,
            width=width,
            num_layers=config.bottom_prior_layers,
            kernel_size=config.prior_kernel_size,
        )

    def log_prob(self, codes: Tensor, top_vectors: Tensor) -> Tensor:
        """Log p(z_b|z_t) of codes (B, h, w) given vectors (B, D, h', w'): (B,) nats."""
        return self.pixels.log_prob(codes, self.rise(top_vectors))

    def mean_nll(self, codes: Tensor, top_vectors: Tensor) -> Tensor:
        """Minus the mean of `log_prob` over the batch: a scalar in nats."""
        return self.pixels.mean_nll(codes, self.rise(top_vectors))

    def sample(self, top_vectors: Tensor, *, generator: Generator) -> Tensor:
        """Draw a fine grid for each coarse one: (N, h, w) int64."""
        return self.pixels.sample(self.rise(top_vectors), generator=generator)


@register_model("vqvae2")
class VQVAE2(GenerativeModel, LikelihoodBound, DiscreteLatents):
    """A vector-quantised autoencoder with two grids of codes."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        num_top_codes: Count = 128
        """Size of the codebook of the coarse grid, K_t; 1 ablates it: the model is then a VQ-VAE of the fine grid."""
        num_bottom_codes: Count = 128
        """Size of the codebook of the fine grid, K_b."""
        code_dim: Count = 16
        """Length of a code vector of either grid, D."""
        bottom_halvings: Count = 1
        """The fine grid has 2**bottom_halvings fewer rows than the image."""
        top_halvings: Count = 1
        """The coarse grid has 2**top_halvings fewer rows than the fine one."""
        width: Count = 32
        """Channels of every grid of encoders and decoder."""
        num_blocks: Count = 1
        """Residual blocks on each grid of every network."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        codebook: Codebook = "ema"
        """`ema`: codes follow running means of their features; `gradient`: the optimiser pulls them there."""
        gradient: Gradient = "straight_through"
        """How the decoder's gradient passes the quantisers: as it is, or by the `rotation` from feature to code."""
        commitment: NonNegative = 0.25
        """Weight beta of the features' distance to their codes."""
        decay: Fraction = 0.99
        """Of the codebooks' running means, or of the counts that tell which codes are dead."""
        revival_share: Share = 0.05
        """A code chosen less often than this share of the mean is restarted; 0 lets codes die."""
        prior_width: Count = 64
        top_prior_layers: Count = 4
        bottom_prior_layers: Count = 4
        prior_kernel_size: Count = 3
        top_prior_share: OpenShare = 0.2
        """Share of the samples seen that trains the prior of the coarse grid."""
        bottom_prior_share: OpenShare = 0.35
        """Share of the samples seen that trains the prior of the fine grid."""
        learning_rate: Positive = 2e-3
        prior_learning_rate: Positive = 2e-3

        def __post_init__(self) -> None:
            if self.top_prior_share + self.bottom_prior_share >= 1.0:
                raise ValueError("`top_prior_share` and `bottom_prior_share` leave nothing to the autoencoder")

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(
            num_top_codes=32, num_bottom_codes=64, decay=0.95, prior_width=32, top_prior_layers=2, bottom_prior_layers=2
        ),
        "small": Config(bottom_halvings=2),
        "paper": Config(
            num_top_codes=512,
            num_bottom_codes=512,
            code_dim=64,
            bottom_halvings=2,
            width=128,
            num_blocks=2,
            num_mixtures=5,
            prior_width=512,
            top_prior_layers=20,
            bottom_prior_layers=20,
            prior_kernel_size=5,
            learning_rate=3e-4,
            prior_learning_rate=3e-4,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`vqvae2` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.config, self.levels = config, spec.levels
        self.bottom_side = halved_sides(spec.shape[-1], config.bottom_halvings)[-1]
        self.top_side = halved_sides(self.bottom_side, config.top_halvings)[-1]
        self.autoencoder = Autoencoder(spec, config)
        self.top_prior = GatedPixelCNNStack(
            num_channels=1,
            num_levels=config.num_top_codes,
            width=config.prior_width,
            num_layers=config.top_prior_layers,
            kernel_size=config.prior_kernel_size,
            inputs="categorical",
        )
        self.bottom_prior = BottomPrior(self.bottom_side, config)

    @property
    def num_codes(self) -> int:
        """Size of the alphabet of both grids together, K_t + K_b."""
        return self.config.num_top_codes + self.config.num_bottom_codes

    @property
    def books(self) -> tuple[tuple[int, int], ...]:
        """Positions and entries of either codebook, the coarse grid's first."""
        c = self.config
        return (self.top_side**2, c.num_top_codes), (self.bottom_side**2, c.num_bottom_codes)

    def phases(self) -> tuple[Phase, ...]:
        """Codes first, then a prior for either grid of codes that no longer move."""
        c = self.config
        autoencoder = _player("autoencoder", self.autoencoder, lr=c.learning_rate, ema_decay=None)
        top = _player("top_prior", self.top_prior, lr=c.prior_learning_rate, ema_decay=0.99)
        bottom = _player("bottom_prior", self.bottom_prior, lr=c.prior_learning_rate, ema_decay=0.99)
        rest = 1.0 - c.top_prior_share - c.bottom_prior_share
        return (
            Phase(name="autoencoder", share=rest, players=(autoencoder,), batch_size=32),
            Phase(name="top_prior", share=c.top_prior_share, players=(top,), batch_size=64),
            Phase(name="bottom_prior", share=c.bottom_prior_share, players=(bottom,), batch_size=64),
        )

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Start the codebooks from k-means on the untrained encoders' features."""
        self.autoencoder.start(to_signed(batch.x, self.levels))

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `autoencoder`, nats per dimension with the commitments, or of a prior, nats per code."""
        if player == "autoencoder":
            return self._autoencoder_loss(batch.x)
        codes = self._grids(batch.x)
        nll = self._top_nll(codes) if player == "top_prior" else self._bottom_nll(codes)
        return Loss(nll, {"nats_per_code": nll.detach()})

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw coarse codes, fine codes given them, then pixels given both: (N, C, H, W) uint8."""
        vectors = self.autoencoder.embed(self._drawn(num_samples, generator))
        return logistic.mixture_sample(self.autoencoder(vectors), levels=self.levels, generator=generator)

    usual_estimator: ClassVar[str] = "bound at the encoder's codes, no draw"

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Bound log p(x|z_t, z_b) + log p(z_t) + log p(z_b|z_t) at the encoder's codes: (B,), nats; draws nothing."""
        codes = self._grids(x)
        vectors = self.autoencoder.embed(codes)
        log_prior = self.top_prior.log_prob(codes.top.unsqueeze(1)) + self.bottom_prior.log_prob(
            codes.bottom, vectors.top
        )
        return self._log_prob_given(x, vectors) + log_prior

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Codes of images: (B, h' w' + h w) int64, the coarse grid's first, 0 .. K_t-1, then K_t + the fine grid's."""
        codes = self._grids(x)
        return torch.cat([codes.top.flatten(1), codes.bottom.flatten(1) + self.config.num_top_codes], dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Mean images of codes laid out as by `encode`: (B, C, H, W) uint8."""
        vectors = self.autoencoder.embed(self._split(codes))
        return logistic.mixture_mean(self.autoencoder(vectors), levels=self.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images of the codes of images: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _split(self, codes: Tensor) -> Grids:
        """Both grids, each with its own alphabet, of rows of codes (B, h' w' + h w)."""
        top, bottom = codes.split([self.top_side**2, self.bottom_side**2], dim=1)
        bottom = bottom - self.config.num_top_codes
        return Grids(top.view(-1, self.top_side, self.top_side), bottom.view(-1, self.bottom_side, self.bottom_side))

    @torch.no_grad()
    def _grids(self, x: Tensor) -> Grids:
        return self.autoencoder.encode(to_signed(x, self.levels))

    def _drawn(self, num_samples: int, generator: Generator) -> Grids:
        top = self.top_prior.sample(num_samples, self.top_side, self.top_side, generator=generator).squeeze(1)
        return Grids(top, self.bottom_prior.sample(self.autoencoder.top_quantizer.embed(top), generator=generator))

    def _autoencoder_loss(self, x: Tensor) -> Loss:
        top, bottom = self.autoencoder.quantise(to_signed(x, self.levels))
        distortion = -self._log_prob_given(x, Grids(top.values, bottom.values)).mean() / self.spec.num_dims
        commitment = top.commitment + bottom.commitment
        parts = {
            "distortion": distortion.detach(),
            "commitment": commitment.detach(),
            "top_perplexity": self.autoencoder.top_quantizer.perplexity(),
            "bottom_perplexity": self.autoencoder.bottom_quantizer.perplexity(),
        }
        return Loss(distortion + self.config.commitment * commitment + top.attraction + bottom.attraction, parts)

    def _top_nll(self, codes: Grids) -> Tensor:
        return self.top_prior.mean_nll(codes.top.unsqueeze(1)) / codes.top[0].numel()

    def _bottom_nll(self, codes: Grids) -> Tensor:
        top_vectors = self.autoencoder.top_quantizer.embed(codes.top).detach()
        return self.bottom_prior.mean_nll(codes.bottom, top_vectors) / codes.bottom[0].numel()

    def _log_prob_given(self, x: Tensor, vectors: Grids) -> Tensor:
        """Log p(x|z_t, z_b) for vectors of both grids: (B,), nats."""
        return logistic.mixture_log_prob(x, self.autoencoder(vectors), levels=self.levels).sum((1, 2))


def _quantizer(num_codes: int, config: VQVAE2.Config) -> VectorQuantizer:
    return VectorQuantizer(
        num_codes,
        config.code_dim,
        decay=config.decay,
        revival_share=config.revival_share,
        codebook=config.codebook,
        gradient=config.gradient,
    )


def _player(name: str, module: nn.Module, *, lr: float, ema_decay: float | None) -> Player:
    return Player(
        name=name,
        modules=(module,),
        lr=lr,
        clip_norm=1.0,
        warmup_steps=20,
        final_lr_share=0.05,
        ema_decay=ema_decay,
    )
