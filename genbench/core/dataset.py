"""The contract of a dataset: integers by index, from splits that never overlap."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor

from genbench.core.errors import SettingError
from genbench.core.registry import Registry
from genbench.core.settings import with_settings
from genbench.core.spec import Ref

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Split = Literal["train", "test", "novel"]
"""`novel` holds the combinations that `train` never shows; few datasets have it."""
DataKind = Literal["image", "vector", "waveform", "text"]
PAD = 0
"""Token that fills captions up to their common length."""
FILE_KINDS = {".npz": "npz", ".zip": "zip", ".npy": "npy", ".pt": "pt", ".pth": "pt", ".tar": "tar"}
"""Which data set reads which file, by its suffix."""


@dataclasses.dataclass(frozen=True)
class Factor:
    """A ground-truth factor of variation and the names of its values."""

    name: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What a model must know of its data before it is built."""

    kind: DataKind = "image"
    shape: tuple[int, ...]
    """Shape of one example: (C, H, W) for images, (D,) for vectors, (1, T) for waveforms, (S, T) for an episode of S
    texts of at most T words."""
    levels: int | None = 256
    """Values run over 0 .. levels-1; None for float data. Those of waveforms are mu-law codes (`prob.mu_law`), those of
    texts are words of `vocabulary`."""
    picture_shape: tuple[int, ...] = ()
    """(C, H, W) of the picture that each text of an episode is about, values 0 .. 255; empty for other data."""
    sample_rate: int | None = None
    """Values per second of a waveform; None where time has no part."""
    num_classes: int = 0
    factors: tuple[Factor, ...] = ()
    vocabulary: tuple[str, ...] = ()
    """Words of the captions, or of the texts; the word at 0 is the padding and is empty."""

    @property
    def num_dims(self) -> int:
        """Number of dimensions of one example."""
        return int(np.prod(self.shape))

    @property
    def seconds(self) -> float | None:
        """How long one example lasts; None where time has no part."""
        return None if self.sample_rate is None else self.shape[-1] / self.sample_rate

    def caption(self, tokens: Tensor) -> str:
        """Words of one row of `Batch.text`, padding left out."""
        return " ".join(self.vocabulary[token] for token in tokens.tolist() if token != PAD)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples with what is known of them; row i of every tensor belongs to example i."""

    x: Tensor
    """(B, *shape): uint8 images, waveforms and texts with values 0 .. levels-1, float32 vectors."""
    y: Tensor | None = None
    """(B,) int64 class labels, or None."""
    factors: Tensor | None = None
    """(B, number of factors) int64 values of the factors, of episodes (B, S, number of factors), or None."""
    text: Tensor | None = None
    """(B, T) int64 caption tokens padded with `PAD`, or None."""
    pictures: Tensor | None = None
    """(B, S, C, H, W) uint8, values 0 .. 255: what the texts of `x` are about; None for other data."""

    def __len__(self) -> int:
        return len(self.x)

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Apply one function to every tensor that is there."""
        optional = {"y": self.y, "factors": self.factors, "text": self.text, "pictures": self.pictures}
        return Batch(change(self.x), **{k: None if v is None else change(v) for k, v in optional.items()})

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return self.map(lambda tensor: tensor[rows])

    def to(self, device: torch.device) -> Batch:
        """The same examples on another device."""
        return self.map(lambda tensor: tensor.to(device))


class Dataset(ABC):
    """Examples by index. Subclasses are frozen dataclasses; their fields are the settings.

    A dataset whose `takes_argument` is set has a field `path`, filled from `name:ARGUMENT`.
    """

    takes_argument: ClassVar[bool] = False
    source: ClassVar[str] = ""
    """Where the data come from and under which licence."""
    folders: ClassVar[tuple[str, ...]] = ()
    """Paths below `core.data_root`, one of which must be there; plans read them off the source. Empty: nothing must."""
    how: ClassVar[str] = ""
    """What to do where none of them is there: the URL or command that gets the files, in plain text."""

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """Shape, levels, classes, factors and vocabulary."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits that `load` accepts."""
        return ("train", "test")

    @abstractmethod
    def size(self, split: Split) -> int | None:
        """Number of examples of a split, None when there is no end to them."""

    @abstractmethod
    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Examples at the given indices, on the CPU; the same index is always the same example.

        Raises:
            DataError: the data are not there, or damaged.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of the content: equal data give equal digests, changed data another."""

    def labels(self, split: Split, indices: Sequence[int] | np.ndarray) -> Tensor | None:
        """`load(...).y` alone: (B,) int64, or None. Override it where labels can be had without decoding pictures."""
        return self.load(split, indices).y

    def captions(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str] | None:
        """`load(...).text` alone, as `spec.caption` spells it, or None. Override it as `labels`."""
        spec, text = self.spec, self.load(split, indices).text
        return None if text is None else [spec.caption(tokens) for tokens in text]

    def identify(self, split: Split, indices: Sequence[int] | np.ndarray) -> list[str]:
        """What the examples at the given indices are called, for lists and messages; files have their relative path."""
        return [f"{split}/{index}" for index in indices]

    def skipped(self) -> tuple[str, ...]:
        """Files that were left out because they cannot be read, each with its reason."""
        return ()

    @property
    def divided_by_owner(self) -> bool:
        """Whether the user has set `test` apart; False where it is only a part that the reader puts aside."""
        return False

    def combinations(self, split: Split) -> np.ndarray | None:
        """Every combination of factor values that a split can show, without repeats.

        (M, number of factors) int64, or None for a dataset without factors.
        """
        return None


DATASETS: Registry[Dataset] = Registry("dataset", "data", group="genbench.datasets")
register_dataset = DATASETS.register


def build_dataset(ref: Ref) -> Dataset:
    """Build the dataset that `ref` names.

    Raises:
        UnknownName, SettingError: as the registry and the settings say.
    """
    kind = DATASETS.get(ref.name)
    if kind.takes_argument and ref.argument is None:
        raise SettingError(f"dataset `{ref.name}` needs a path", hint=f"write `{ref.name}:PATH`")
    if not kind.takes_argument and ref.argument is not None:
        raise SettingError(f"dataset `{ref.name}` takes no argument, found `{ref.argument}`")
    given = {"path": ref.argument} if ref.argument is not None else {}
    base = cast("Callable[..., DataclassInstance]", kind)(**given)
    return cast("Dataset", with_settings(base, ref.config, owner=ref.name))
