"""Conditions of training examples, kept so that a model can draw some when nobody asks for any."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import PAD, Batch
from genbench.core.errors import SettingError
from genbench.core.model import ConditionKind

POOL_SIZE = 1024
"""Conditions of training examples that are kept to be drawn from."""
LONGEST_CAPTION = 64


class ConditionPool(nn.Module):
    """The first conditions that come by in training; they travel with the weights.

    Args:
        kind: `class` or `text`.
    """

    pool: Tensor
    filled: Tensor

    def __init__(self, kind: ConditionKind) -> None:
        super().__init__()
        self.kind = kind
        shape = (POOL_SIZE,) if kind == "class" else (POOL_SIZE, LONGEST_CAPTION)
        self.register_buffer("pool", torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self._kept = 0  # the same number where no device must be asked for it

    def prepare(self, batch: Batch) -> None:
        """Keep the conditions of a batch to draw from; the first ones of training take their place."""
        taken = self.of_batch(batch)[:POOL_SIZE]
        self._write(taken, first=0)
        self.filled.fill_(len(taken))

    def of_batch(self, batch: Batch) -> Tensor:
        """Conditions of a batch: (B,) labels or (B, T) captions.

        Raises:
            SettingError: the batch has none.
        """
        found = batch.y if self.kind == "class" else batch.text
        if found is None:
            raise SettingError(f"the examples have no {'class' if self.kind == 'class' else 'caption'} to learn from")
        return found

    def keep(self, condition: Tensor) -> None:
        """Keep what comes by in training until the pool is full."""
        if self.training and self._kept < POOL_SIZE:
            taken = condition[: POOL_SIZE - self._kept]
            self._write(taken, first=self._kept)
            self._kept += len(taken)
            self.filled.fill_(self._kept)

    def drawn(self, count: int, *, generator: Generator) -> Tensor:
        """Conditions of the first training examples, drawn at random: (count,) or (count, T).

        Raises:
            RuntimeError: the model was never prepared nor trained.
        """
        filled = int(self.filled)
        if not filled:
            raise RuntimeError("there is no condition to draw from: the model was never trained")
        rows = torch.randint(filled, (count,), generator=generator, device=self.pool.device)
        if self.kind == "class":
            return self.pool[rows]
        longest = int((self.pool[:filled] != PAD).any(0).sum())
        return self.pool[rows, :longest]

    def _write(self, taken: Tensor, *, first: int) -> None:
        """Put conditions into the pool, from row `first` on."""
        rows = self.pool[first : first + len(taken)]
        if self.kind == "text":
            rows[:, taken.shape[1] :] = PAD  # of longer captions that stood there
            rows = rows[:, : taken.shape[1]]
        rows.copy_(taken)
