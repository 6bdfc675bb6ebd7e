"""Nats per word: a ratio of sums whose error is that of the delta method."""

import numpy as np
import pytest
import torch
from six_texts import six_texts

from genbench.core.metric import build_metric
from genbench.core.spec import Ref
from genbench.metrics.text_nll import ratio_estimate


def test_nats_are_summed_before_they_are_divided():
    scores = build_metric(Ref(name="text_nll")).compute(six_texts())
    assert [(score.name, score.value) for score in scores] == [("text_nll_1shot", 0.5), ("text_nll_0shot", 1.0)]
    assert scores[0].unit == "nats"


def test_the_standard_error_is_the_spread_of_the_ratio_over_repeated_data():
    generator = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(400):
        counts = generator.integers(1, 8, 300)
        amounts = counts * 0.7 + generator.gamma(2.0, 0.5, 300)
        estimate = ratio_estimate(torch.from_numpy(amounts), torch.from_numpy(counts))
        values.append(estimate.value)
        errors.append(estimate.stderr)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)  # 400 repeats know a spread to 3.5 %


def test_what_cannot_be_divided_or_is_not_finite_gives_a_reason():
    with pytest.raises(ValueError, match="at least 1 word"):
        ratio_estimate(torch.ones(3), torch.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        ratio_estimate(torch.tensor([1.0, torch.inf]), torch.ones(2))
    with pytest.raises(ValueError, match="found none"):
        build_metric(Ref(name="text_nll")).compute(six_texts(nats=None))
