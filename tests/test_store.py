"""Run folders: atomic, resumable, and honest about what they cannot read."""

from __future__ import annotations

import os

import numpy as np
import pytest

from genbench.core.errors import StoreError
from genbench.core.files import write_atomically
from genbench.core.record import Record
from genbench.plan import Selection, load_suite, make_plan
from genbench.store import RunFolder, merged, read_record, utc_now


@pytest.fixture(scope="module")
def cells():
    return make_plan(load_suite("images_smoke"), Selection(), version="1").cells


def _record(cell, status="ok") -> Record:
    return Record(key=cell.key, cell=cell, status=status, started=utc_now(), ended=utc_now())


def test_a_record_reads_back_as_it_was_written(tmp_path, cells):
    folder = RunFolder.create(tmp_path / "run")
    record = _record(cells[0])
    folder.write_record(record)
    assert folder.record(cells[0].key) == record


def test_records_come_in_the_order_of_the_plan(tmp_path, cells):
    folder = RunFolder.create(tmp_path)
    folder.write_plan(merged(None, cells, version="1"))
    for cell in reversed(cells):
        folder.write_record(_record(cell))
    assert [record.key for record in folder.records()] == [cell.key for cell in cells]


def test_a_torn_record_counts_as_none(tmp_path, cells):
    folder = RunFolder.create(tmp_path)
    folder.write_record(_record(cells[0]))
    path = folder.cell_folder(cells[0].key) / "record.json"
    for length in (0, 1, 100, len(path.read_bytes()) - 3):
        torn = tmp_path / f"torn{length}.json"
        torn.write_bytes(path.read_bytes()[:length])
        assert read_record(torn) is None


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert "--out" in caught.value.hint


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        RunFolder.create(tmp_path / "file")


def test_a_run_is_removed_and_nothing_else(tmp_path, cells):
    for name, beside in (("alone", ()), ("shared", ("notes.txt",))):
        folder = RunFolder.create(tmp_path / name)
        folder.write_plan(merged(None, cells, version="1"))
        folder.write_record(_record(cells[0]))
        folder.note("run begins")
        for other in beside:
            (folder.path / other).write_text("precious")
        folder.remove()
        assert [path.name for path in tmp_path.glob(f"{name}/*")] == list(beside)
        assert folder.path.exists() == bool(beside)


def test_a_folder_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"no plan\.json"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("text", ['{"schema": "genbench.plan/0"}', "{", "[]", '{"schema": "genbench.plan/1"}'])
def test_a_plan_of_another_version_or_a_damaged_one_is_refused(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        RunFolder(tmp_path).plan()
    assert "--fresh" in caught.value.hint


def test_a_folder_of_another_suite_or_version_is_refused(cells):
    stored = merged(None, cells, version="1")
    with pytest.raises(StoreError, match="genbench 1; this run is"):
        merged(stored, cells, version="2")
    other = make_plan(load_suite("digits"), Selection(), version="1").cells
    with pytest.raises(StoreError, match="holds suite `images_smoke`"):
        merged(stored, other, version="1")


def test_new_cells_join_and_changed_ones_take_the_place_of_the_old(cells):
    stored = merged(None, cells, version="1")
    changed = cells[0].model_copy(update={"source_sha256": "changed"})
    added = cells[0].model_copy(update={"seed": 5})
    together = merged(stored, [changed, added], version="1").cells
    assert {cell.key for cell in together} == {cell.key for cell in (changed, added, *cells[1:])}


def test_samples_are_shown_over_the_full_range(tmp_path):
    folder = RunFolder.create(tmp_path)
    samples = np.array([0, 8, 16, 16], dtype=np.uint8).reshape(1, 1, 2, 2)
    folder.cell_folder("k").mkdir(parents=True)
    np.savez(folder.cell_folder("k") / "samples.npz", samples=samples, levels=np.array(17))
    assert folder.samples("k").ravel().tolist() == [0, 128, 255, 255]
    assert folder.samples("missing") is None


def test_clearing_a_cell_removes_what_a_killed_attempt_left(tmp_path, cells):
    folder = RunFolder.create(tmp_path)
    path = folder.clear_cell(cells[0].key)
    (path / "half").write_text("x")
    assert list(folder.clear_cell(cells[0].key).iterdir()) == []


def test_clearing_a_cell_keeps_a_training_that_was_finished_and_nothing_else(tmp_path, cells):
    folder = RunFolder.create(tmp_path)
    path = folder.clear_cell(cells[0].key)
    kept = ("model.safetensors", "raw/loss.npz", "training.json")
    for name in (*kept, "record.json", "samples.npz", ".model.safetensors.1.partial", "sounds/00.wav"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(name)
    assert folder.has_training(cells[0].key)
    assert folder.clear_cell(cells[0].key) == path
    assert {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} == set(kept)
    (path / "training.json").unlink()  # without the last file nobody knows whether the others are whole
    assert not folder.has_training(cells[0].key)
    assert list(folder.clear_cell(cells[0].key).iterdir()) == []
