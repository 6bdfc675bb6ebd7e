"""Errors that a user can mend: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GenbenchError(Exception):
    """Base of every error a user can mend; prints its message and then a hint."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class UnknownName(GenbenchError):
    """A model, suite, metric, dataset or extractor that nobody registered."""


class BrokenPlugin(GenbenchError):
    """A registered name whose code cannot be imported."""


class SettingError(GenbenchError):
    """A setting with an unknown key, or a value of the wrong type or out of range."""


class SuiteError(GenbenchError):
    """A suite file that cannot be read or does not say what a suite must say."""


class DataError(GenbenchError):
    """Data that is missing, truncated or corrupt."""


class StaleStatistics(GenbenchError):
    """Reference statistics of another extractor, dataset or protocol, or a damaged file."""


class StoreError(GenbenchError):
    """A run folder that cannot be written, or that another version has written."""


class ModelError(GenbenchError):
    """A user's model file that breaks the contract of a model."""


class SampleError(GenbenchError):
    """Samples that no metric may see: non-finite, of the wrong type, range or number."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the nearest valid names, or lists them all when none is near."""
    choices = sorted(known)
    return meant(name, choices) or "known names: " + (", ".join(choices) if choices else "none")


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the nearest valid names, None when none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return "did you mean " + " or ".join(f"`{choice}`" for choice in near) + "?" if near else None
