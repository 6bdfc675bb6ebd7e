"""Reference statistics of a dataset: shipped, from the cache, or computed once and cached."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from genbench.core.dataset import Dataset, Split
from genbench.core.errors import SettingError, StaleStatistics
from genbench.core.features import FeatureExtractor, Statistics, extract, load_statistics, save_statistics
from genbench.core.shipped import cache_folder, shipped
from genbench.core.spec import Ref, digest
from genbench.evaluation.extraction import Tell, silent
from genbench.evaluation.pictures import some_pictures
from genbench.prob.moments import Moments

NUM_EXAMPLES = 50_000
"""Examples behind reference statistics, all of a smaller split."""

logger = logging.getLogger(__name__)


def reference_statistics(
    dataset_ref: Ref,
    dataset: Dataset,
    extractor: FeatureExtractor,
    *,
    extractor_ref: Ref,
    split: Split = "train",
    num_examples: int = NUM_EXAMPLES,
) -> Statistics:
    """Moments of a split's features: the shipped file's, the cache's, or new ones.

    Args:
        dataset_ref: what `dataset` was built from; names the shipped file.
        dataset: images.
        extractor: network from images to features.
        extractor_ref: what `extractor` was built from.
        split: which part.
        num_examples: at most this many examples; another number than the shipped one passes that by.

    Raises:
        StaleStatistics: the shipped file was made from other data or by another extractor.
    """
    path = shipped("reference_stats") / dataset_label(dataset_ref) / f"{extractor_ref.name}-{split}.npz"
    if path.is_file() and num_examples == NUM_EXAMPLES and not extractor_ref.config:
        found = load_statistics(path)
        _check(found, path, dataset_ref, dataset, extractor, extractor_ref)
        return found
    return _cached(dataset_ref, dataset, extractor, split=split, num_examples=num_examples)


def compute_statistics(
    dataset_ref: Ref,
    dataset: Dataset,
    extractor: FeatureExtractor,
    *,
    splits: Sequence[Split] = ("train",),
    num_examples: int = NUM_EXAMPLES,
    tell: Tell = silent,
) -> Statistics:
    """Moments of the features of up to `num_examples` examples of some splits, never looked up.

    Examples are the first of an endless split, and a seeded subset of finite ones. Features are never held whole.

    Raises:
        SettingError: the extractor looks at data of another kind.
    """
    if extractor.kind != dataset.spec.kind:
        found = f"`{dataset_ref.label}` has kind `{dataset.spec.kind}`"
        raise SettingError(f"the extractor looks at data of kind `{extractor.kind}`, {found}")
    pictures = some_pictures(dataset, splits, num_examples)
    moments = Moments(extractor.num_features)
    for chunk in pictures.chunks():
        moments.add(extract(extractor, chunk))
        tell("pictures", moments.count, len(pictures))
    return Statistics(
        mean=moments.mean,
        covariance=moments.covariance(),
        num_samples=moments.count,
        protocol=extractor.protocol(),
        dataset=dataset_ref.label,
        split=",".join(splits),
        dataset_fingerprint=dataset.fingerprint(),
    )


def dataset_label(ref: Ref) -> str:
    """Folder name of a dataset: `shapes-16` for `shapes[resolution=16]`."""
    head = [ref.name] if ref.argument is None else [ref.name, digest(ref.argument)]
    return "-".join([*head, *(str(value) for _, value in sorted(ref.config.items()))])


def _check(
    found: Statistics, path: Path, dataset_ref: Ref, dataset: Dataset, extractor: FeatureExtractor, extractor_ref: Ref
) -> None:
    command = f"genbench stats {dataset_ref.label} --features {extractor_ref.label} -o {path}"
    wanted = extractor.protocol()
    if found.protocol != wanted:
        other = sorted(key for key in {*found.protocol, *wanted} if found.protocol.get(key) != wanted.get(key))
        raise StaleStatistics(
            f"{path}: made with {_spelt(found.protocol, other)}, `{extractor_ref.label}` has {_spelt(wanted, other)}",
            hint=command,
        )
    if found.dataset_fingerprint != dataset.fingerprint():
        raise StaleStatistics(
            f"{path}: made from data with fingerprint {found.dataset_fingerprint}, "
            f"`{dataset_ref.label}` has {dataset.fingerprint()}",
            hint=command,
        )


def _spelt(protocol: dict[str, bool | int | float | str], keys: list[str]) -> str:
    return ", ".join(f"{key} `{protocol.get(key, 'unknown')}`" for key in keys)


def _cached(
    dataset_ref: Ref, dataset: Dataset, extractor: FeatureExtractor, *, split: Split, num_examples: int
) -> Statistics:
    identity = {
        "fingerprint": dataset.fingerprint(),
        "protocol": extractor.protocol(),
        "split": split,
        "num_examples": num_examples,
    }
    path = cache_folder() / "statistics" / f"{digest(identity)}.npz"
    if path.is_file() or path.with_suffix(".json").is_file():
        try:
            return dataclasses.replace(load_statistics(path), dataset=dataset_ref.label)
        except StaleStatistics as error:
            _set_aside(path)
            logger.warning("%s; set aside under %s and computed again", error.message, path.parent / "bad")
    found = compute_statistics(dataset_ref, dataset, extractor, splits=(split,), num_examples=num_examples)
    save_statistics(found, path)
    return found


def _set_aside(path: Path) -> None:
    bad = path.parent / "bad"
    bad.mkdir(exist_ok=True)
    for part in (path, path.with_suffix(".json")):
        if part.is_file():
            part.replace(bad / part.name)
