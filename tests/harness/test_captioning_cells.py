"""Cells of texts from beginning to end, and what is drawn of their run."""

import numpy as np
import pytest
from PIL import Image

from genbench.cli.main import main
from genbench.core.errors import SettingError
from genbench.core.spec import Ref
from genbench.harness.cell import run_cell
from genbench.plan import Selection, load_suite, make_plan
from genbench.store import RunFolder, StoredPlan

SUITE = """\
schema: genbench.suite/1
name: tiny_captioning
version: 1
description: for tests
features: shapes_net
metrics: [text_match, text_nll, text_accuracy]
models: [captioner, "flamingo[gated_every=0]"]
controls: [real, shuffled_texts]
tiers:
  smoke:
    dataset: captioned_shapes[resolution=8]
    preset: smoke
    samples_seen: 32
    train_size: 32
    num_samples: 40
    num_reference: 4
    num_likelihood: 40
    timing: {warmup_steps: 1, min_block_seconds: 0.01, latency_requests: 1}
"""


def test_plans_refuse_models_and_data_of_other_kinds():
    suite = load_suite("captioning")
    with pytest.raises(SettingError, match="vae"):
        make_plan(suite, Selection(tier="smoke", models=("vae",)), version="1")
    with pytest.raises(SettingError, match="flamingo"):
        make_plan(suite, Selection(tier="smoke", dataset="shapes"), version="1")
    cells = make_plan(suite, Selection(tier="smoke"), version="1").cells
    assert [cell.subject for cell in cells if cell.role == "control"] == [Ref(name="real"), Ref(name="shuffled_texts")]


@pytest.mark.slow
def test_a_run_is_scored_by_shots_between_its_controls_and_can_be_drawn(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    plan = make_plan(load_suite(str(tmp_path / "tiny.yaml")), Selection(), version="1")
    folder = RunFolder.create(tmp_path / "run")
    folder.write_plan(
        StoredPlan(genbench_version="1", suite="tiny", tier="smoke", created="2026", cells=tuple(plan.cells))
    )
    records = {}
    for cell in plan.cells:
        inside = folder.clear_cell(cell.key)
        record = run_cell(cell, inside, weights_folder=None, report=lambda phase, progress: None)
        assert record.status == "ok", record.error
        folder.write_record(record)
        records[cell.label] = record
    model, real, other = records["captioner"], records["real"], records["shuffled_texts"]
    assert len(model.scores) == 5 * (2 + 1 + 5)
    assert model.scores[0].name == "caption_match_8shot"
    assert real.skipped == {"text_nll": "a control has no likelihood"}
    for score in real.scores:
        assert score.value == 1.0
        assert score.value >= other.score(score.name).value
    blind = records["flamingo[gated_every=0]"]
    assert blind.num_parameters is None
    assert blind.score("text_nll_8shot").value < blind.score("text_nll_0shot").value
    with np.load(folder.cell_folder(model.key) / "samples.npz") as kept:
        assert kept["samples"].shape == (40, 9, 14)

    assert main(["grid", str(folder.path), "--kind", "texts", "--columns", "3"]) == 0
    with Image.open(folder.path / "texts.png") as page:
        assert page.width > 3 * 200
    assert main(["plot", str(folder.path), "--kind", "shots", "-o", str(tmp_path / "shots.svg")]) == 0
    assert (tmp_path / "shots.svg").read_bytes().startswith(b"<?xml")
    capsys.readouterr()
