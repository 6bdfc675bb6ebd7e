import pytest

from genbench.core.errors import SampleError
from genbench.evaluation.audit import LADDERS, audit
from genbench.report.audit import audit_markdown


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))


@pytest.mark.slow
def test_a_frechet_distance_follows_damage_and_its_page_says_so():
    metrics, ladders = ("frechet_distance", "precision_recall"), [LADDERS[0], LADDERS[1], LADDERS[3]]
    done = audit("shapes[resolution=8]", metrics=metrics, ladders=ladders, num_samples=300, num_reference=600)
    found = {(rung.score, rung.ladder): rung for rung in done.rungs}
    for ladder in ("blur", "noise", "dropped_modes"):
        assert found["fd_shapes_net", ladder].verdict == "right"
        values = found["fd_shapes_net", ladder].values
        assert values[-1] > 3 * values[0]
    assert found["recall", "dropped_modes"].values[0] > found["recall", "dropped_modes"].values[-1]
    page = audit_markdown(done.document())
    assert "| fd_shapes_net ↓ |" in page
    assert "## dropped_modes" in page


def test_data_without_a_held_out_part_are_refused(tmp_path):
    with pytest.raises(SampleError, match="no metric applies"):
        audit("shapes[resolution=8]", metrics=("bits_per_dim",), num_samples=64, num_reference=64)
