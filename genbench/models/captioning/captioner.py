"""An encoder of pictures and a decoder of words that attends to its places, trained together from nothing.

Show, Attend and Tell: Neural Image Caption Generation with Visual Attention. Kelvin Xu, Jimmy Ba, Ryan Kiros, Kyunghyun
Cho, Aaron Courville, Ruslan Salakhutdinov, Richard Zemel and Yoshua Bengio, 2015, 1502.03044.

A convolutional encoder leaves a vector for each place of the picture; each word of the text is drawn given the words
before it and a mixture of these vectors that the decoder chooses. Texts of other pictures play no part: this is what
can be had without shots.

Symbols: a places of the picture (the paper's annotation vectors), y words, p(y | a) = prod_t p(y_t | y_<t, a).

- Encoder (Sec. 3.1.1): features of places before any pooling.
- Decoder (Sec. 3.1.2, 4.2): soft attention to the places at every word, in every layer.
- Loss: minus log p(y | a), whose exponential sums to 1 over all texts of at most T words.

**Departures**
- A causal transformer that attends to words and places in turn (Vaswani et al. 2017, 1706.03762, Sec. 3.2.3) in place
  of an LSTM; learned vectors for places.
- The encoder is a residual network that is trained with the decoder, in place of a frozen VGG.
- No doubly stochastic regularisation of the attention (Eq. 14) and no hard attention.
- A question is the beginning of a text, and is read as its other words are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import Loss, Phase, Player, register_model
from genbench.core.ranges import Count, NonNegative, Positive, Whole
from genbench.core.texts import ended
from genbench.models._caption_model import CaptionNetwork, written
from genbench.nn.causal_cache import CausalCache
from genbench.nn.gated_cross_attention import Attention
from genbench.nn.resnet import DownTower, halved_sides, halvings_until
from genbench.nn.transformer import INITIAL_STD, Attend, Block, causal
from genbench.prob.pixels import to_signed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class DecoderLayer(nn.Module):
    """Words that attend to the words before them, and to the places of a picture."""

    def __init__(self, width: int, *, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, width, num_heads=num_heads)
        self.block = Block(width, num_heads=num_heads, dropout=0.0, num_layers=num_layers)

    def forward(self, x: Tensor, places: Tensor, attend: Attend) -> Tensor:
        """Words (N, T, w) after the layer, given places (N, P, w)."""
        x = x + self.attention(self.norm(x), places)
        mixed: Tensor = self.block(x, attend)
        return mixed


@register_model("captioner")
class Captioner(CaptionNetwork):
    """Places of a picture to words."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        width: Count = 64
        """Of places and words."""
        num_blocks: Count = 1
        """Residual blocks on each grid of the encoder."""
        grid_side: Count = 4
        """Rows of places, at most."""
        num_layers: Count = 3
        """Of the decoder."""
        num_heads: Count = 4
        batch_size: Count = 16
        """Episodes of a step, all texts of which are learned from."""
        learning_rate: Positive = 2e-3
        weight_decay: NonNegative = 0.0
        warmup_steps: Whole = 50
        final_lr_share: Positive = 0.05
        """Learning rate at the end, as a share of that at the beginning."""
        clip_norm: Positive = 1.0

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(width=32, num_layers=2, batch_size=8, warmup_steps=5),
        "small": Config(),
        "paper": Config(
            width=512,
            num_blocks=3,
            grid_side=14,
            num_layers=6,
            num_heads=8,
            batch_size=64,
            learning_rate=1e-4,
            warmup_steps=4_000,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, owner="captioner")
        self.config = config
        channels, side = spec.picture_shape[0], spec.picture_shape[-1]
        halvings, width = halvings_until(side, config.grid_side), config.width
        self.encoder = DownTower(channels, width, num_halvings=halvings, num_blocks=config.num_blocks)
        num_places = halved_sides(side, halvings)[-1] ** 2
        self.grid_places = nn.Parameter(torch.randn(num_places, width) * INITIAL_STD)
        self.grid_norm = nn.LayerNorm(width)
        self.words = nn.Embedding(self.num_words, width)
        self.start = nn.Parameter(torch.randn(width) * INITIAL_STD)
        self.word_places = nn.Parameter(torch.randn(self.length, width) * INITIAL_STD)
        layers = [
            DecoderLayer(width, num_heads=config.num_heads, num_layers=config.num_layers)
            for _ in range(config.num_layers)
        ]
        self.layers = cast("Sequence[DecoderLayer]", nn.ModuleList(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.num_words, bias=False)
        for table in (self.words.weight, self.head.weight):
            nn.init.normal_(table, std=INITIAL_STD)

    def phases(self) -> tuple[Phase, ...]:
        """One phase, everything at once."""
        config = self.config
        player = Player(
            name="captioner",
            modules=(self,),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup_steps,
            final_lr_share=config.final_lr_share,
            clip_norm=config.clip_norm,
        )
        return (Phase(name="texts", share=1.0, players=(player,), batch_size=config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Mean nats per word over all texts, ends and questions included."""
        if batch.pictures is None:
            raise SettingError("the examples have no pictures that their texts are about")
        texts = batch.x.flatten(0, 1)
        counts = ended(texts)
        return Loss((self.nats_of(self(batch.pictures.flatten(0, 1), texts), texts) * counts).sum() / counts.sum())

    def forward(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Logits of every word given those before it: (N, T, V).

        Args:
            pictures: (N, C, H, W) uint8.
            texts: (N, T).
        """
        words = self.words(texts[:, :-1].long())
        x = torch.cat([self.start.expand(len(texts), 1, -1), words], dim=1) + self.word_places
        return self._logits(x, self.places(pictures), [causal] * len(self.layers))

    @torch.no_grad()
    def text_log_likelihood(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Log-probability of the last text given its picture alone: (B,) nats, float64."""
        return self.log_likelihood_under(self(pictures[:, -1], texts[:, -1]), texts[:, -1])

    @torch.no_grad()
    def describe(self, pictures: Tensor, texts: Tensor, *, generator: Generator | None) -> Tensor:
        """The last text, whatever stands before it, with keys and values computed once: (B, T) uint8."""
        places, caches = self.places(pictures[:, -1]), [CausalCache() for _ in self.layers]

        def after(words: Tensor) -> Tensor:
            return self._logits((words + self.word_places[caches[0].length])[:, None], places, caches)[:, -1]

        start = self.start.expand(len(texts), -1)
        return written(texts[:, -1], after(start), lambda words: after(self.words(words)), generator=generator)

    def places(self, pictures: Tensor) -> Tensor:
        """Vectors of the places of pictures (N, C, H, W): (N, P, w)."""
        grid = self.encoder(to_signed(pictures, 256)).flatten(2).transpose(1, 2)
        normalised: Tensor = self.grid_norm(grid + self.grid_places)
        return normalised

    def _logits(self, x: Tensor, places: Tensor, attends: Sequence[Attend]) -> Tensor:
        for layer, attend in zip(self.layers, attends, strict=True):
            x = layer(x, places, attend)
        logits: Tensor = self.head(self.norm(x))
        return logits
