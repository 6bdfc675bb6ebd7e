import numpy as np
import pytest
from pydantic import ValidationError

from genbench.core.metric import Evidence, Metric, Need, scores_or_reason
from genbench.core.record import Score


class Raising(Metric):
    """Does what it is told."""

    needs = frozenset({Need.FEATURES})
    gives = ()
    source = "none"

    def __init__(self, act):
        self._act = act

    def compute(self, evidence):
        return self._act()


def _score(value):
    return Score(name="one", value=value, unit="", better="lower", num_samples=1)


def _complain():
    raise ValueError("needs at least 2 samples, found 1")


def test_scores_pass_as_they_are():
    assert scores_or_reason(Raising(lambda: (_score(1.0),)), Evidence()) == (_score(1.0),)


def test_the_documented_error_is_a_reason():
    assert scores_or_reason(Raising(_complain), Evidence()) == "needs at least 2 samples, found 1"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda: (_score(float("nan")),), ValidationError),
        (lambda: np.linalg.inv(np.zeros((2, 2))), np.linalg.LinAlgError),
        (lambda: b"\xff".decode(), UnicodeDecodeError),
        (lambda: {}["missing"], KeyError),
        (lambda: 1 / 0, ZeroDivisionError),
    ],
)
def test_a_fault_of_a_metric_is_never_hidden_not_even_as_a_kind_of_the_documented_error(fault, kind):
    with pytest.raises(kind):
        scores_or_reason(Raising(fault), Evidence())
