import pytest

from genbench.core.model import (
    DequantisedLikelihood,
    ExactLikelihood,
    LikelihoodBound,
    LikelihoodEstimate,
)


def _scorer(base):
    class Scorer(base):
        def log_likelihood(self, x, *, generator):
            return x.sum(1)

    return Scorer()


@pytest.mark.parametrize(
    ("base", "kind", "estimator"),
    [
        (ExactLikelihood, "exact", "exact"),
        (DequantisedLikelihood, "dequantised", "uniform dequantisation, 1 draw"),
        (LikelihoodBound, "bound", ""),
        (LikelihoodEstimate, "estimate", ""),
    ],
)
def test_each_likelihood_has_a_kind_and_where_its_class_tells_it_an_estimator(base, kind, estimator):
    scorer = _scorer(base)
    assert (scorer.likelihood_kind, scorer.likelihood_estimator) == (kind, estimator)


def test_a_model_may_say_what_its_settings_make_of_the_estimator():
    class Weighted(LikelihoodBound):
        num_draws = 16

        @property
        def likelihood_estimator(self):
            return f"importance-weighted bound, {self.num_draws} draws"

        def log_likelihood(self, x, *, generator):
            return x.sum(1)

    assert Weighted().likelihood_estimator == "importance-weighted bound, 16 draws"
