import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from neighbour_evidence import evidence_of, normal, squares

from genbench.core.metric import Evidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.precision_recall import PrecisionRecall, f_score, precision_recall
from genbench.prob import _distance_tiles


def values(samples, reference, **settings):
    return {name: part.value for name, part in precision_recall(samples, reference, **settings).items()}


def by_hand(samples, reference, k, *, included):
    """The four numbers from whole matrices of squared distances."""

    def radii(points):
        squared = squares(points, points)
        squared.fill_diagonal_(-1.0)
        return squared.sort(dim=1).values[:, k]

    between, real, drawn = squares(samples, reference), radii(reference), radii(samples)
    inside = between < real
    holds = between <= real if included else inside
    held = between <= drawn[:, None] if included else between < drawn[:, None]
    return {
        "precision": float(holds.any(dim=1).double().mean()),
        "recall": float(held.any(dim=0).double().mean()),
        "density": float(inside.double().sum(dim=1).mean()) / k,
        "coverage": float(inside.any(dim=0).double().mean()),
    }


def lattice(num, *, seed, size=4):
    return torch.randint(0, 4, (num, size), generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize("edge", ["included", "excluded"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_ties_on_a_lattice_are_decided_by_the_edge_and_equal_those_by_hand(k, edge):
    samples, reference = lattice(150, seed=0), lattice(170, seed=1)
    found = values(samples, reference, k=k, edge=edge)
    assert found == pytest.approx(by_hand(samples, reference, k, included=edge == "included"), abs=1e-15)


def test_the_edge_matters_by_many_points_on_a_lattice():
    samples, reference = lattice(150, seed=0), lattice(170, seed=1)
    closed, opened = values(samples, reference), values(samples, reference, edge="excluded")
    assert closed["precision"] - opened["precision"] > 0.03
    assert closed["density"] == opened["density"]


@pytest.mark.parametrize("narrow", [False, True])
def test_the_precision_of_the_products_does_not_show(narrow, monkeypatch):
    samples, reference = normal(300, 280, seed=0, scale=1.02).float(), normal(350, 280, seed=1).float()
    monkeypatch.setattr(_distance_tiles, "bfloat16_is_fast", lambda: narrow)
    found = values(samples, reference)
    assert found == pytest.approx(by_hand(samples, reference, 3, included=True), abs=1e-15)
    assert 0.0 < found["precision"] < 1.0


def test_the_prdc_preset_equals_the_package_of_that_name():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prdc = pytest.importorskip("prdc")
        samples, reference = normal(300, 12, seed=0, scale=0.9, shift=0.1), normal(400, 12, seed=1)
        with contextlib.redirect_stdout(io.StringIO()):
            expected = prdc.compute_prdc(reference.numpy(), samples.numpy(), nearest_k=5)
    scores = PrecisionRecall(preset="prdc").compute(evidence_of(samples, reference))
    found = {score.name: score.value for score in scores}
    assert found == pytest.approx({key: float(value) for key, value in expected.items()}, rel=1e-12)
    assert (scores[0].protocol["k"], scores[0].protocol["edge"]) == (5, "excluded")


def test_the_torch_fidelity_preset_equals_the_package_and_gives_its_f_score():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch_fidelity")
        from torch_fidelity.metric_prc import prc_features_to_metric
    samples, reference = normal(300, 12, seed=2, scale=0.8), normal(400, 12, seed=3)
    expected = prc_features_to_metric(samples, reference, prc_neighborhood=3, verbose=False)
    scores = PrecisionRecall(preset="torch-fidelity").compute(evidence_of(samples, reference))
    found = {score.name: score.value for score in scores}
    for name in ("precision", "recall", "f_score"):  # torch-fidelity averages in float32
        assert found[name] == pytest.approx(expected[name], rel=1e-6)


def test_presets_without_the_edge_follow_the_rule_of_the_code_they_name():
    samples, reference = lattice(150, seed=4), lattice(170, seed=5)
    for preset, k, included in (
        ("kynkaanniemi", 3, True),
        ("stylegan3", 3, True),
        ("fld", 3, False),
        ("prdc", 5, False),
    ):
        scores = PrecisionRecall(preset=preset).compute(evidence_of(samples, reference))
        expected = by_hand(samples, reference, k, included=included)
        assert {score.name: score.value for score in scores} == pytest.approx(expected, abs=1e-15), preset


def test_the_adm_preset_looks_at_the_first_ten_thousand_real_examples(monkeypatch):
    monkeypatch.setattr("genbench.metrics.precision_recall.ADM_REFERENCE", 120)
    samples, reference = normal(100, 6, seed=6), normal(200, 6, seed=7)
    scores = PrecisionRecall(preset="adm").compute(evidence_of(samples, reference))
    expected = by_hand(samples, reference[:120], 3, included=True)
    assert {score.name: score.value for score in scores} == pytest.approx(expected, abs=1e-15)
    assert scores[0].num_reference == 120


def test_recall_asks_the_balls_of_samples_and_not_those_of_real_examples():
    """Samples in a speck, real examples far apart with wide balls: no real example is near a sample."""
    samples = normal(100, 3, seed=0, scale=1e-3)
    reference = normal(100, 3, seed=1, scale=50.0, shift=10.0)
    assert by_hand(samples, reference, 3, included=True)["precision"] == 1.0
    found = values(samples, reference)
    assert (found["precision"], found["recall"]) == (1.0, 0.0)


def test_precision_belongs_to_samples_and_recall_to_real_examples():
    """Samples of one of two modes are all real; half of what is real is missing from them."""
    reference = torch.cat([normal(100, 3, seed=0), normal(100, 3, seed=1, shift=99.0)])
    found = values(normal(150, 3, seed=2, scale=0.5), reference)
    assert found["precision"] == 1.0
    assert found["recall"] <= 0.5


def test_distances_are_not_rounded_to_half_precision():
    """Radii and distances 1 + j/4096: float16 makes them one and calls everything within."""
    steps = torch.arange(64.0, dtype=torch.float64)[:, None] * 8.0
    reference = torch.cat([steps, steps + 1.0])  # pairs one apart
    outside = steps[:32] - 1.0 - 2.0**-12
    assert float((outside - steps[:32]).abs().half().max()) == 1.0
    assert values(outside, reference, k=1)["precision"] == 0.0
    assert values(steps[:32] - 1.0, reference, k=1)["precision"] == 1.0


def test_the_f_score_is_the_harmonic_mean_with_its_own_interval():
    found = precision_recall(normal(200, 4, seed=0, scale=0.7), normal(200, 4, seed=1))
    precision, recall = found["precision"], found["recall"]
    score = f_score(precision, recall)
    assert score.value == pytest.approx(2.0 / (1.0 / precision.value + 1.0 / recall.value), rel=1e-12)
    assert score.stderr is not None
    assert 0.5 * min(precision.stderr, recall.stderr) < score.stderr < precision.stderr + recall.stderr


def test_settings_and_sizes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="at least 6 samples"):
        PrecisionRecall(preset="prdc").compute(evidence_of(normal(5, 2, seed=0), normal(9, 2, seed=1)))
    with pytest.raises(ValueError, match="found 0 and 0"):
        PrecisionRecall().compute(Evidence())
    with pytest.raises(ValueError, match="expected at least 1"):
        precision_recall(normal(5, 2, seed=0), normal(9, 2, seed=1), k=0)
    assert build_metric(parse_ref("precision_recall[preset=prdc,k=4]")).neighbours == 4


def test_all_but_one_neighbour_and_unequal_sizes_work():
    samples, reference = lattice(9, seed=0), lattice(14, seed=1)
    assert values(samples, reference, k=8) == pytest.approx(by_hand(samples, reference, 8, included=True), abs=1e-15)


@pytest.mark.slow
def test_intervals_hold_the_value_over_repetitions():
    """Coverage over 200 draws of the value that draws of this size have in the mean."""
    runs = [
        precision_recall(normal(300, 6, seed=2 * i, scale=0.85), normal(300, 6, seed=2 * i + 1)) for i in range(200)
    ]
    for name in runs[0]:
        centre = np.mean([run[name].value for run in runs])
        share = np.mean([run[name].ci95[0] <= centre <= run[name].ci95[1] for run in runs])
        assert 0.90 <= share <= 1.0, name
