import pytest

from genbench.core.metric import ScoreName
from genbench.metrics._given_scores import given_scores
from genbench.prob.intervals import Estimate

GIVES = (ScoreName("far", "higher", "m"), ScoreName("near", "lower"))


def test_scores_come_in_the_declared_order_with_declared_directions_and_units():
    found = {"near": Estimate(1.0, 0.1, (0.8, 1.2), "by hand"), "far": Estimate(2.0)}
    far, near = given_scores(GIVES, found, num_samples=5, num_reference=7, protocol={"k": 3})
    assert (far.name, far.value, far.better, far.unit, far.stderr) == ("far", 2.0, "higher", "m", None)
    assert (near.name, near.better, near.ci95, near.interval) == ("near", "lower", (0.8, 1.2), "by hand")
    assert {(score.num_samples, score.num_reference, score.protocol["k"]) for score in (far, near)} == {(5, 7, 3)}


def test_a_declared_number_without_an_estimate_is_a_fault():
    with pytest.raises(KeyError, match="far"):
        given_scores(GIVES, {"near": Estimate(1.0)}, num_samples=5, protocol={})
