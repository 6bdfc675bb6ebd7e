"""The metrics say what is known in closed form, and a metric that does not is found."""

import dataclasses
import json

import pytest

from genbench.cli.main import main
from genbench.core.metric import METRICS, Need
from genbench.evaluation import selftest as module
from genbench.evaluation.selftest import Check, all_checks, selftest
from genbench.metrics.frechet_distance import FrechetDistance
from genbench.metrics.vendi_score import VendiScore


def _of(metric):
    return [check for check in all_checks() if check.metric == metric and "half splits" not in check.name]


def _check(measured, *, metric="vendi_score", expected=1.0, tolerance=0.5):
    return Check(name="made up", metric=metric, measure=lambda: measured, expected=expected, tolerance=tolerance)


@pytest.fixture
def only_vendi(monkeypatch):
    """Few checks, so that the command answers at once."""
    kept = _of("vendi_score")
    monkeypatch.setattr(module, "all_checks", lambda: iter(kept))


def _scaled(kind, factor):
    compute = kind.compute

    def broken(self, evidence):
        return tuple(score.model_copy(update={"value": score.value * factor}) for score in compute(self, evidence))

    return broken


@pytest.mark.slow
def test_every_metric_says_what_is_known():
    done = selftest()
    assert [result for result in done.results if not result.passed or result.skipped] == []
    assert done.unchecked == ()


def test_every_metric_that_is_registered_is_asked_something():
    assert set(METRICS.files()) - {check.metric for check in all_checks()} == set()


def test_no_two_checks_share_a_name():
    names = [(check.metric, check.name) for check in all_checks()]
    assert len(set(names)) == len(names)


def test_every_metric_of_features_is_asked_for_an_invariance_or_draws_at_random():
    features = {Need.FEATURES, Need.MOMENTS, Need.SPATIAL}
    of_features = {name for name in METRICS.files() if features & METRICS.get(name).needs}
    asked = {check.metric for check in all_checks() if check.name.startswith("unchanged")}
    at_random = {"copying_test", "feature_likelihood_divergence", "frechet_infinity"}
    assert of_features - asked == at_random


def test_a_frechet_distance_that_is_off_by_a_thousandth_is_found(monkeypatch):
    assert selftest(_of("frechet_distance")).passed
    monkeypatch.setattr(FrechetDistance, "compute", _scaled(FrechetDistance, 1.001))
    done = selftest(_of("frechet_distance"))
    assert not done.passed
    failed = {result.name for result in done.results if not result.passed}
    assert "frechet_distance: covariances that do not commute" in failed


def test_a_metric_that_pairs_rows_is_found(monkeypatch):
    compute = VendiScore.compute

    def broken(self, evidence):
        features = evidence.features
        shift = float((features.samples * features.reference[: len(features.samples)]).sum())
        scores = compute(self, evidence)
        return tuple(score.model_copy(update={"value": score.value + shift}) for score in scores)

    monkeypatch.setattr(VendiScore, "compute", broken)
    failed = {result.name for result in selftest(_of("vendi_score")).results if not result.passed}
    assert "vendi_score: unchanged by another order of the rows" in failed


def test_intervals_that_are_too_narrow_or_too_wide_are_found(monkeypatch):
    checks = [check for check in all_checks() if "interval misses 0" in check.name]
    kind = METRICS.get("kernel_distance")
    compute = kind.compute
    for factor in (0.3, 10.0):

        def broken(self, evidence, factor=factor):
            return tuple(
                score.model_copy(
                    update={"ci95": tuple(score.value + factor * (end - score.value) for end in score.ci95)}
                )
                for score in compute(self, evidence)
            )

        monkeypatch.setattr(kind, "compute", broken)
        assert not selftest(checks).passed


def test_a_metric_that_raises_has_failed_and_says_why(monkeypatch):
    def broken(self, evidence):
        raise RuntimeError("out of order")

    monkeypatch.setattr(VendiScore, "compute", broken)
    done = selftest(_of("vendi_score"))
    assert not any(result.passed for result in done.results)
    assert done.results[0].note == "RuntimeError: out of order"


def test_a_metric_that_nobody_registered_is_skipped_and_says_so():
    (result,) = selftest([_check(1.0, metric="no_such_metric")]).results
    assert result.passed
    assert result.skipped
    assert "unknown metric `no_such_metric`" in result.note


@pytest.mark.parametrize(("measured", "passed"), [(1.5, True), (0.5, True), (1.6, False), (float("nan"), False)])
def test_a_check_passes_within_its_tolerance_only(measured, passed):
    assert selftest([_check(measured)]).passed is passed


def test_the_digest_ignores_order_and_rounding_and_nothing_else():
    first, second = _check(1.0), dataclasses.replace(_check(0.7), name="another")
    digest = selftest([first, second]).sha256
    assert selftest([second, first]).sha256 == digest
    assert selftest([_check(1.0 + 1e-14), second]).sha256 == digest
    assert selftest([_check(1.001), second]).sha256 != digest
    assert selftest([dataclasses.replace(first, tolerance=0.4), second]).sha256 != digest


def test_the_command_prints_a_table_and_writes_the_same_digest(only_vendi, capsys, tmp_path):
    assert main(["selftest", "--json", str(tmp_path / "done.json")]) == 0
    page, document = capsys.readouterr().out, json.loads((tmp_path / "done.json").read_text())
    assert f"sha256 {document['sha256']}" in page
    assert "vendi_score: orthogonal vectors" in page
    assert document["schema"] == "genbench.selftest/1"
    assert document["passed"] is True
    assert [result["name"] for result in document["results"]] == sorted(r["name"] for r in document["results"])


def test_the_command_exits_with_1_when_a_metric_is_wrong(only_vendi, monkeypatch, capsys):
    monkeypatch.setattr(VendiScore, "compute", _scaled(VendiScore, 2.0))
    assert main(["selftest"]) == 1
    assert "FAILED" in capsys.readouterr().out
