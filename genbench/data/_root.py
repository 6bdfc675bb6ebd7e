"""Where downloaded data lie; plans look there too, without torch."""

from __future__ import annotations

from genbench.core.data_root import data_root, missing

__all__ = ["data_root", "missing"]
