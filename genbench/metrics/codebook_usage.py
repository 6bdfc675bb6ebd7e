"""How much of a codebook the codes of real examples use.

    usage = codes seen / K,    perplexity = exp(H),  H = -sum_c p(c) log p(c)

with p(c) the share of code c among all positions of all examples (van den Oord et al. 2017, arXiv:1711.00937, report
the perplexity; usage is the share of codes that are not dead). Both grow with the number of examples, which therefore
belongs to the protocol: usage is that of as many examples, and the plug-in entropy lies below the true one by about
(codes seen - 1) / 2 positions.

Several books that serve different positions, as the coarse and the fine one of `vqvae2`, count as one whose entries are
those of all: K = sum_b K_b, and a position of any book is a position. With w_b the share of positions that book b
serves, both scores are then means over books:

    usage = sum_b K_b usage_b / K,    log perplexity = sum_b w_b (H_b - log w_b)

so that the book with most positions rules the perplexity, which can exceed that of every book alone; `code_rate` keeps
the books apart.

Positions of one example depend on each other, so examples are the units of both errors, which are delete-one
jackknives. That of usage rests on the codes which occur in a single example, as Good and Turing's estimate of what is
still unseen does (Heltshe and Forrester 1983), and errs upwards (Efron and Stein 1981); one code more is counted among
them, so that a book seen whole has an error too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.prob.intervals import Z95, Estimate, normal_interval

_OWNER = "codebook usage"


def codebook_usage(codes: np.ndarray | Tensor, num_codes: int) -> Estimate:
    """Share of the codebook that these examples use: 0 .. 1.

    Args:
        codes: (N, ...) int, 0 .. num_codes-1; the first axis counts examples.
        num_codes: K.

    Returns:
        The estimate; its error is the delete-one jackknife over examples with one code added, for the mean usage of
        as many examples; too large where nearly all codes are seen.

    Raises:
        ValueError: fewer than 2 examples, no position, or codes outside the codebook.
    """
    found = _checked(codes, num_codes)
    seen, examples, _ = _seen_pairs(found, num_codes)
    used, holders = np.unique(seen, return_counts=True)
    alone = np.isin(seen, used[holders == 1])
    lost = np.bincount(examples[alone], minlength=len(found))  # codes that each example alone brings
    variance = (len(found) - 1) / len(found) * float(((lost - lost.mean()) ** 2).sum()) + 1.0
    value, stderr = len(used) / num_codes, math.sqrt(variance) / num_codes
    interval = normal_interval(value, stderr, low=1.0 / num_codes, high=1.0)
    return Estimate(value, stderr, interval, "delete-one jackknife over examples, and one code")


def codebook_perplexity(codes: np.ndarray | Tensor, num_codes: int) -> Estimate:
    """Exponential of the entropy of the codes: 1 .. num_codes, the number of codes used alike that would equal it.

    Args:
        codes: (N, ...) int, 0 .. num_codes-1; the first axis counts examples.
        num_codes: K.

    Returns:
        The estimate; its error is the delete-one jackknife over examples of the entropy, and the interval is symmetric
        in the entropy.

    Raises:
        ValueError: as for `codebook_usage`.
    """
    found = _checked(codes, num_codes)
    seen, examples, times = _seen_pairs(found, num_codes)
    counts = np.bincount(seen, weights=times, minlength=num_codes)
    total, left = float(found.size), float(found.size - found.shape[1])
    summed = float(_phi(counts).sum())
    entropy = max(0.0, math.log(total) - summed / total)
    lost = np.bincount(examples, weights=_phi(counts[seen]) - _phi(counts[seen] - times), minlength=len(found))
    left_out = math.log(left) - (summed - lost) / left
    stderr = math.sqrt((len(found) - 1) / len(found) * float(((left_out - left_out.mean()) ** 2).sum()))
    low, high = (min(float(num_codes), max(1.0, math.exp(entropy + side * Z95 * stderr))) for side in (-1.0, 1.0))
    value = math.exp(entropy)
    return Estimate(value, value * stderr, (low, high), "delete-one jackknife over examples, of the entropy")


@register_metric("codebook_usage")
@dataclass(frozen=True)
class CodebookUsage(Metric):
    """Share of the codebook in use, and how many codes used alike would carry as much; several books count as one."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.CODES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("codebook_usage", "higher", "share"),
        ScoreName("codebook_perplexity", "higher", "codes"),
    )
    source: ClassVar[str] = "van den Oord et al. 2017, arXiv:1711.00937"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Two scores.

        Raises:
            ValueError: as the functions say.
        """
        found = evidence.codes
        if found is None:
            raise ValueError(f"{_OWNER} needs discrete codes of at least 2 examples, found none")
        num = len(found.codes)
        usage, perplexity = (measure(found.codes, found.num_codes) for measure in (codebook_usage, codebook_perplexity))
        protocol = {"num_examples": num}  # the size of the book is the model's own, and must split no table
        return (
            scored("codebook_usage", usage, better="higher", unit="share", num_samples=num, protocol=protocol),
            scored(
                "codebook_perplexity", perplexity, better="higher", unit="codes", num_samples=num, protocol=protocol
            ),
        )


def _checked(codes: np.ndarray | Tensor, num_codes: int) -> np.ndarray:
    """Codes as (N, T) int64."""
    found = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    if found.ndim < 1 or len(found) < 2 or not found.size:
        raise ValueError(f"{_OWNER} needs discrete codes of at least 2 examples, found an array of {found.shape}")
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{_OWNER} needs whole numbers, found {found.dtype}")
    if found.min() < 0 or found.max() >= num_codes:
        raise ValueError(f"{_OWNER} needs codes 0 .. {num_codes - 1}, found {found.min()} .. {found.max()}")
    return found.reshape(len(found), -1).astype(np.int64, copy=False)


def _seen_pairs(codes: np.ndarray, num_codes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every code that each example holds, the example, and how often it holds it."""
    pairs, times = np.unique(np.arange(len(codes))[:, None] * num_codes + codes, return_counts=True)
    return pairs % num_codes, pairs // num_codes, times


def _phi(counts: np.ndarray) -> np.ndarray:
    """`n log n`, 0 at 0."""
    return np.asarray(counts * np.log(np.maximum(counts, 1.0)))
