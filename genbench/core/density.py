"""The capability of a dataset that is drawn from a law of known density."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class KnownDensity(ABC):
    """Data whose density can be asked for, at least under some settings; a base class beside `Dataset`."""

    @abstractmethod
    def why_no_density(self) -> str | None:
        """Why the density is not known under the settings chosen, None when it is."""

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Exact log-density of examples (B, *shape): (B,), nats per example, -inf outside the support.

        Raises:
            ValueError: it is not known, with the words of `why_no_density`.
        """
