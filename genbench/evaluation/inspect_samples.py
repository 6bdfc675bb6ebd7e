"""Look at samples made elsewhere on their way to an extractor: refuse what cannot be meant, name what is odd."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from torch import Tensor

from genbench.core.errors import SampleError

_UNSCALED_MAX = 2
"""A set with no value above this was scaled to 0 .. 1 (or shifted to 0 .. 2) and then stored as whole numbers."""
_DARK_MAX = 32
"""A set whose greatest value is below this uses less than an eighth of the range."""
_FEW = 201
"""Below this, the relative standard error of a variance, sqrt(2 / (N - 1)), exceeds a tenth."""
_LOSSY = frozenset({".jpg", ".jpeg"})


class Inspection:
    """Counts over a stream of pictures; `finish` judges them."""

    def __init__(self) -> None:
        self.count = 0
        self._constant = 0
        self._greatest = 0
        self._seen: set[bytes] = set()
        self._distinct = 0
        self._named = 0
        self._lossy = 0

    def add(self, images: Tensor) -> None:
        """Take in (N, 3, H, W) uint8 pictures with values 0 .. 255."""
        flat = images.flatten(1)
        self.count += len(flat)
        self._constant += int((flat == flat[:, :1]).all(dim=1).sum())
        self._greatest = max(self._greatest, int(flat.max()) if len(flat) else 0)
        self._seen |= {hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in flat.cpu().numpy()}
        self._distinct = len(self._seen)

    def counts(self) -> np.ndarray:
        """All that was found in the pictures: (4,) int64, for `recall`."""
        return np.array([self.count, self._constant, self._greatest, self._distinct], dtype=np.int64)

    def recall(self, counts: np.ndarray) -> None:
        """Take in what `counts` said of the same pictures, in place of looking at them."""
        self.count, self._constant, self._greatest, self._distinct = counts.tolist()

    def add_names(self, names: Sequence[str]) -> None:
        """Take in what pictures are called; only the endings of file names count."""
        self._named += len(names)
        self._lossy += sum(PurePath(name).suffix.lower() in _LOSSY for name in names)

    def finish(self) -> None:
        """Judge all pictures seen; call it once, before their features are kept.

        Raises:
            SampleError: there are none, all are the same, all are blank, or their range cannot be that of pictures.
        """
        if self.count == 0:
            raise SampleError("there are no samples", hint="check the path")
        if self.count == 1:
            return
        if self._constant == self.count:
            raise SampleError(
                f"all {self.count} samples are of one value throughout: there is no picture in them",
                hint="check that the sampler ran, and how floats were turned into whole numbers",
            )
        if self._greatest <= _UNSCALED_MAX:
            raise SampleError(
                f"no sample has a value above {self._greatest}, expected 0 .. 255",
                hint="the pictures were probably scaled to 0 .. 1 or -1 .. 1 and then stored as whole numbers: "
                "scale them back to 0 .. 255 (multiply by 255) before rounding",
            )
        if self._distinct == 1:
            raise SampleError(
                f"all {self.count} samples are the same picture: no law can be fitted to one point",
                hint="check that every sample starts from noise of its own",
            )

    def warnings(self) -> tuple[str, ...]:
        """What is odd though it breaks no rule, one phrase each."""
        found = []
        if 1 < self.count < _FEW:
            error = 100.0 * math.sqrt(2.0 / (self.count - 1))
            found.append(f"only {self.count} samples: even a variance is known to {error:.0f} % at best")
        if 0 < self._greatest < _DARK_MAX:
            found.append(f"no sample has a value above {self._greatest} of 255: is the range right?")
        if self._constant:
            found.append(f"{self._constant} of {self.count} samples are of one value throughout")
        if self._distinct < self.count:
            found.append(f"only {self._distinct} of {self.count} samples are distinct")
        if self._lossy:
            found.append(f"{self._lossy} of {self._named} samples were saved as JPEG: compression moves every distance")
        return tuple(found)
