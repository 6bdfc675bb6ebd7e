"""What an evaluation is told beside its samples, its reference and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from genbench.harness.extraction import Tell, silent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What else an evaluation is told."""

    num_reference: int = 10_000
    """Reference examples behind the metrics that compare features one by one, at most."""
    captions: Sequence[str] | Mapping[str, str] | None = None
    """What each sample was asked to show, in the order of the samples or by the name of its file."""
    caption_prefix: str = ""
    """Words before every caption when it is embedded."""
    caching: bool = True
    tell: Tell = silent
