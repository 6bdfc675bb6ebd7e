"""What an evaluation is told beside its samples, its reference and its metrics."""

from __future__ import annotations

import dataclasses

from genbench.evaluation.extraction import Tell, silent
from genbench.evaluation.prompts import Captions, ReferenceCaptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What else an evaluation is told."""

    num_reference: int = 10_000
    """Reference examples behind the metrics that compare features one by one, at most."""
    captions: Captions | None = None
    """What each sample was asked to show, in the order of the samples or by the name of its file; None: what the
    samples carry."""
    reference_captions: ReferenceCaptions | None = None
    """Other captions of the same, one or several for each sample."""
    caption_prefix: str = ""
    """Words before every caption when it is embedded."""
    caching: bool = True
    tell: Tell = silent
