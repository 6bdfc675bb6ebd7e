"""The contract of a feature extractor, and reference statistics with their provenance."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from genbench.core.dataset import DataKind, Factor
from genbench.core.errors import DataError, SettingError, StaleStatistics
from genbench.core.files import write_atomically
from genbench.core.registry import Registry
from genbench.core.settings import with_settings
from genbench.core.spec import Ref, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

STATISTICS_SCHEMA = "genbench.statistics/1"
PROVENANCE = "genbench"
"""Name of the array in a statistics file that says in JSON what made it: the file may travel without its neighbour."""


class FeatureExtractor(nn.Module, ABC):
    """A frozen network from images, or from waveforms, to vectors.

    Built with no argument or from a frozen nested dataclass `Config` through `build_features`.
    """

    kind: ClassVar[DataKind] = "image"
    """What it looks at. Where methods below say images (N, 3, H, W), an extractor of waveforms takes their codes
    (N, 1, T), uint8 as well, at the sample rate that its protocol states, and one of texts takes episodes (N, S, T)."""
    source: ClassVar[str] = ""
    """Where the weights come from and under which licence."""
    layers: ClassVar[tuple[str, ...]] = ("features",)
    """Names that `outputs` accepts: `features`, and where the network has them `spatial` and `logits`."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Length of a feature vector."""

    @abstractmethod
    def protocol(self) -> dict[str, Scalar]:
        """What two features must share to be compared: extractor, sha256, resize, dtype."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Features of (N, 3, H, W) uint8 images with values 0 .. 255: (N, F) float32, or float64 if so set."""

    def outputs(self, images: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
        """Several layers from one pass over (N, 3, H, W) uint8 images: (N, F of that layer) float32 each.

        Extractors with more than one layer override this; `forward` is its layer `features`.
        """
        assert layers == ("features",)
        return {"features": self(images)}


class TextEncoder(ABC):
    """An extractor that embeds captions into the space of its image features."""

    @abstractmethod
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of captions, not normalised: (N, F) float32."""


class FeatureGrid(ABC):
    """An extractor whose features of places can be had before they are pooled."""

    @property
    @abstractmethod
    def grid_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns, whatever the size of the pictures."""

    @abstractmethod
    def grid(self, images: Tensor) -> Tensor:
        """Features of places of (N, 3, H, W) uint8 images with values 0 .. 255: (N, *grid_shape) float32."""


class LanguageModel(ABC):
    """An extractor that is a model of texts, and lets others put layers of their own between its own.

    Texts stand in a row of items: a mark, then `length` words padded with `PAD`, then the next mark. Logits of an
    element are those of the word after it.
    """

    vocabulary: tuple[str, ...]
    """Its words, the padding first; the mark is the number after the last."""
    num_items: int
    """Most items of a row."""
    length: int
    """Words of an item."""
    width: int
    """Length of a vector."""
    num_layers: int

    @abstractmethod
    def embed(self, tokens: Tensor, *, first: int = 0) -> Tensor:
        """Vectors of elements number `first`, `first` + 1, ... of rows: (B, n) int64 to (B, n, width)."""

    @abstractmethod
    def layer(self, number: int, x: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Vectors (B, n, width) after one of the layers; `attend` mixes its values, given queries, keys and values."""

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """Logits of the word after each element, from vectors after the last layer: (B, n, number of words)."""


class SteeringEncoder(TextEncoder):
    """A dual encoder whose similarity a sampler may climb: it also embeds float pictures, with gradients."""

    @property
    @abstractmethod
    def sharpness(self) -> float:
        """Inverse of the temperature that divided the cosines when it was trained."""

    @abstractmethod
    def embed_signed(self, images: Tensor) -> Tensor:
        """Embeddings of (N, 3, H, W) float images in [-1, 1], not normalised, with gradients: (N, F) float32."""


class PerceptualDistance(ABC):
    """An extractor that says how different two pictures look."""

    @property
    @abstractmethod
    def least_side(self) -> int:
        """Pixels per side of the smallest pictures that it can look at."""

    @abstractmethod
    def distances(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance of each pair of (N, 3, H, W) uint8 images with values 0 .. 255: (N,) float32."""

    @abstractmethod
    def signed_distances(self, first: Tensor, second: Tensor) -> Tensor:
        """The same of (N, 3, H, W) float images in [-1, 1], with gradients to both, as a loss needs: (N,) float32."""


@dataclasses.dataclass(frozen=True)
class FactorPredictions:
    """Factors read off pictures."""

    values: Tensor
    """(N, K) int64: the most probable value of each factor."""
    confidence: Tensor
    """(N,) float: the least of the K probabilities of those values."""
    factors: tuple[Factor, ...]


class FactorReader(ABC):
    """An extractor that also reads the ground-truth factors off a picture."""

    @property
    @abstractmethod
    def factors(self) -> tuple[Factor, ...]:
        """The factors it was trained to read, as in `DataSpec.factors`."""

    @abstractmethod
    def read_factors(self, images: Tensor) -> FactorPredictions:
        """Factors of (N, 3, H, W) uint8 images with values 0 .. 255."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Mean and covariance of features, with everything needed to refuse a wrong comparison."""

    mean: np.ndarray
    """(F,) float64."""
    covariance: np.ndarray
    """(F, F) float64, with N-1 in the denominator."""
    num_samples: int
    protocol: dict[str, Scalar]
    """Of the extractor; see `FeatureExtractor.protocol`."""
    dataset: str
    split: str
    dataset_fingerprint: str

    @property
    def sha256(self) -> str:
        """Digest of the numbers; 16 hex digits."""
        content = np.ascontiguousarray(self.mean).tobytes() + np.ascontiguousarray(self.covariance).tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


def save_statistics(statistics: Statistics, path: Path) -> None:
    """Write `path` (npz, no pickle) with its provenance, and beside it a JSON of the same with the payload's SHA-256.

    Raises:
        DataError: another JSON stands where that of the statistics belongs.
    """
    beside = path.with_suffix(".json")
    if beside.is_file() and _described(beside) is None:
        raise DataError(
            f"{beside}: is there and describes no statistics; it would be overwritten",
            hint="choose another name for the statistics",
        )
    described = {
        "schema": STATISTICS_SCHEMA,
        "dataset": statistics.dataset,
        "dataset_fingerprint": statistics.dataset_fingerprint,
        "split": statistics.split,
        "num_samples": statistics.num_samples,
        "protocol": statistics.protocol,
        "sha256": statistics.sha256,
    }
    buffer = io.BytesIO()
    said = np.array(json.dumps(described))
    np.savez(buffer, mu=statistics.mean, sigma=statistics.covariance, genbench=said)  # named as PROVENANCE is
    payload = buffer.getvalue()
    described["payload_sha256"] = hashlib.sha256(payload).hexdigest()
    write_atomically(path, payload)
    write_atomically(beside, (json.dumps(described, indent=2) + "\n").encode())


def _described(path: Path) -> dict[str, object] | None:
    """What a JSON says of statistics, None where it speaks of something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return (
        found if isinstance(found, dict) and str(found.get("schema", "")).startswith("genbench.statistics/") else None
    )


def load_statistics(path: Path) -> Statistics:
    """Read and verify statistics written by `save_statistics`; without the JSON beside them they speak for themselves.

    Raises:
        StaleStatistics: the file is missing, damaged, of another schema, or says nowhere what made it.
    """
    beside = path.with_suffix(".json")
    try:
        payload = path.read_bytes()
        described = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
        if described is not None and described["payload_sha256"] != hashlib.sha256(payload).hexdigest():
            raise StaleStatistics(f"{path}: the content does not match its recorded SHA-256")
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            mean, covariance = arrays["mu"], arrays["sigma"]
            described = json.loads(str(arrays[PROVENANCE])) if described is None else described
        if described["schema"] != STATISTICS_SCHEMA:
            raise StaleStatistics(f"{path}: schema `{described['schema']}`, expected `{STATISTICS_SCHEMA}`")
        found = Statistics(
            mean=mean,
            covariance=covariance,
            num_samples=int(described["num_samples"]),
            protocol=described["protocol"],
            dataset=described["dataset"],
            split=described["split"],
            dataset_fingerprint=described["dataset_fingerprint"],
        )
        if found.sha256 != described["sha256"]:
            raise StaleStatistics(f"{path}: the moments do not match their recorded SHA-256")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise StaleStatistics(f"{path}: cannot be read: {error}", hint="remake it with `genbench stats`") from error
    return found


def describes_itself(path: Path) -> bool:
    """Whether a file of statistics holds its own provenance, as `save_statistics` writes it."""
    try:
        with zipfile.ZipFile(path) as file:
            return f"{PROVENANCE}.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


FEATURES: Registry[FeatureExtractor] = Registry("feature extractor", "features")
register_features = FEATURES.register


def build_features(ref: Ref) -> FeatureExtractor:
    """Build the extractor that `ref` names, in evaluation mode, without gradients.

    Raises:
        UnknownName, SettingError: as the registry and the settings say.
    """
    kind = FEATURES.get(ref.name)
    config_kind = vars(kind).get("Config")
    if config_kind is None and ref.config:
        raise SettingError(f"feature extractor `{ref.name}` has no settings, found {sorted(ref.config)}")
    if config_kind is None:
        extractor = cast("Callable[[], FeatureExtractor]", kind)()
    else:
        config = with_settings(cast("DataclassInstance", config_kind()), ref.config, owner=ref.name)
        extractor = cast("Callable[[DataclassInstance], FeatureExtractor]", kind)(config)
    return extractor.eval().requires_grad_(False)


@torch.no_grad()
def extract(extractor: FeatureExtractor, images: Tensor, *, batch_size: int = 256) -> Tensor:
    """Features of many images in batches on the extractor's device: (N, F) on the CPU, in the extractor's precision."""
    device = next(extractor.parameters()).device
    return torch.cat([extractor(chunk.to(device)).cpu() for chunk in images.split(batch_size)])
