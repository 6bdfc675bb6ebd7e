"""Samples or a reference in whatever form they come: pictures, a statistics file, features, arrays."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import DATASETS, FILE_KINDS, Dataset, Split, build_dataset
from genbench.core.errors import DataError, SampleError, nearest
from genbench.core.features import Statistics
from genbench.core.spec import Ref, parse_ref
from genbench.core.statistics import read_statistics
from genbench.data.npz import IMAGE_NAMES, array_forms
from genbench.evaluation.pictures import HeldImages, Pictures, every_picture

Given = str | Path | Ref | Tensor | np.ndarray | Statistics
"""A path, a data set by name, images (N, C, H, W) or (N, H, W, C) uint8, features (N, F) float, or moments."""
FEATURES_GIVEN = "given"
"""Name of the extractor where features are given."""
_MOMENTS, _SPATIAL = frozenset({"mu", "sigma"}), frozenset({"mu_s", "sigma_s"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a comparison; what is None is not known."""

    label: str
    ref: Ref | None = None
    dataset: Dataset | None = None
    splits: tuple[Split, ...] = ()
    features: Tensor | None = None
    """(N, F) float."""
    statistics: Statistics | None = None
    """Moments that were given; beside pictures they are of other examples, mostly more."""
    spatial: Statistics | None = None
    """The same of the extractor's spatial layer."""

    def pictures(self) -> Pictures:
        """All pictures of the splits that are meant; the side must have some, and an end."""
        assert self.dataset is not None
        chosen = every_picture(self.dataset)
        return Pictures(self.dataset, tuple((split, rows) for split, rows in chosen.rows if split in self.splits))

    def same_as(self, other: Side) -> bool:
        """Whether both are the same pictures, or the same features."""
        if self.dataset is not None and other.dataset is not None:
            return self.splits == other.splits and self.dataset.fingerprint() == other.dataset.fingerprint()
        if self.features is not None and other.features is not None:
            return self.features.shape == other.features.shape and bool((self.features == other.features).all())
        return False


def read_side(given: Given, *, split: Split | None, features_given: bool, assumed: str = "inception_v3") -> Side:
    """Find out what was given.

    The reference batches of guided diffusion (ADM) hold moments of a whole training set and some of its pictures: both
    are given, unless a split is asked for, since the moments are of none.

    Args:
        given: samples or a reference.
        split: the part of a data set that is meant; None: `train` of a data set known by name, everything of a file or
            folder.
        features_given: whether files and arrays hold features in place of images.
        assumed: the extractor behind statistics of other programs, which do not say.

    Raises:
        DataError: nothing is there, or it is damaged.
        SampleError: an array of the wrong form.
    """
    if isinstance(given, Statistics):
        return Side(label=given.dataset, statistics=given)
    if isinstance(given, Tensor | np.ndarray):
        return _of_array(given, features_given=features_given)
    if isinstance(given, str | Path) and features_given:
        return _of_feature_file(Path(given).expanduser(), assumed)
    ref = given if isinstance(given, Ref) else data_ref(str(given))
    forms = array_forms(Path(ref.argument).expanduser()) if ref.name == "npz" and ref.argument is not None else {}
    if not forms.keys() >= _MOMENTS:
        return _of_dataset(ref, split)
    if not any(len(forms.get(name, ())) in (3, 4) for name in IMAGE_NAMES):
        return _of_statistics(ref, assumed)
    pictures = _of_dataset(ref, split)
    return pictures if split is not None else _with_moments(pictures, ref, assumed)


def read_reference(given: Given, *, split: Split | None, features_given: bool, assumed: str = "inception_v3") -> Side:
    """Real training data, in any form that `read_side` takes; what the user has set apart as `test` is not among them.

    Args:
        given: the reference.
        split: the part that is meant; None: `train` where the user has set `test` apart, else everything of a file or
            folder.
        features_given: as in `read_side`.
        assumed: as in `read_side`.
    """
    side = read_side(given, split=split, features_given=features_given, assumed=assumed)
    if split is None and side.dataset is not None and side.dataset.divided_by_owner:
        return dataclasses.replace(side, splits=("train",))
    return side


