"""Counts in a file: read back, kept beside others, and compared."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from genbench.core.bench import Counters
from genbench.core.errors import StoreError
from genbench.regression.counted_file import compare_counted, read_counts, save_counts

COUNTED = Counters(flops=100, operators=10, bytes_allocated=1000, parameters=5)
HERE = "torch 2.9.0, cpu"


def _changed(**fields):
    return COUNTED.model_copy(update=fields)


def _outcomes(known, found, **options):
    return {one.measure: one.outcome for one in compare_counted("step", {HERE: known}, HERE, found, **options)}


def test_counts_come_back_as_they_went(tmp_path):
    path = tmp_path / "deep" / "counts.json"
    save_counts(path, "test_a", {"step": {HERE: _changed(uncounted=("aten::_fft_r2c",))}})
    assert read_counts(path, "test_a") == {"step": {HERE: _changed(uncounted=("aten::_fft_r2c",))}}
    assert read_counts(path, "test_b") == {}


def test_saving_keeps_other_tests_measurements_and_versions(tmp_path):
    path = tmp_path / "counts.json"
    save_counts(path, "test_a", {"step": {HERE: COUNTED}, "draw": {HERE: COUNTED}})
    save_counts(path, "test_b", {"step": {HERE: COUNTED}})
    save_counts(path, "test_a", {"step": {"torch 3.0.0, cpu": _changed(flops=1)}})
    assert read_counts(path, "test_a") == {
        "step": {HERE: COUNTED, "torch 3.0.0, cpu": _changed(flops=1)},
        "draw": {HERE: COUNTED},
    }
    assert read_counts(path, "test_b") == {"step": {HERE: COUNTED}}


def test_what_is_forgotten_is_gone_and_so_is_a_test_without_counts(tmp_path):
    path = tmp_path / "counts.json"
    save_counts(path, "test_a", {"step": {HERE: COUNTED}})
    save_counts(path, "test_a", {}, forget=["step"])
    assert read_counts(path, "test_a") == {}
    assert "test_a" not in path.read_text()


def test_tests_that_save_at_once_lose_nothing(tmp_path):
    path = tmp_path / "counts.json"
    with ThreadPoolExecutor(12) as pool:  # a lock of one open folder keeps out threads as it does processes
        list(
            pool.map(lambda test: save_counts(path, test, {"step": {HERE: COUNTED}}), [f"test_{n}" for n in range(48)])
        )
    assert all(read_counts(path, f"test_{n}") for n in range(48))


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": "other/1"}', '{"schema": "genbench.counted/1", "counted": 3}']
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, content):
    path = tmp_path / "counts.json"
    path.write_text(content)
    with pytest.raises(StoreError, match=r"counts\.json: no counts can be read"):
        read_counts(path, "test_a")
    with pytest.raises(StoreError):
        save_counts(path, "test_a", {})
    assert path.read_text() == content


def test_equal_counts_are_unchanged():
    assert set(_outcomes(COUNTED, COUNTED).values()) == {"unchanged"}


@pytest.mark.parametrize("measure", ["flops", "operators", "bytes_allocated", "parameters"])
def test_one_more_regresses_and_one_less_improves_that_count_alone(measure):
    value = COUNTED.model_dump()[measure]
    for change, outcome in ((1, "regressed"), (-1, "improved")):
        found = _outcomes(COUNTED, _changed(**{measure: value + change}))
        assert found.pop(measure) == outcome
        assert set(found.values()) == {"unchanged"}


def test_a_tolerance_lets_a_share_pass_and_no_more():
    assert _outcomes(COUNTED, _changed(operators=11), tolerance=0.1)["operators"] == "unchanged"
    assert _outcomes(COUNTED, _changed(operators=12), tolerance=0.1)["operators"] == "regressed"


def test_less_arithmetic_is_no_improvement_when_some_escaped_the_count():
    found = _outcomes(COUNTED, _changed(flops=50, uncounted=("own::kernel",)))
    assert found["flops"] == "inconclusive"


def test_other_versions_are_not_comparable_and_no_counts_are_no_baseline():
    (other,) = compare_counted("step", {"torch 1.0.0, cpu": COUNTED}, HERE, COUNTED)
    (none,) = compare_counted("step", {}, HERE, COUNTED)
    assert (other.outcome, none.outcome) == ("not_comparable", "new")
