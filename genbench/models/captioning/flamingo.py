"""Flamingo: a frozen language model that is shown pictures between texts, and learns from few of them what is wanted.

Flamingo: a Visual Language Model for Few-Shot Learning. Jean-Baptiste Alayrac, Jeff Donahue, Pauline Luc, Antoine
Miech, Iain Barr, Yana Hasson, Karel Lenc, Arthur Mensch, Katie Millican, Malcolm Reynolds and others, 2022, 2204.14198.

A frozen vision encoder sees every picture of a row of pictures and texts, and a resampler turns what it sees into a few
vectors. Gated layers between those of a frozen language model let every word attend to the last picture before it; the
earlier pictures reach it through their texts alone. A row with examples is a prompt: the model goes on as these do.

Symbols: x pictures, y words, alpha and beta gates, M pictures in a row, R latents of each.

- p(y | x) = prod_l p(y_l | y_<l, x_<=l), where x_<=l are the pictures before word l (Eq. 1).
- Gated layers and the resampler (Sec. 2.1, 2.2) are in `genbench.nn.gated_cross_attention`; with alpha = beta = 0, as
  they start, logits are those of the language model to the last bit.
- A word sees the picture last before it and no other (Sec. 2.3); words before any picture see none.
- Vision encoder: `shapes_clip`, trained by contrast as the paper's. Language model: `shapes_language`, trained on texts
  alone. Neither is among the model's own weights or parameters; `genbench features train` remakes both.
- Shots are pictures with their texts in front of the row (Sec. 2.5). Answers are written greedily.

**Departures**
- The frozen networks are small and of rendered pictures at every preset, so that `paper` has the paper's resampler and
  training and not its 80 billion parameters; the resampler is as wide as what it resamples.
- Learned vectors for places in place of those for time: there are no videos.
- Rows are cut into items of one length, with padding between a text and the next picture.
- One data set, hence no weights of several; one decay of weights, in place of none for the resampler.
- Every text follows its picture; the paper also trains on texts that stand before theirs (Sec. 2.3, App. A).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.features import FeatureExtractor, FeatureGrid, LanguageModel, build_features
from genbench.core.model import Loss, Phase, Player, register_model
from genbench.core.ranges import Count, NonNegative, Positive, Whole
from genbench.core.spec import parse_ref
from genbench.core.texts import ended
from genbench.models._caption_model import CaptionNetwork, written
from genbench.nn.causal_cache import CausalCache
from genbench.nn.gated_cross_attention import GatedCrossAttention, PerceiverResampler, last_picture
from genbench.nn.transformer import Attend, causal
from genbench.prob.pixels import to_rgb

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VISION, LANGUAGE = "shapes_clip", "shapes_language"


@register_model("flamingo")
class Flamingo(CaptionNetwork):
    """Gated layers between two frozen networks."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        gated_every: Whole = 1
        """A gated layer stands before every so many layers of the language model; 0 leaves that model alone, which then
        knows no picture and learns nothing: the prior of the language."""
        num_latents: Count = 8
        """R."""
        resampler_layers: Count = 2
        resampler_heads: Count = 4
        num_heads: Count = 4
        """Of the gated layers."""
        batch_size: Count = 16
        """Episodes of a step."""
        learning_rate: Positive = 2e-3
        weight_decay: NonNegative = 0.0
        warmup_steps: Whole = 50
        final_lr_share: Positive = 0.05
        """Learning rate at the end, as a share of that at the beginning."""
        clip_norm: Positive = 1.0

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(gated_every=2, num_latents=4, resampler_layers=1, batch_size=8, warmup_steps=5),
        "small": Config(),
        "paper": Config(
            num_latents=64,
            resampler_layers=6,
            resampler_heads=16,
            num_heads=16,
            batch_size=256,
            learning_rate=1e-4,
            weight_decay=0.1,
            warmup_steps=5_000,
            final_lr_share=1.0,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, owner="flamingo")
        self.config = config
        with torch.device("cpu"):  # weights come from files, wherever the model's own are made
            self._frozen = (build_features(parse_ref(VISION)), build_features(parse_ref(LANGUAGE)))
        """Outside of the modules: they are no part of the model's weights, and never leave evaluation mode."""
        language, eyes = self.language, cast("FeatureGrid", self._frozen[0])
        if language.vocabulary != spec.vocabulary or language.length != self.length:
            raise SettingError(
                f"`flamingo` speaks the language of `{LANGUAGE}`: the data have other words or longer texts",
                hint="`captioned_shapes` has those",
            )
        every, channels = config.gated_every, eyes.grid_shape[0]
        gated = [
            GatedCrossAttention(language.width, channels, num_heads=config.num_heads)
            for _ in range(0, language.num_layers if every else 0, every or 1)
        ]
        self.gated = cast("Sequence[GatedCrossAttention]", nn.ModuleList(gated))
        self.resampler = (
            PerceiverResampler(
                eyes.grid_shape,
                num_latents=config.num_latents,
                num_layers=config.resampler_layers,
                num_heads=config.resampler_heads,
            )
            if every
            else None
        )

    @property
    def language(self) -> LanguageModel:
        """The frozen language model."""
        return cast("LanguageModel", self._frozen[1])

    def phases(self) -> tuple[Phase, ...]:
        """One phase that trains all that is not frozen; none where nothing else is there."""
        if self.resampler is None:
            return ()
        config = self.config
        player = Player(
            name="between",
            modules=(self.resampler, cast("nn.Module", self.gated)),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup_steps,
            final_lr_share=config.final_lr_share,
            clip_norm=config.clip_norm,
        )
        return (Phase(name="episodes", share=1.0, players=(player,), batch_size=config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Mean nats per word over all texts of the episodes, ends and questions included."""
        if batch.pictures is None:
            raise SettingError("the examples have no pictures that their texts are about")
        texts, counts = batch.x, ended(batch.x)
        _, S, T = texts.shape
        logits = self(self.rows(texts), batch.pictures).unflatten(1, (S, T + 1))[:, :, :T]
        nats = self.nats_of(logits, texts) * counts
        last = nats[:, -1].sum() / counts[:, -1].sum()
        return Loss(nats.sum() / counts.sum(), {"nats_per_word_of_last_text": last.detach()})

    def forward(self, tokens: Tensor, pictures: Tensor) -> Tensor:
        """Logits of the word after each element of rows: (B, L, V).

        Args:
            tokens: (B, L) int64, words and marks (number V); mark i stands for picture i.
            pictures: (B, M, C, H, W) uint8.
        """
        attends: list[Attend] = [causal] * self.language.num_layers
        return self.language.logits(self._states(tokens, self.latents(pictures), attends))

    @torch.no_grad()
    def text_log_likelihood(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Log-probability of the last text given everything before it: (B,) nats, float64."""
        logits = self(self.rows(texts)[:, :-1], pictures)[:, -self.length :]  # the last word predicts nothing
        return self.log_likelihood_under(logits, texts[:, -1])

    @torch.no_grad()
    def describe(self, pictures: Tensor, texts: Tensor, *, generator: Generator | None) -> Tensor:
        """The last text, word by word, with keys and values of everything before it computed once: (B, T) uint8."""
        latents = self.latents(pictures)
        caches = [CausalCache() for _ in range(self.language.num_layers)]
        shots = pictures.shape[1] - 1
        prompt = self.rows(texts)[:, : shots * (self.length + 1) + 1]  # up to the mark of the last picture
        before = torch.full((len(texts),), shots + 1, device=texts.device)
        first = self.language.logits(self._states(prompt, latents, caches)[:, -1])

        def following(words: Tensor) -> Tensor:
            state = self._states(words[:, None], latents, caches, first=caches[0].length, before=before)
            return self.language.logits(state[:, -1])

        return written(texts[:, -1], first, following, generator=generator)

    def rows(self, texts: Tensor) -> Tensor:
        """Episodes (B, S, T) as rows, the mark of its picture before each text: (B, S * (T + 1)) int64."""
        marks = torch.full_like(texts[..., :1], self.num_words, dtype=torch.int64)
        return torch.cat([marks, texts.long()], dim=2).flatten(1)

    def latents(self, pictures: Tensor) -> Tensor:
        """What the resampler keeps of pictures (B, M, C, H, W): (B, M * R, v); nothing where there is none."""
        vision = self._at(pictures.device)
        if self.resampler is None:
            return torch.zeros(len(pictures), 0, vision.grid_shape[0], device=pictures.device)
        with torch.no_grad():
            grid = vision.grid(to_rgb(pictures.flatten(0, 1), 256))
        latents: Tensor = self.resampler(grid)
        B, M = pictures.shape[:2]
        return latents.view(B, M * self.config.num_latents, -1)

    def _states(
        self,
        tokens: Tensor,
        latents: Tensor,
        attends: Sequence[Attend],
        *,
        first: int = 0,
        before: Tensor | None = None,
    ) -> Tensor:
        """Vectors of elements (B, n) after the last layer, from element `first` on, with `before` marks before it."""
        R = self.config.num_latents
        seen = last_picture(tokens == self.num_words, latents.shape[1] // R, R, before=before)
        x = self.language.embed(tokens, first=first)
        for number, attend in enumerate(attends):
            if self.resampler is not None and number % self.config.gated_every == 0:
                x = self.gated[number // self.config.gated_every](x, latents, seen)
            x = self.language.layer(number, x, attend)
        return x

    def _at(self, device: torch.device) -> FeatureGrid:
        """The vision encoder, both frozen networks being where the data are."""
        frozen: tuple[FeatureExtractor, ...] = self._frozen
        for network in frozen:
            network.to(device)
        return cast("FeatureGrid", frozen[0])
