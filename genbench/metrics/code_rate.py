"""Bits per dimension that discrete codes take.

    code_rate         = T log2 K / D
    code_entropy_rate = T H / (D ln 2),   H = -sum_c p(c) log p(c)

with T codes from a book of K for an image of D dimensions, and p(c) the share of code c among all positions of all
examples, so that H is the logarithm of the codebook's perplexity; both are sums over books where several books serve
different positions. The first is what codes stored as they are cost. The second is what they cost an ideal coder
that knows how often each code occurs and nothing else; a prior that sees neighbours does better, and what it needs is
part of the bound of `bits_per_dim`. Neither says how well the images are rebuilt: a rate is read beside a distortion
(PSNR, LPIPS, rFID), and lower is better at equal distortion only.

Codes that are all used alike have equal rates; the gap between the two is what dead and rare codes waste. H of few
examples lies below the true entropy by about (codes seen - 1) / 2NT nats for N examples, as in `codebook_usage`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, normal_interval

_OWNER = "a code rate"


def code_rate(codes_per_example: int, num_codes: int, num_dims: int) -> float:
    """Bits per dimension of codes stored as they are: T log2 K / D.

    Args:
        codes_per_example: T.
        num_codes: K.
        num_dims: D.

    Example:
        >>> code_rate(16, 256, 768)
        0.16666666666666666

    Raises:
        ValueError: one of them is below 1.
    """
    if min(codes_per_example, num_codes, num_dims) < 1:
        raise ValueError(
            f"{_OWNER} needs at least 1 code, 1 entry of the codebook and 1 dimension, "
            f"found {codes_per_example}, {num_codes} and {num_dims}"
        )
    return codes_per_example * math.log2(num_codes) / num_dims


def code_entropy_rate(
    codes: np.ndarray | Tensor, num_codes: int, num_dims: int, *, books: Sequence[tuple[int, int]] = ()
) -> Estimate:
    """Bits per dimension of codes under their own frequencies: 0 .. the rate of codes stored as they are.

    Args:
        codes: (N, ...) int, 0 .. num_codes-1; the first axis counts examples.
        num_codes: K.
        num_dims: D.
        books: positions and entries of each of several books, as in `CodeEvidence`.

    Returns:
        The estimate; its error is the delete-one jackknife over examples.

    Raises:
        ValueError: fewer than 2 examples, no position, codes outside the alphabet, no dimension, or books that do not
            serve all positions.
    """
    found = _checked(codes, num_codes)
    parts = _books(books, found.shape[1], num_codes)
    highest = sum(code_rate(positions, entries, num_dims) for positions, entries in parts)
    ends = np.cumsum([positions for positions, _ in parts])
    num, value, left_out = len(found), 0.0, np.zeros(len(found))
    for end, (positions, _) in zip(ends, parts, strict=True):
        entropy, without = _entropy(found[:, end - positions : end], num_codes)
        scale = positions / (num_dims * math.log(2.0))
        value, left_out = value + scale * entropy, left_out + scale * without
    value = min(highest, value)  # the two differ by rounding where all codes are used alike
    stderr = math.sqrt((num - 1) / num * float(((left_out - left_out.mean()) ** 2).sum()))
    how = "delete-one jackknife over examples"
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0, high=highest), how)


@register_metric("code_rate")
@dataclass(frozen=True)
class CodeRate(Metric):
    """Bits per dimension of discrete codes, stored as they are and under their own frequencies."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.CODES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("code_rate", "lower", "bits/dim"),
        ScoreName("code_entropy_rate", "lower", "bits/dim"),
    )
    source: ClassVar[str] = "Shannon 1948, Sec. 9; van den Oord et al. 2017, arXiv:1711.00937, for the perplexity"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores; the first is a property of the model and has no spread.

        Raises:
            ValueError: no codes, or codes of images whose dimensions nobody knows; else as the functions say.
        """
        found = evidence.codes
        if found is None:
            raise ValueError(f"{_OWNER} needs discrete codes of at least 2 examples, found none")
        if found.num_dims is None:
            raise ValueError(f"{_OWNER} needs the number of dimensions behind the codes, found none")
        size = (found.num_codes, found.num_dims)
        entropy_rate = code_entropy_rate(found.codes, *size, books=found.books)
        parts = _books(found.books, math.prod(found.codes.shape[1:]), found.num_codes)
        how = " and ".join(f"{positions} codes from a book of {entries}" for positions, entries in parts)
        value = sum(code_rate(positions, entries, found.num_dims) for positions, entries in parts)
        num = len(found.codes)
        protocol: dict[str, Scalar] = {"num_dims": found.num_dims, "num_examples": num}  # books are the model's own
        rate = Estimate(value, how=f"none: counted, {how}")
        return tuple(
            scored(name, estimate, better="lower", unit="bits/dim", num_samples=num, protocol=protocol)
            for name, estimate in (("code_rate", rate), ("code_entropy_rate", entropy_rate))
        )


def _books(books: Sequence[tuple[int, int]], per_example: int, num_codes: int) -> Sequence[tuple[int, int]]:
    """Positions and entries of each book."""
    parts = books or [(per_example, num_codes)]
    if sum(positions for positions, _ in parts) != per_example:
        raise ValueError(f"{_OWNER} needs books for all {per_example} positions of an example, found {list(parts)}")
    return parts


def _checked(codes: np.ndarray | Tensor, num_codes: int) -> np.ndarray:
    """Codes as (N, T) int64."""
    found = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if found.ndim < 1 or len(found) < 2 or not found.size:
        raise ValueError(f"{_OWNER} needs discrete codes of at least 2 examples, found an array of {found.shape}")
    if not np.issubdtype(found.dtype, np.integer) or found.min() < 0 or found.max() >= num_codes:
        raise ValueError(f"{_OWNER} needs whole numbers 0 .. {num_codes - 1}, found others")
    return found.reshape(len(found), -1).astype(np.int64, copy=False)


def _entropy(codes: np.ndarray, num_codes: int) -> tuple[float, np.ndarray]:
    """Entropy of codes (N, T) in nats, and those with each example left out, (N,)."""
    num, per_example = codes.shape
    pairs, times = np.unique(np.arange(num)[:, None] * num_codes + codes, return_counts=True)
    seen, examples = pairs % num_codes, pairs // num_codes
    counts = np.bincount(seen, weights=times, minlength=num_codes)
    lost = np.bincount(examples, weights=_phi(counts[seen]) - _phi(counts[seen] - times), minlength=num)
    summed, total, left = float(_phi(counts).sum()), float(codes.size), float(codes.size - per_example)
    return max(0.0, math.log(total) - summed / total), math.log(left) - (summed - lost) / left


def _phi(counts: np.ndarray) -> np.ndarray:
    """`n log n`, 0 at 0."""
    return np.asarray(counts * np.log(np.maximum(counts, 1.0)))
