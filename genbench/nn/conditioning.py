"""What a network is told beside its input: a class or a caption as one vector, and guidance by either.

A class has a learned vector. A caption goes through a small transformer that sees all its words, whose mean over them
is the vector. In training a condition is left out now and then, and a learned vector of its own takes its place, so
that one network knows both laws; guidance extrapolates from the one without to the one with the condition (Ho and
Salimans 2022, arXiv:2207.12598):

    out = out(nothing) + s (out(condition) - out(nothing)),   s = 1 + w with their w

s = 1 follows the condition as trained, s = 0 ignores it; either takes one evaluation of the network, any other s two,
in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from genbench.core.dataset import PAD, Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import ConditionKind
from genbench.nn.condition_pool import LONGEST_CAPTION, ConditionPool

if TYPE_CHECKING:
    from genbench.nn.frozen_text_encoder import FrozenTextEncoder

INITIAL_STD = 0.02


class CaptionEncoder(nn.Module):
    """Captions (B, T) to vectors (B, dim): words and places, transformer layers, the mean over words.

    Args:
        num_words: size of the vocabulary, padding included.
        dim: of the vectors.
        num_layers: transformer layers.
        num_heads: of each.
    """

    def __init__(self, num_words: int, dim: int, *, num_layers: int = 2, num_heads: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, dim)
        self.places = nn.Parameter(torch.randn(LONGEST_CAPTION, dim) * INITIAL_STD)
        nn.init.normal_(self.words.weight, std=INITIAL_STD)
        layers = [
            nn.TransformerEncoderLayer(dim, num_heads, 4 * dim, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(dim)

    def forward(self, captions: Tensor) -> Tensor:
        """Vectors of captions padded with `PAD`, of at most `LONGEST_CAPTION` words; padding changes nothing."""
        h, hidden = self._encoded(captions)
        shown = (~hidden).to(h.dtype)[:, :, None]
        mean: Tensor = (h * shown).sum(1) / shown.sum(1)
        return mean

    def tokens(self, captions: Tensor) -> Tensor:
        """A vector for each word (B, T, dim), zero for padding."""
        h, hidden = self._encoded(captions)
        return h.masked_fill(hidden[:, :, None], 0.0)

    def _encoded(self, captions: Tensor) -> tuple[Tensor, Tensor]:
        """A vector for each place, and which places are padding."""
        padded = captions == PAD
        hidden = padded & ~padded.all(1, keepdim=True)  # attention to nothing at all has no value
        h = self.words(captions) + self.places[: captions.shape[1]]
        for layer in self.layers:
            h = layer(h, src_key_padding_mask=hidden)
        return self.norm(h), hidden


class Conditioner(ConditionPool):
    """Conditions of data as vectors (B, dim), or as tokens (B, T, dim), with one for no condition.

    A class is one token, a caption one for each word; where padding stands the tokens are zero.

    Args:
        spec: of the data; has the classes or the vocabulary.
        kind: `class` or `text`.
        dim: of the vectors.
        drop_share: share of training examples whose condition is left out.
        owner: who asks, for messages.
        tokens: whether to give tokens in place of vectors.
        text_encoder: of `text`, name or folder of a frozen encoder (`nn.frozen_text_encoder`); empty trains one.

    Raises:
        SettingError: the data have no such conditions.
    """

    def __init__(
        self,
        spec: DataSpec,
        kind: ConditionKind,
        dim: int,
        *,
        drop_share: float,
        owner: str,
        tokens: bool = False,
        text_encoder: str = "",
    ) -> None:
        super().__init__(kind)
        there = {"class": spec.num_classes > 0, "text": bool(spec.vocabulary)}
        if not there.get(kind, False):
            raise SettingError(
                f"`{owner}` cannot be conditioned on `{kind}`: the data have no such thing",
                hint="condition=none is for any data; `shapes` has classes and captions",
            )
        self.drop_share, self.spec, self.tokens = drop_share, spec, tokens
        self.nothing = nn.Parameter(torch.randn(dim) * INITIAL_STD)
        if kind == "class":
            self.embedding: nn.Module = nn.Embedding(spec.num_classes, dim)
            nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        elif text_encoder:
            from genbench.nn.frozen_text_encoder import FrozenTextEncoder  # it needs an optional library

            self.embedding = FrozenTextEncoder(text_encoder, spec, dim)
        else:
            self.embedding = CaptionEncoder(len(spec.vocabulary), dim)

    def trained(self, batch: Batch) -> Tensor:
        """Vectors of a training batch, some without their condition: (B, dim); draws from the global stream.

        The first conditions that come by are kept.
        """
        condition = self.of_batch(batch)
        self.keep(condition)
        vectors = self(condition)
        dropped = torch.rand(len(condition), *[1] * (vectors.ndim - 1), device=vectors.device) < self.drop_share
        return torch.where(dropped, self.nothing.to(vectors.dtype), vectors)

    def forward(self, condition: Tensor) -> Tensor:
        """Vectors of conditions, (B, dim), or tokens, (B, T, dim)."""
        if not self.tokens:
            vectors: Tensor = self.embedding(condition)
            return vectors
        if self.kind == "class":
            one: Tensor = self.embedding(condition)[:, None]
            return one
        return cast("CaptionEncoder | FrozenTextEncoder", self.embedding).tokens(condition)

    def no_condition(self, count: int) -> Tensor:
        """What stands for no condition: (count, dim), or one token, (count, 1, dim)."""
        return self.nothing.expand(count, 1, -1) if self.tokens else self.nothing.expand(count, -1)


def guided(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    t: Tensor,
    *,
    told: Tensor,
    nothing: Tensor,
    scale: float,
    channels: int | None = None,
) -> Tensor:
    """Output of a network under guidance: of the shape of its output for `x`.

    Args:
        network: x (B, ...), times (B,) and vectors (B, dim) to outputs; treats examples independently.
        x: (B, ...).
        t: (B,).
        told: vectors (B, dim) or tokens (B, T, dim) of the conditions.
        nothing: the same of no condition; one token will do.
        scale: s.
        channels: of the output that are guided, the first ones; the others are those with the condition. None is all.
    """
    if scale == 1.0:
        return network(x, t, told)
    if scale == 0.0:
        return network(x, t, nothing)
    both = network(torch.cat([x, x]), torch.cat([t, t]), torch.cat([told, nothing.expand_as(told)]))
    with_condition, without = both.chunk(2)
    out = torch.lerp(without[:, :channels], with_condition[:, :channels], scale)
    return out if channels is None else torch.cat([out, with_condition[:, channels:]], dim=1)
