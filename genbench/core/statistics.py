"""Statistics files of genbench and of other programs, and whether they may be compared.

Files of other programs hold numbers and nothing of what made them: whoever reads one has to say so,
and a score against it says that its identity is not recorded.

    genbench                            mu, sigma, their provenance, and a JSON beside them
    pytorch-fid, clean-fid, EDM         mu, sigma
    guided diffusion (ADM)              mu, sigma, mu_s, sigma_s of the spatial layer, arr_0 pictures
    EDM2, StyleGAN3                     a pickle: refused, since reading one runs the code in it
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from genbench.core.errors import DataError, StaleStatistics
from genbench.core.features import Statistics, describes_itself, load_statistics
from genbench.core.spec import Scalar

NOT_RECORDED = "not recorded"
"""Value of the protocol's `identity` where a file does not say what made it."""

#: Asymmetry and negative eigenvalues that rounding to float32 leaves, relative to the largest entry.
_ROUNDING = 1e-5
_NAMES = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
_ABOUT_THE_NUMBERS = frozenset({"num_samples", "ddof"})


def read_statistics(
    path: Path,
    *,
    assume: Mapping[str, Scalar] | None = None,
    layer: Literal["features", "spatial"] = "features",
) -> Statistics:
    """Statistics from a file of genbench, or from the npz of another program.

    Args:
        path: npz.
        assume: what made a file of another program: `extractor`, and whatever else of its protocol is
            known, such as `resize`; `num_samples` (0, unknown, if absent) and `ddof` (1 if absent) say
            how its covariance is scaled. Not used for a file of genbench, which knows.
        layer: which moments of a file that holds those of two.

    Raises:
        StaleStatistics: the file is damaged, or of another program and nobody said what made it.
        DataError: the numbers are no mean and covariance.
    """
    if path.suffix in {".pkl", ".pickle"}:
        raise StaleStatistics(
            f"{path}: a pickle runs code when it is read, expected an npz with `mu` and `sigma`",
            hint="where you trust the file, write its `mu` and `sigma` with `numpy.savez` in the program it is of",
        )
    if describes_itself(path) or path.with_suffix(".json").is_file():
        found = load_statistics(path)
        _sound(path, found.mean, found.covariance)
        return found
    mean, covariance = _moments(path, layer)
    if assume is None or "extractor" not in assume:
        raise StaleStatistics(
            f"{path}: does not say which extractor made it, and there is no {path.with_suffix('.json').name} beside it",
            hint="name the extractor, and its resize if you know it, or remake the file with `genbench stats`",
        )
    return _foreign(path, mean, covariance, assume, layer)


def check_comparable(
    statistics: Statistics,
    protocol: Mapping[str, Scalar],
    *,
    num_features: int | None = None,
    num_samples: int | None = None,
) -> None:
    """Refuse statistics made in another way than the features that they would be compared with.

    A file that records no identity is held to what it was said to be and to nothing else.

    Args:
        statistics: of one side.
        protocol: of the other side's features.
        num_features: length of those, None not to compare it.
        num_samples: count that the statistics must have, None to take any.

    Raises:
        StaleStatistics: the message names each difference.
    """
    own = {key: value for key, value in statistics.protocol.items() if key != "identity"}
    keys = set(own) if statistics.protocol.get("identity") == NOT_RECORDED else set(own) | set(protocol)
    pairs: list[tuple[str, Scalar | None, Scalar | None]] = [
        (key, own.get(key), protocol.get(key)) for key in sorted(keys - {"identity"})
    ]
    if num_features is not None:
        pairs.append(("num_features", len(statistics.mean), num_features))
    if num_samples is not None:
        pairs.append(("num_samples", statistics.num_samples, num_samples))
    wrong = [f"{key} `{_spelt(mine)}` against `{_spelt(theirs)}`" for key, mine, theirs in pairs if mine != theirs]
    if wrong:
        raise StaleStatistics(
            f"statistics of {statistics.dataset or 'unnamed data'} cannot be compared with these features: "
            + ", ".join(wrong),
            hint="make both sides with the same extractor and settings, for example with `genbench stats`",
        )


def _spelt(value: Scalar | None) -> str:
    return "unknown" if value is None else str(value)


def _moments(path: Path, layer: Literal["features", "spatial"]) -> tuple[np.ndarray, np.ndarray]:
    names = _NAMES[layer]
    try:
        # Opened here: numpy leaves its own handle open when the archive turns out to be broken.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise StaleStatistics(f"{path}: is a single array, expected an npz with `{names[0]}` and `{names[1]}`")
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise StaleStatistics(
                    f"{path}: has no `{'`, `'.join(missing)}` but {', '.join(archive.files) or 'nothing'}, "
                    f"expected `{names[0]}` and `{names[1]}`"
                )
            mean, covariance = archive[names[0]], archive[names[1]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise StaleStatistics(f"{path}: cannot be read: {error}") from error
    return _sound(path, mean, covariance)


def _sound(path: Path, mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, the covariance symmetric to the last bit."""
    if mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise DataError(f"{path}: `mu` is {mean.dtype} and `sigma` {covariance.dtype}, expected floats")
    if mean.ndim != 1 or len(mean) < 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(f"{path}: `mu` has shape {mean.shape} and `sigma` {covariance.shape}, expected (F,) and (F, F)")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError(f"{path}: holds NaN or infinity")
    sigma = np.asarray(covariance, dtype=np.float64)
    size = float(np.abs(sigma).max())
    if float(np.abs(sigma - sigma.T).max()) > _ROUNDING * size:
        raise DataError(f"{path}: `sigma` is not symmetric, so it is no covariance")
    sigma = (sigma + sigma.T) / 2.0
    try:
        np.linalg.cholesky(sigma + np.eye(len(sigma)) * (_ROUNDING * size + np.finfo(np.float64).tiny))
    except np.linalg.LinAlgError as error:
        raise DataError(f"{path}: `sigma` has negative eigenvalues, so it is no covariance") from error
    return np.asarray(mean, dtype=np.float64), sigma


def _foreign(
    path: Path,
    mean: np.ndarray,
    covariance: np.ndarray,
    assume: Mapping[str, Scalar],
    layer: Literal["features", "spatial"],
) -> Statistics:
    count, ddof = int(assume.get("num_samples", 0)), int(assume.get("ddof", 1))
    if ddof not in (0, 1):
        raise DataError(f"{path}: ddof is {ddof}, expected 0 or 1")
    if ddof == 0:
        if count < 2:
            raise DataError(f"{path}: a covariance with ddof 0 can be converted only if `num_samples` is known")
        covariance = covariance * (count / (count - 1))
    made = {key: value for key, value in assume.items() if key not in _ABOUT_THE_NUMBERS}
    located: dict[str, Scalar] = {} if layer == "features" else {"layer": layer}
    return Statistics(
        mean=mean,
        covariance=covariance,
        num_samples=count,
        protocol={**made, **located, "identity": NOT_RECORDED},
        dataset=path.name,
        split="",
        dataset_fingerprint="",
    )
