"""Which caption belongs to which sample: as given, or as the samples carry them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

from genbench.core.errors import DataError, SampleError
from genbench.evaluation.options import Options
from genbench.evaluation.pictures import Pictures
from genbench.evaluation.prompts import captions_beside
from genbench.evaluation.sides import Side

Words = TypeVar("Words")


@dataclass(frozen=True)
class SampleCaptions:
    """Captions of the pictures of one side, each looked for when it is asked for."""

    samples: Side
    options: Options

    @functools.cached_property
    def why_not(self) -> str | None:
        """Why the samples have no captions, None when all have one.

        Raises:
            SampleError: captions were given, and do not fit.
        """
        if self.samples.dataset is None:
            return "the samples are no pictures"
        if self.options.captions is not None:
            _ = self.words
            return None
        try:
            return None if self._carried else "the samples have no captions: give `--captions`"
        except (DataError, SampleError) as error:  # nobody asked for these, so they are no mistake of anybody's
            return error.message

    @functools.cached_property
    def words(self) -> list[str]:
        """One caption for each sample, in order; `why_not` must have found them.

        Raises:
            SampleError: some sample has none, or their number differs.
        """
        if self.options.captions is None:
            assert self._carried is not None
            return self._carried
        return _matched(self.options.captions, self.samples.pictures(), "captions")

    @functools.cached_property
    def references(self) -> list[list[str]] | None:
        """Reference captions of each sample, at least one; None where none were given.

        Raises:
            SampleError: some sample has none, or their number differs.
        """
        if self.options.reference_captions is None:
            return None
        found = _matched(self.options.reference_captions, self.samples.pictures(), "reference captions")
        return [[words] if isinstance(words, str) else list(words) for words in found]

    @functools.cached_property
    def _carried(self) -> list[str] | None:
        """What the samples carry: text of their data set, or files beside them."""
        pictures = self.samples.pictures()
        carried = pictures.captions()
        ref = self.samples.ref
        if carried is not None or ref is None or ref.name != "folder":
            return carried
        beside = captions_beside(Path(ref.argument or "").expanduser(), pictures.names())
        return None if beside is None else _matched(beside, pictures, "captions")


def _matched(given: Sequence[Words] | Mapping[str, Words], pictures: Pictures, what: str) -> list[Words]:
    """What belongs to each picture, by the name of its file or by its place among them.

    Raises:
        SampleError: a picture has nothing, or there are more or fewer than pictures.
    """
    if isinstance(given, Mapping):
        names = pictures.names()
        found = [_of_name(given, name) for name in names]
        missing = [name for name, words in zip(names, found, strict=True) if words is None]
        if missing:
            raise SampleError(f"{len(missing)} of {len(names)} samples have no {what}, the first is `{missing[0]}`")
        return [words for words in found if words is not None]
    if len(given) != len(pictures):
        raise SampleError(f"{len(given)} {what} stand beside {len(pictures)} samples; each needs its own")
    return [given[place] for place in pictures.file_order()]


def _of_name(given: Mapping[str, Words], name: str) -> Words | None:
    """By relative path, else by file name, else by that without its ending."""
    return given.get(name, given.get(PurePath(name).name, given.get(PurePath(name).stem)))
