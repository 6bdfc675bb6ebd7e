"""Whole cells in this process: what is scored, what is skipped and why."""

import math
from pathlib import Path

import pytest

from genbench.harness.cell import run_cell
from genbench.plan import Selection, load_suite, make_plan

MODELS = Path(__file__).parent / "tiny_models.py"
SUITE = """\
schema: genbench.suite/1
name: tiny
version: 1
description: for tests
features: shapes_net
metrics: [{metrics}]
models: [vae]
controls: [real]
tiers:
  smoke:
    dataset: {dataset}
    preset: smoke
    samples_seen: 512
    num_samples: 64
    num_reference: 64
    num_likelihood: 100
    train_size: 512
    timing: {{warmup_steps: 1, min_block_seconds: 0.01, latency_requests: 0}}
"""


@pytest.fixture
def scored(tmp_path):
    """Run one model of `tiny_models.py`, a shipped one, or the control `real`: its record."""

    def run(subject, dataset, metrics):
        suite = tmp_path / "tiny.yaml"
        suite.write_text(SUITE.format(metrics=metrics, dataset=dataset))
        model = "DiagonalGaussian" if subject == "real" else subject  # a plan wants one that takes the data
        named = f"{MODELS}:{model}" if model[0].isupper() else model
        cells = make_plan(load_suite(str(suite)), Selection(models=(named,)), version="1")
        role = "control" if subject == "real" else "model"
        cell = next(cell for cell in cells.cells if cell.role == role)
        return run_cell(cell, tmp_path, weights_folder=None, report=lambda phase, progress: None)

    return run


def test_a_model_with_a_density_is_compared_with_the_law_of_the_data(scored):
    """KL(gaussians8 || N(0, v I)) = log(v / (8 s^2)) for modes apart, v = 1 + s^2 and s = 0.1."""
    record = scored("DiagonalGaussian", '"toy2d[law=gaussians8]"', "exact_kl, bits_per_dim, vector_wasserstein")
    assert (record.status, record.skipped) == ("ok", {}), record.error
    divergence = record.score("kl")
    assert divergence.value == pytest.approx(math.log(1.01 / 0.08), abs=4.0 * divergence.stderr + 0.05)
    assert (divergence.kind, divergence.protocol["estimator"], divergence.num_samples) == ("exact", "exact", 100)
    assert record.score("nll").protocol["estimator"] == "exact"


@pytest.mark.parametrize("dataset", ['"toy2d[law=gaussians8]"', '"tabular[table=wine]"'])
def test_held_out_vectors_are_compared_with_others_and_not_with_themselves(scored, dataset):
    """The distance of points to themselves is zero; of two draws of one law it is not, and is small."""
    record = scored("real", dataset, "vector_wasserstein")
    assert record.status == "ok", record.error
    assert 0.0 < record.score("sliced_w2").value < 1.0


def test_a_law_without_a_density_is_a_reason_and_the_other_metrics_stay(scored):
    record = scored("DiagonalGaussian", "toy2d", "exact_kl, bits_per_dim")
    assert record.status == "ok"
    assert [score.name for score in record.scores] == ["nll"]
    assert record.skipped["exact_kl"].startswith("law `two_moons` has no density in closed form")


def test_a_metric_that_the_evidence_cannot_support_is_skipped_with_its_reason_and_the_others_stay(scored):
    record = scored("real", '"shapes[resolution=8]"', '"precision_recall[k=80]", "kernel_distance", mode_coverage')
    assert record.status == "ok", record.error
    assert [score.name for score in record.scores] == ["kd_shapes_net", "mode_coverage", "recognised"]
    assert list(record.skipped) == ["precision_recall[k=80]"]
    assert "at least 81 samples and 81 reference examples, found 64" in record.skipped["precision_recall[k=80]"]


def test_a_class_conditional_model_is_asked_for_its_classes(scored):
    record = scored("ClassLookup", '"shapes[resolution=8]"', "mode_coverage, class_accuracy, clip_score")
    assert record.status == "ok", record.error
    assert [score.name for score in record.scores] == ["mode_coverage", "recognised", "class_accuracy"]
    assert record.score("class_accuracy").value > 0.9
    assert (record.score("class_accuracy").num_samples, record.score("mode_coverage").num_samples) == (100, 64)
    assert record.skipped == {"clip_score": "the model cannot be told in words what to draw"}


def test_metrics_of_samples_that_nobody_asked_for_are_skipped(scored):
    record = scored("real", '"shapes[resolution=8]"', "class_accuracy, mode_coverage")
    assert record.skipped == {"class_accuracy": "nothing was asked of the samples"}
    assert record.score("mode_coverage") is not None
