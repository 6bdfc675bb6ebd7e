"""Time to quality: how long a training takes until its model is good enough.

The model is looked at after fixed numbers of training examples, so that faster code gets no more chances than slower,
and the clock of the training stands meanwhile (`harness/looks.py`). A look draws samples from the averaged weights,
always with the same seeds, and scores them as the end of a cell would. The target is reached at the second of the first
two looks in a row that meet it: one alone may be luck. A training that does not reach it within its budget has missed
it; that is a result, and the budget stands in the record.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from genbench.core.dataset import Dataset
from genbench.core.errors import SampleError, SettingError
from genbench.core.features import extract
from genbench.core.metric import Evidence, Need, build_metric, scores_or_reason
from genbench.core.model import GenerativeModel
from genbench.core.record import Better, Look, Score, TimeToQuality
from genbench.core.spec import Cell, Target
from genbench.evaluation.networks import Networks
from genbench.evaluation.pictures import shown
from genbench.harness.applicable import why_not
from genbench.harness.evidence import gather
from genbench.harness.looks import Looks
from genbench.harness.sample import draw_untimed

_COMPARED = frozenset({Need.MOMENTS, Need.FEATURES, Need.HELD_OUT})
_SEED_OFFSET = 104_729  # looks never draw what the cell draws at its end


class QualityWatch:
    """Looks at the model of a cell in training and keeps what it saw.

    Args:
        target: what is to be reached.
        cell: whose protocol counts references and likelihoods.
        dataset: of the cell.
        networks: of the suite.
        model: that trains.
    """

    def __init__(
        self, target: Target, cell: Cell, dataset: Dataset, networks: Networks, model: GenerativeModel
    ) -> None:
        self._target, self._cell, self._dataset, self._networks, self._model = target, cell, dataset, networks, model
        self._metric = build_metric(target.metric)
        self._first: Evidence | None = None
        self._score: Score | None = None
        self._looks: list[Look] = []

    @property
    def why_not(self) -> str | None:
        """Why the target does not apply to the model, None when it does."""
        return why_not(self._metric, self._model, self._dataset, self._networks)

    @property
    def looks(self) -> Looks:
        """For `train`."""
        return Looks(every=self._target.every, look=self._look)

    def found(self) -> TimeToQuality | None:
        """What the looks say; None where not one gave a score."""
        if self._score is None:
            return None
        score, end = self._score, self._looks[-1]
        reached = first_reached(self._looks, self._target.value, score.better)
        return TimeToQuality(
            score=score.name,
            unit=score.unit,
            better=score.better,
            target=self._target.value,
            num_samples=self._target.num_samples,
            every=self._target.every,
            protocol=score.protocol,
            looks=tuple(self._looks),
            seconds=None if reached is None else reached.seconds,
            samples_seen=None if reached is None else reached.samples_seen,
            budget_seconds=end.seconds,
            budget_samples=end.samples_seen,
        )

    def _look(self, samples_seen: int, seconds: float) -> None:
        self._looks.append(Look(samples_seen=samples_seen, seconds=seconds, value=self._value()))

    def _value(self) -> float | None:
        try:
            samples = draw_untimed(self._model, self._target.num_samples, seed=self._cell.seed + _SEED_OFFSET)
        except SampleError:  # in the middle of a training that is a bad score, and no reason to stop it
            return None
        scores = scores_or_reason(self._metric, self._evidence(samples))
        if isinstance(scores, str):
            return None
        self._score = _chosen(scores, self._target)
        return self._score.value

    def _evidence(self, samples: Tensor) -> Evidence:
        """Of these samples; features of the reference are those of the first look."""
        cell, dataset, networks, model = self._cell, self._dataset, self._networks, self._model
        if self._first is None or self._first.features is None:
            self._first = gather(self._metric.needs, cell, dataset, networks, samples, model)
            return self._first
        evidence = gather(self._metric.needs - _COMPARED, cell, dataset, networks, samples, model)
        drawn = extract(networks.get("features"), shown(samples, dataset.spec))
        features = dataclasses.replace(self._first.features, samples=drawn)
        return dataclasses.replace(evidence, features=features)


def first_reached(looks: Sequence[Look], target: float, better: Better) -> Look | None:
    """The second of the first two looks in a row that meet a target, None where none do."""

    def meets(look: Look) -> bool:
        if look.value is None:
            return False
        return look.value >= target if better == "higher" else look.value <= target

    return next((second for first, second in pairwise(looks) if meets(first) and meets(second)), None)


def _chosen(scores: Sequence[Score], target: Target) -> Score:
    """The score that the target names.

    Raises:
        SettingError: the metric gives none of that name.
    """
    if target.score is None:
        return scores[0]
    found = next((score for score in scores if score.name == target.score), None)
    if found is None:
        names = ", ".join(f"`{score.name}`" for score in scores)
        raise SettingError(
            f"`target`: `{target.metric.label}` gives no score `{target.score}`", hint=f"it gives {names}"
        )
    return found
