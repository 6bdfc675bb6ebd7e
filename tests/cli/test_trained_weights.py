"""Which weights `genbench bench --weights` takes for which cell. No process runs."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch
from gate_files import cell, run_folder, score

from genbench.cli.main import main
from genbench.cli.trained_weights import trained_weights
from genbench.core.errors import SettingError, StoreError
from genbench.core.spec import parse_ref
from genbench.store import RunFolder, StoredPlan


def _weights(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(safetensors.torch.save({"weight": torch.zeros(2)}))
    return file


def _run(path, *labels, failed=()):
    """A run in which cells have weights; without a record where they failed."""
    run_folder(path, {label: score(1.0) for label in labels}, failed=failed)
    return {label: _weights(path / "cells" / cell(label).key / "model.safetensors") for label in (*labels, *failed)}


def test_a_run_serves_every_cell_that_it_has_trained(tmp_path):
    files = _run(tmp_path / "run", "vae", "ddpm", failed=("ebm",))
    cells = [cell("ddpm"), cell("ebm")]
    assert trained_weights(tmp_path / "run", cells) == {one.key: files[one.label] for one in cells}


def test_version_device_tier_and_sampler_may_be_others(tmp_path):
    files = _run(tmp_path / "run", "ddpm")
    changes = {"genbench_version": "9", "source_sha256": "b" * 64, "device": "cuda", "tier": "quick", "seed": 5}
    other = cell("ddpm").model_copy(update={**changes, "sampling": {"num_steps": 5}})
    assert trained_weights(tmp_path / "run", [other]) == {other.key: files["ddpm"]}


def test_the_same_seed_is_taken_where_the_run_has_it_and_else_its_first(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    cells = [cell("ddpm", seed=seed) for seed in (3, 4)]
    run.write_plan(StoredPlan(genbench_version="0", suite="s", tier="t", created="2026", cells=tuple(cells)))
    files = [_weights(run.cell_folder(one.key) / "model.safetensors") for one in cells]
    for seed, file in ((4, files[1]), (0, files[0])):
        wanted = cell("ddpm", seed=seed)
        assert trained_weights(tmp_path / "run", [wanted]) == {wanted.key: file}


def test_a_cell_that_shares_the_weights_of_another_takes_them_from_there(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    owner = cell("ddpm")
    sharing = owner.model_copy(update={"sampling": {"num_steps": 5}, "weights_from": owner.key})
    file = _weights(run.cell_folder(owner.key) / "model.safetensors")
    run.write_plan(StoredPlan(genbench_version="0", suite="s", tier="t", created="2026", cells=(sharing,)))
    assert trained_weights(tmp_path / "run", [sharing]) == {sharing.key: file}


def test_a_cell_that_ended_well_without_weights_has_nothing_to_train(tmp_path):
    run_folder(tmp_path / "run", {"mine.py": score(1.0)})
    assert trained_weights(tmp_path / "run", [cell("mine.py")]) == {}


@pytest.mark.parametrize("other", ["vae", "ddpm[width=8]", "ddpm[preset=small]"])
def test_a_cell_that_the_run_has_not_trained_is_refused_with_those_that_it_has(other, tmp_path):
    _run(tmp_path / "run", "ddpm")
    with pytest.raises(SettingError, match="no trained weights") as refused:
        trained_weights(tmp_path / "run", [cell("ddpm"), cell(other)])
    assert refused.value.hint is not None
    assert "it holds `ddpm` on shapes[resolution=8]" in refused.value.hint


def test_weights_of_other_data_do_not_fit(tmp_path):
    _run(tmp_path / "run", "ddpm")
    larger = cell("ddpm").model_copy(update={"dataset": parse_ref("shapes[resolution=16]")})
    with pytest.raises(SettingError, match=r"on shapes\[resolution=16\]"):
        trained_weights(tmp_path / "run", [larger])


def test_the_preset_may_be_named_or_be_the_tiers(tmp_path):
    files = _run(tmp_path / "run", "ddpm")
    named = cell("ddpm[preset=smoke]")
    assert trained_weights(tmp_path / "run", [named]) == {named.key: files["ddpm"]}


def test_a_file_or_the_folder_of_a_cell_serves_one_model_with_any_sampler(tmp_path):
    file = _weights(tmp_path / "cell" / "model.safetensors")
    cells = [cell("ddpm"), cell("ddpm").model_copy(update={"sampling": {"num_steps": 5}})]
    for path in (file, file.parent):
        assert trained_weights(path, cells) == {one.key: file for one in cells}
        with pytest.raises(SettingError, match="one file for 2 models"):
            trained_weights(path, [*cells, cell("vae")])


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    pickled = tmp_path / "model.pt"
    torch.save({"weight": torch.zeros(2)}, pickled)
    with pytest.raises(StoreError, match="no file of weights") as refused:
        trained_weights(pickled, [cell()])
    assert "safetensors" in str(refused.value.hint)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="no weights here"):
            trained_weights(path, [cell()])


def test_the_command_refuses_before_anything_starts(tmp_path, capsys):
    words = ["bench", "-m", "ddpm", "--suite", "images_smoke", "--out", str(tmp_path / "bench")]
    assert main([*words, "--weights", str(tmp_path / "nowhere")]) == 2
    assert "no weights here" in capsys.readouterr().err
    assert not (tmp_path / "bench").exists()
