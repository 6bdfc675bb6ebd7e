"""DALL-E: captions and codes of images as one sequence, drawn one element after another.

Zero-Shot Text-to-Image Generation. Aditya Ramesh, Mikhail Pavlov, Gabriel Goh, Scott Gray, Chelsea Voss, Alec Radford,
Mark Chen and Ilya Sutskever, 2021, 2102.12092.

A discrete autoencoder turns an image into a grid of codes. A transformer learns the sequences of a caption's words and
then these codes; given the words, it draws the codes.

Symbols: x image, y caption of up to T words, z codes of N places, K codes, V words, q(z|x) softmax of the encoder, tau
temperature of its relaxed draws, beta weight of the rate.

- Phase `codes` (Sec. 2.1):  -log p(x|z) + beta KL(q(z|x) || uniform)  with z a relaxed draw
  (`genbench.nn.relaxed_quantizer`); tau falls along a cosine from 1 to 1/16, and beta rises from 0.
- Phase `prior` (Sec. 2.2):  -1/8 log p(y) - 7/8 log p(z|y), each a mean over its elements; z are the most probable
  codes. Words and codes have separate alphabets, and each place that no word fills has a padding element of its own.
- Sampling: words of a caption are put first, codes are drawn after them. Without a caption, words are drawn too: the
  model is one of pairs. With `candidates` above 1 the dual encoder `shapes_clip` keeps of that many images for a
  caption the one nearest to it (Sec. 2.6).
- The model gives log p(x, y) a bound and not log p(x), hence no likelihood of pictures alone.

**Departures**
- A mixture of discretised logistics, of scales learned but shared by all pixels, in place of the logit-Laplace law;
  small residual towers with pixel-unshuffle; weights of the first phase are not averaged.
- Whole words in place of byte pairs; every element sees all before it, where the paper's layers see rows, columns or
  neighbours; places are one learned table.
- The paper ranks by a CLIP of its own; pictures that no dual encoder of their captions ships for cannot be ranked here.
- `smoke` and `small` reach their last tau and beta within hundreds of steps, with beta = 1, which makes a bound.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from genbench.core.dataset import PAD, Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.features import FeatureExtractor, TextEncoder, build_features
from genbench.core.model import Loss, SteeredByFeatures, TextConditional, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive
from genbench.core.spec import parse_ref
from genbench.models._two_stage import LikelyCodes
from genbench.nn._categorical_head import draw
from genbench.nn.causal_transformer import CausalTransformer
from genbench.nn.relaxed_quantizer import RelaxedQuantizer
from genbench.nn.transformer import CacheKind
from genbench.prob.pixels import to_rgb

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LAST_TEMPERATURE = 1.0 / 16.0
"""Of the relaxed draws (Sec. 2.1)."""
TEXT_SHARE = 1.0 / 8.0
"""Of the loss (Sec. 2.2)."""


@register_model("dalle")
class DALLE(LikelyCodes, TextConditional, SteeredByFeatures):
    """A discrete autoencoder, and a transformer over captions and codes."""

    needs = "text"

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        num_codes: Count = 128
        """K."""
        code_dim: Count = 16
        """Length of a code vector."""
        num_halvings: Count = 2
        """The grid of codes has 2**num_halvings fewer rows than the image."""
        width: Count = 32
        """Channels of every grid of encoder and decoder."""
        num_blocks: Count = 1
        """Residual blocks on each grid of either network."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        kl_weight: NonNegative = 1.0
        """beta, once it has risen."""
        kl_steps: Count = 200
        """Steps over which it rises."""
        temperature_steps: Count = 400
        """Steps over which tau falls."""
        caption_length: Count = 16
        """T; longer captions are refused."""
        prior_width: Count = 64
        prior_layers: Count = 4
        prior_heads: Count = 4
        prior_dropout: Fraction = 0.0
        prior_share: OpenShare = 0.6
        """Share of the samples seen that trains the transformer."""
        learning_rate: Positive = 2e-3
        prior_learning_rate: Positive = 2e-3
        candidates: Count = 1
        """Images drawn for each caption, of which `shapes_clip` keeps the nearest to it; 1 ranks nothing."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(
            num_codes=64, num_halvings=1, kl_steps=30, temperature_steps=60, prior_width=32, prior_layers=2
        ),
        "small": Config(),
        "paper": Config(
            num_codes=8192,
            code_dim=128,
            num_halvings=3,
            width=256,
            num_blocks=2,
            num_mixtures=5,
            kl_weight=6.6,
            kl_steps=5_000,
            temperature_steps=150_000,
            caption_length=256,
            prior_width=3968,
            prior_layers=64,
            prior_heads=62,
            prior_dropout=0.1,
            learning_rate=1e-4,
            prior_learning_rate=4.5e-4,
            candidates=512,
        ),
    }
    config: Config
    quantizer: RelaxedQuantizer
    prior: CausalTransformer
    steps_taken: Tensor
    allowed: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config, num_features=config.num_codes, code_dim=config.code_dim)
        if not spec.vocabulary:
            raise SettingError(
                "`dalle` learns from pictures with captions: the data have none", hint="`shapes` has captions"
            )
        self.register_buffer("steps_taken", torch.zeros(()))
        self.num_words, T, N = len(spec.vocabulary), config.caption_length, self.code_side**2
        self.first_code = self.num_words + T  # words, then the padding of each place, then codes
        self.prior = CausalTransformer(
            num_levels=self.first_code + config.num_codes,
            length=T + N,
            width=config.prior_width,
            num_layers=config.prior_layers,
            num_heads=config.prior_heads,
            dropout=config.prior_dropout,
        )
        self.register_buffer("allowed", self._allowed(T, N), persistent=False)
        self._ranker: list[FeatureExtractor] = []
        """The dual encoder, outside of the modules: it is no part of the model's weights."""

    def make_quantizer(self) -> RelaxedQuantizer:
        """Vectors of codes that the encoder chooses among."""
        return RelaxedQuantizer(self.config.num_codes, self.config.code_dim)

    @property
    def num_codes(self) -> int:
        """K."""
        return self.config.num_codes

    @property
    def steered_by(self) -> str | None:
        """The dual encoder where it picks among candidates."""
        return "shapes_clip" if self.config.candidates > 1 else None

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Start the steps of tau and beta anew."""
        self.steps_taken.zero_()

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `codes`, nats per dimension with the weighted rate, or of `prior`, nats per element."""
        return self._prior_loss(batch) if player == "prior" else self._codes_loss(batch.x)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw captions, then codes given them, and decode these to mean images: (N, C, H, W) uint8."""
        return self._pictures(self.drawn(num_samples, None, generator=generator))

    @torch.no_grad()
    def sample_given(self, condition: Tensor, *, generator: Generator) -> Tensor:
        """One image for each caption (N, T), the best of `candidates`: (N, C, H, W) uint8."""
        words, many = self.elements(condition), self.config.candidates
        if many == 1:
            return self._pictures(self.drawn(len(words), words, generator=generator))
        drawn = [self._pictures(self.drawn(len(words), words, generator=generator)) for _ in range(many)]
        return self._nearest(torch.stack(drawn), condition)

    def elements(self, captions: Tensor) -> Tensor:
        """Captions padded with `PAD` as elements of the sequence: (B, T) int64.

        Raises:
            ValueError: a caption has more than T words.
        """
        T = self.config.caption_length
        if captions.shape[1] > T:
            if bool((captions[:, T:] != PAD).any()):
                raise ValueError(f"a caption has more than the {T} words of `caption_length`")
            captions = captions[:, :T]
        filled = F.pad(captions, (0, T - captions.shape[1]), value=PAD)
        padding = self.num_words + torch.arange(T, device=captions.device)
        return torch.where(filled == PAD, padding, filled)

    @torch.no_grad()
    def drawn(
        self, num_samples: int, words: Tensor | None, *, generator: Generator, cache: CacheKind | None = None
    ) -> Tensor:
        """Draw whole sequences, (N, T + places) int64; keys and values are computed once for every element.

        Args:
            num_samples: N.
            words: (N, T), elements to begin with; None draws them too.
            generator: one uniform number is drawn for each element, also for those given.
            cache: how keys and values are kept; None goes by the device.
        """
        prior, device = self.prior, self.prior.start.device
        uniforms = torch.rand(num_samples, prior.length, generator=generator, device=device)
        caches = prior.empty_caches(num_samples, cache)
        chosen: list[Tensor] = []
        x = prior.start.repeat(num_samples, 1)
        for place in torch.arange(prior.length, device=device).split(1):
            i = len(chosen)
            logits = prior.next_logits(x, place, caches).masked_fill(~self.allowed[i], -torch.inf)
            if words is not None and i < self.config.caption_length:
                chosen.append(words[:, i])
            else:
                chosen.append(draw(logits, uniforms[:, i]))
            x = prior.embedding(chosen[-1])
        return torch.stack(chosen, dim=1)

    def logits(self, sequences: Tensor) -> Tensor:
        """Logits of every element given those before it, minus infinity outside its alphabet: (B, T + N, levels)."""
        found: Tensor = self.prior(sequences).float()
        return found.masked_fill(~self.allowed, -torch.inf)

    def _codes_loss(self, x: Tensor) -> Loss:
        relaxed = self.quantizer(self._features(x), temperature=self._temperature())
        distortion = -self._log_prob_given(x, relaxed.values).mean() / self.spec.num_dims
        rate = relaxed.rate.mean() / self.spec.num_dims
        beta = self.config.kl_weight * (self.steps_taken / self.config.kl_steps).clamp(max=1.0)
        parts = {"distortion": distortion.detach(), "rate": rate.detach(), "temperature": self._temperature()}
        if self.training and torch.is_grad_enabled():
            self.steps_taken += 1
        return Loss(distortion + beta * rate, parts)

    def _prior_loss(self, batch: Batch) -> Loss:
        if batch.text is None:
            raise SettingError("the examples have no caption to learn from")
        T = self.config.caption_length
        words, codes = self.elements(batch.text), self.encode(batch.x).flatten(1) + self.first_code
        sequences = torch.cat([words, codes], dim=1)
        nats = F.cross_entropy(self.logits(sequences).flatten(0, 1), sequences.flatten(), reduction="none")
        of_words, of_codes = nats.view_as(sequences).split([T, codes.shape[1]], dim=1)
        of_text, of_image = of_words.mean(), of_codes.mean()
        parts = {"nats_per_word": of_text.detach(), "nats_per_code": of_image.detach()}
        return Loss(torch.lerp(of_image, of_text, TEXT_SHARE), parts)

    def _temperature(self) -> Tensor:
        """Temperature now, a scalar."""
        done = (self.steps_taken / self.config.temperature_steps).clamp(max=1.0)
        return LAST_TEMPERATURE + (1.0 - LAST_TEMPERATURE) * 0.5 * (1.0 + torch.cos(math.pi * done))

    def _pictures(self, sequences: Tensor) -> Tensor:
        codes = sequences[:, self.config.caption_length :] - self.first_code
        return self.decode(codes.unflatten(1, (self.code_side, self.code_side)))

    def _allowed(self, T: int, N: int) -> Tensor:
        """Which elements may stand at each place: (T + N, levels) bool."""
        allowed = torch.zeros(T + N, self.first_code + self.config.num_codes, dtype=torch.bool)
        allowed[:T, 1 : self.num_words] = True  # the word at 0 is the padding of the data
        allowed[:T, self.num_words : self.first_code] = torch.eye(T, dtype=torch.bool)
        allowed[T:, self.first_code :] = True
        return allowed

    def _nearest(self, pictures: Tensor, captions: Tensor) -> Tensor:
        """Of pictures (candidates, N, C, H, W) the one whose embedding is nearest to its caption's: (N, C, H, W).

        Raises:
            DataError: the weights of the dual encoder are not there.
            ValueError: it does not know a word of the captions.
        """
        if not self._ranker:
            self._ranker = [build_features(parse_ref("shapes_clip")).to(pictures.device)]
        ranker = self._ranker[0]
        spoken = cast("TextEncoder", ranker).encode_text([self.spec.caption(tokens) for tokens in captions])
        seen = torch.stack([ranker(to_rgb(images, self.levels)) for images in pictures])  # (candidates, N, F)
        best = F.cosine_similarity(seen, spoken, dim=2).argmax(0)
        return pictures[best, torch.arange(len(best), device=best.device)]
