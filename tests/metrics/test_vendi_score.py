import math
import types
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

from genbench.core.errors import SettingError
from genbench.core.metric import Evidence, FeatureEvidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.vendi_score import VendiScore, vendi_score

ORDERS = (0.0, 0.5, 1.0, 2.0, 7.0, math.inf)


@pytest.fixture
def vendi(monkeypatch):
    """The authors' package, which asks SciPy for a module that it no longer has."""
    monkeypatch.setattr(scipy.sparse, "csr", types.SimpleNamespace(csr_matrix=scipy.sparse.csr_matrix), raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("vendi_score.vendi")


@pytest.mark.parametrize("q", ORDERS)
@pytest.mark.parametrize("copies", [1, 5])
def test_kinds_that_share_nothing_are_counted(q, copies):
    """With fewer samples than features, and with more."""
    kinds = np.tile(np.eye(6)[:4] * 3.0, (copies, 1))
    assert vendi_score(kinds, q=q).value == pytest.approx(4.0, rel=1e-12)
    assert vendi_score(np.tile(kinds[:1], (9, 1)), q=q).value == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(
    ("q", "expected"), [(0.0, 2.0), (0.5, (0.75**0.5 + 0.25**0.5) ** 2), (2.0, 1.6), (math.inf, 4 / 3)]
)
def test_unequal_kinds_have_the_hill_number_of_their_shares(q, expected):
    kinds = np.repeat(np.eye(2), [30, 10], axis=0)
    assert vendi_score(kinds, q=q).value == pytest.approx(expected, rel=1e-12)
    assert vendi_score(kinds).value == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)), rel=1e-12
    )


@pytest.mark.parametrize("shape", [(60, 12), (12, 60), (20, 20)])
@pytest.mark.parametrize("q", [0.5, 1.0, 2.0])
def test_equal_to_the_authors_package_in_both_dual_forms(vendi, shape, q):
    x = np.random.default_rng(0).normal(size=shape) + 0.5
    expected = vendi.score_dual(x, q=q) if shape[0] > shape[1] else vendi.score_K(_cosines(x), q=q)
    assert vendi_score(x, q=q).value == pytest.approx(expected, rel=1e-9)


def _cosines(x):
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T


def test_the_order_is_heeded_from_features(vendi):
    """The package's `score_X` gives the first order whatever is asked; sum of squared cosines is the judge."""
    x = np.random.default_rng(1).normal(size=(50, 30))
    expected = 50**2 / np.square(_cosines(x)).sum()
    assert vendi_score(x, q=2.0).value == pytest.approx(expected, rel=1e-12)
    assert vendi.score_X(x, q=2) != pytest.approx(expected, rel=1e-3)


def test_the_score_falls_with_the_order():
    x = np.random.default_rng(2).normal(size=(100, 10)) * np.linspace(0.1, 1.0, 10)
    values = [vendi_score(x, q=q).value for q in ORDERS]
    assert values == sorted(values, reverse=True)
    assert values[0] == 10.0


def test_scores_do_not_see_rotation_or_length():
    random = np.random.default_rng(3)
    x = random.normal(size=(80, 7)) + 0.3
    turned = x @ np.linalg.qr(random.normal(size=(7, 7)))[0] * random.uniform(0.5, 2.0, size=(80, 1))
    assert vendi_score(turned).value == pytest.approx(vendi_score(x).value, rel=1e-10)


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, math.inf])
def test_the_error_is_that_of_the_jackknife(q):
    """Differences by leaving out one row, which know no derivative, have the same spread."""
    x = np.random.default_rng(4).normal(size=(300, 5)) * np.linspace(0.4, 1.5, 5) + 0.2
    left_out = [vendi_score(np.delete(x, i, axis=0), q=q).value for i in range(0, 300, 2)]
    assert vendi_score(x, q=q).stderr == pytest.approx(np.std(left_out, ddof=1) * 299 / 300**0.5, rel=0.1)


def test_an_error_from_fewer_samples_than_features_says_what_it_is_worth():
    assert "understated" in vendi_score(np.random.default_rng(6).normal(size=(20, 40))).how


@pytest.mark.slow
@pytest.mark.parametrize("q", [0.5, 1.0, 2.0])
def test_intervals_cover_the_expected_value(q):
    random = np.random.default_rng(5)
    found = [vendi_score(random.normal(size=(250, 6)) * np.linspace(0.3, 1.0, 6) + 0.2, q=q) for _ in range(500)]
    truth = np.mean([one.value for one in found])
    assert 0.92 <= np.mean([one.ci95[0] <= truth <= one.ci95[1] for one in found]) <= 0.98


def _evidence(samples):
    features = FeatureEvidence(samples=samples, reference=None, statistics=None, extractor="clip", protocol={"a": 1})
    return Evidence(features=features)


def test_the_metric_needs_samples_alone_and_has_its_order_in_name_and_protocol():
    samples = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    names = [VendiScore(q=q).compute(_evidence(samples))[0].name for q in (1.0, 2.0, 0.5, math.inf)]
    assert names == ["vendi_clip", "vendi_q2_clip", "vendi_q0.5_clip", "vendi_qinf_clip"]
    (score,) = build_metric(parse_ref("vendi_score[q=2]")).compute(_evidence(samples))
    assert score.protocol["q"] == "2"
    assert score.protocol["num_samples"] == 50
    assert score.ci95[0] <= score.value <= score.ci95[1]


def test_a_rank_has_no_error_and_says_so():
    found = vendi_score(np.eye(5), q=0.0)
    assert found.stderr is None
    assert found.how.startswith("none")


def test_broken_data_are_refused():
    with pytest.raises(ValueError, match="at least 2 samples"):
        vendi_score(np.ones((1, 3)))
    with pytest.raises(ValueError, match="row of zeros"):
        vendi_score(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="finite"):
        VendiScore().compute(_evidence(torch.full((4, 3), float("nan"))))
    with pytest.raises(ValueError, match="found 0"):
        VendiScore().compute(Evidence())
    with pytest.raises(SettingError, match="0 or more"):
        build_metric(parse_ref("vendi_score[q=-1.0]"))
