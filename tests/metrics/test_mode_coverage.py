import itertools

import numpy as np
import pytest
import torch

from genbench.core.dataset import Factor
from genbench.core.features import FactorPredictions
from genbench.core.metric import Evidence, FactorEvidence
from genbench.metrics.mode_coverage import ModeCoverage

FACTORS = (Factor("shape", ("a", "b", "c")), Factor("colour", ("r", "g", "b", "y")))
TRAINING = torch.tensor([pair for pair in itertools.product(range(3), range(4)) if pair != (2, 3)])


def _scores(values, confidence=None, training=TRAINING, **settings):
    confidence = torch.ones(len(values)) if confidence is None else confidence
    evidence = FactorEvidence(samples=FactorPredictions(values, confidence, FACTORS), training=training)
    return {score.name: score for score in ModeCoverage(**settings).compute(Evidence(factors=evidence))}


def test_every_combination_once_is_full_coverage():
    assert _scores(TRAINING)["mode_coverage"].value == 1.0


def test_repeats_and_combinations_outside_training_add_nothing():
    values = torch.tensor([[0, 0], [0, 0], [1, 2], [2, 3]])
    scores = _scores(values)
    assert scores["mode_coverage"].value == 2 / 11
    assert scores["recognised"].value == 1.0


def test_samples_read_without_confidence_do_not_count():
    scores = _scores(TRAINING, torch.tensor([0.4] * 5 + [0.6] * 6), min_confidence=0.5)
    assert scores["mode_coverage"].value == 6 / 11
    assert scores["recognised"].value == 6 / 11
    assert scores["mode_coverage"].protocol["min_confidence"] == 0.5


def test_nothing_recognised_is_zero_with_an_interval_above_it_for_the_share():
    scores = _scores(TRAINING, torch.zeros(11))
    assert scores["mode_coverage"].value == scores["recognised"].value == 0.0
    assert scores["recognised"].ci95 is not None
    assert scores["recognised"].ci95[1] > 0.1


def test_full_coverage_by_many_samples_is_certain():
    assert _scores(TRAINING.repeat(50, 1))["mode_coverage"].stderr == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("num", [300, 800, 2000])
def test_standard_error_matches_the_spread_over_repetitions(num):
    """800 equally likely combinations, as in the default dataset."""
    factors = (Factor("one", tuple(map(str, range(800)))),)
    training = torch.arange(800)[:, None]
    random = np.random.default_rng(0)
    found = []
    for _ in range(50):
        values = torch.from_numpy(random.integers(0, 800, (num, 1)))
        evidence = FactorEvidence(samples=FactorPredictions(values, torch.ones(num), factors), training=training)
        found.append(ModeCoverage().compute(Evidence(factors=evidence))[0])
    values = [score.value for score in found]
    assert np.mean(values) == pytest.approx(1.0 - (1.0 - 1.0 / 800) ** num, abs=0.005)
    errors = [score.stderr or 0.0 for score in found]
    assert 0.75 < np.mean(errors) / np.std(values, ddof=1) < 1.35


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        (torch.empty(0, 2, dtype=torch.int64), torch.empty(0), "at least 1 sample"),
        (torch.zeros(4, 3, dtype=torch.int64), torch.ones(4), "3 factors"),
        (torch.zeros(2, 2, dtype=torch.int64), torch.tensor([1.0, float("nan")]), "finite"),
    ],
)
def test_evidence_that_cannot_be_counted_is_refused(values, confidence, message):
    with pytest.raises(ValueError, match=message):
        _scores(values, confidence)


def test_no_evidence_is_refused():
    with pytest.raises(ValueError, match="found none"):
        ModeCoverage().compute(Evidence())