def data_ref(text: str) -> Ref:
    """A data set's name, or a path: folders and files need no prefix.

    Raises:
        DataError: it is neither.
    """
    head, bracket, settings = text.partition("[") if text.endswith("]") else (text, "", "")
    path = Path(head).expanduser()
    if path.is_dir():
        return parse_ref(f"folder:{path}{bracket}{settings}")
    if path.suffix.lower() in FILE_KINDS and (path.exists() or ":" not in head):
        if not path.is_file():
            raise DataError(f"{path}: there is no such file", hint="check the path")
        return parse_ref(f"{FILE_KINDS[path.suffix.lower()]}:{path}{bracket}{settings}")
    ref = parse_ref(text)
    known = DATASETS.names()
    if ref.name not in known:
        kinds = ", ".join(sorted(FILE_KINDS))
        raise DataError(
            f"`{text}` is no folder, no file ({kinds}) and no dataset",
            hint=f"{nearest(ref.name, known)}; datasets: {', '.join(known)}",
        )
    return ref


def checked_features(features: Tensor, where: str) -> Tensor:
    """Given features (N, F), promoted to at least float32.

    Raises:
        SampleError: another form, or values that are not finite.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise SampleError(
            f"{where}: {features.dtype} of shape {tuple(features.shape)}, expected features: floats of shape (N, F)",
            hint="images are scored without `--features given`",
        )
    broken = int((~torch.isfinite(features)).any(dim=1).sum())
    if broken:
        raise SampleError(f"{where}: {broken} of {len(features)} rows hold NaN or infinity, all must be finite")
    return features if features.dtype in {torch.float32, torch.float64} else features.float()


def _of_feature_file(path: Path, assumed: str) -> Side:
    names = array_forms(path).keys()
    if names >= _MOMENTS and "features" not in names:
        return _of_statistics(Ref(name="npz", argument=str(path)), assumed)
    return Side(label=str(path), features=checked_features(_feature_file(path), str(path)))


def _of_array(given: Tensor | np.ndarray, *, features_given: bool) -> Side:
    array = torch.as_tensor(given).detach().cpu()
    if features_given:
        return Side(label="array", features=checked_features(array, "the array"))
    channels_last = array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3)
    images = array.permute(0, 3, 1, 2).contiguous() if channels_last else array
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
        raise SampleError(
            f"the array is {array.dtype} of shape {tuple(array.shape)}, expected uint8 images of shape (N, C, H, W) or "
            f"(N, H, W, C) with values 0 .. 255",
            hint="scale floats and round them; give `features='given'` for features of shape (N, F)",
        )
    return Side(label="array", dataset=HeldImages(images), splits=("train",))


def _of_dataset(ref: Ref, split: Split | None) -> Side:
    dataset = build_dataset(ref)
    splits: tuple[Split, ...] = dataset.splits if dataset.takes_argument else ("train",)
    if split is not None:
        if split not in dataset.splits:
            raise DataError(f"`{ref.label}` has no split `{split}`", hint=f"it has {', '.join(dataset.splits)}")
        splits = (split,)
    return Side(label=ref.label, ref=ref, dataset=dataset, splits=splits)


def _of_statistics(ref: Ref, assumed: str) -> Side:
    return _with_moments(Side(label=str(Path(ref.argument or "").expanduser()), ref=ref), ref, assumed)


def _with_moments(side: Side, ref: Ref, assumed: str) -> Side:
    """The side with the moments of its file, those of the spatial layer included where it has some."""
    path, made_by = Path(ref.argument or "").expanduser(), {"extractor": assumed}
    both = array_forms(path).keys() >= _SPATIAL
    return dataclasses.replace(
        side,
        statistics=read_statistics(path, assume=made_by),
        spatial=read_statistics(path, assume=made_by, layer="spatial") if both else None,
    )


def _feature_file(path: Path) -> Tensor:
    hint = "features are .npy or .npz files with one array (N, F), or .pt files with one tensor; no pickles"
    try:
        kind: Literal["npy", "npz", "pt"] | str = FILE_KINDS[path.suffix.lower()]
        if kind == "npy":
            return torch.from_numpy(np.array(np.load(path, allow_pickle=False)))
        if kind == "npz":
            with np.load(path, allow_pickle=False) as arrays:
                names = arrays.files
                return torch.from_numpy(arrays["features" if "features" in names else names[0]])
        if kind == "pt":
            found = torch.load(path, weights_only=True, map_location="cpu")
            if isinstance(found, Tensor):
                return found
    except (OSError, ValueError, KeyError, IndexError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no features: {error}", hint=hint) from error
    raise DataError(f"{path}: no features", hint=hint)
