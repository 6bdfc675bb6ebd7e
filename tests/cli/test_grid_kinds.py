"""`genbench grid --kind`: what is drawn, what is left out and said, and where the file goes."""

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from genbench.cli.main import main
from genbench.core.dataset import build_dataset
from genbench.core.record import Failure, Record
from genbench.core.spec import Cell, Ref, Tier, parse_ref
from genbench.harness.building import build
from genbench.harness.evidence import subset_rows
from genbench.harness.pictures_of_codes import pictures_of_codes, rebuilt
from genbench.report.grid import comparison_grid, sectioned_grid
from genbench.report.sounds import spectrograms
from genbench.store import RunFolder, StoredPlan

DATA = parse_ref("shapes[resolution=8]")
SAMPLES = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)


def _cell(name, *, seed=0, role="model", **changes):
    protocol = Tier(
        dataset=DATA, preset="smoke", samples_seen=1, num_samples=1, num_reference=1, num_likelihood=1, seeds=()
    )
    cell = Cell(
        suite="tiny",
        suite_version=1,
        tier="smoke",
        role=role,
        subject=Ref(name=name),
        dataset=DATA,
        features=Ref(name="shapes_net"),
        metrics=(),
        protocol=protocol,
        samples_seen=1,
        seed=seed,
        device="cpu",
        source_sha256="0",
        genbench_version="1",
    )
    return cell.model_copy(update=changes)


def _run_folder(path, cells, *, without_weights=()):
    """A finished run of untrained models."""
    folder = RunFolder.create(path)
    plan = StoredPlan(genbench_version="1", suite="tiny", tier="smoke", created="2026", cells=tuple(cells))
    folder.write_plan(plan)
    for cell in cells:
        inside = folder.clear_cell(cell.key)
        np.savez(inside / "samples.npz", samples=SAMPLES, levels=np.array(256))
        if cell.role == "model" and cell.weights_from is None and cell.subject.name not in without_weights:
            torch.manual_seed(7)
            model = build(cell, build_dataset(DATA))
            weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            safetensors.torch.save_file(weights, inside / "model.safetensors")
        folder.write_record(Record(key=cell.key, cell=cell, status="ok", started="2026", ended="2026"))
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Real-valued codes, codes of a book, no codes, a control."""
    cells = [_cell("vae"), _cell("vqvae"), _cell("wgan_gp"), _cell("real", role="control")]
    return _run_folder(tmp_path_factory.mktemp("run") / "mixed", cells)


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_without_a_kind_the_samples_are_drawn_as_ever(mixed, tmp_path, capsys):
    assert main(["grid", str(mixed.path), "-o", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.png'}\n"
    names = ["vae", "vqvae", "wgan_gp", "real"]
    expected = comparison_grid(dict.fromkeys(names, SAMPLES), columns=12)
    np.testing.assert_array_equal(_pixels(tmp_path / "a.png"), np.asarray(expected))


def test_reconstructions_are_drawn_of_every_model_with_codes(mixed, capsys):
    assert main(["grid", str(mixed.path), "--kind", "reconstructions", "--columns", "5"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{mixed.path / 'reconstructions.png'}\n"
    assert said.err == "left out `wgan_gp`: nothing is encoded and decoded\n"
    sections = {}
    for name in ("vae", "vqvae"):
        cell = _cell(name)
        found = rebuilt(cell, mixed.cell_folder(cell.key) / "model.safetensors")
        sections[name] = pictures_of_codes("reconstructions", found, columns=5, rows=2)
    caption = "held-out images and their reconstructions\nleft out `wgan_gp`: nothing is encoded and decoded"
    expected = sectioned_grid(sections, caption=caption)
    np.testing.assert_array_equal(_pixels(mixed.path / "reconstructions.png"), np.asarray(expected))


@pytest.mark.parametrize("kind", ["traversals", "interpolations"])
def test_traversals_and_interpolations_are_drawn_of_real_valued_codes_alone(kind, mixed, capsys):
    assert main(["grid", str(mixed.path), "--kind", kind, "--columns", "5", "--rows", "2"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{mixed.path / kind}.png\n"
    assert "left out `vqvae`: codes from a finite alphabet have nothing in between\n" in said.err
    assert "left out `wgan_gp`: nothing is encoded and decoded\n" in said.err
    page = _pixels(mixed.path / f"{kind}.png")
    assert page.shape[0] < 2 * 66 + 5 * 20 + 80  # two rows of 64 pixels and the captions, no rows of another model
    assert page.shape[1] > 5 * 66


def test_traversals_name_their_base_and_the_dimensions_that_they_leave_out(mixed, capsys):
    found = rebuilt(_cell("vae"), mixed.cell_folder(_cell("vae").key) / "model.safetensors")
    base = found.dataset.identify("test", subset_rows(found.dataset, "test", 1))[0]
    dims = found.model.config.latent_dim
    assert main(["grid", str(mixed.path), "--kind", "traversals", "--rows", "2"]) == 0
    said = capsys.readouterr().err
    assert f"base: held-out example {base}, as its code is decoded at 0\n" in said
    partly = f"`vae` shows the 2 of {dims} dimensions that vary most over examples; `--rows {dims}` draws all\n"
    assert partly in said
    few = _pixels(mixed.path / "traversals.png").shape[0]
    assert main(["grid", str(mixed.path), "--kind", "traversals", "--rows", str(dims)]) == 0
    assert "dimensions" not in capsys.readouterr().err
    rows = dims - 2
    assert _pixels(mixed.path / "traversals.png").shape[0] == few + rows * 66 - 20  # a line of the caption less


def test_interpolations_name_both_ends_of_every_pair(mixed, capsys):
    found = rebuilt(_cell("vae"), mixed.cell_folder(_cell("vae").key) / "model.safetensors")
    a, b, c, d = found.dataset.identify("test", subset_rows(found.dataset, "test", 4))
    assert main(["grid", str(mixed.path), "--kind", "interpolations", "--rows", "2"]) == 0
    assert f"pair 1: {a} to {b}; pair 2: {c} to {d}\n" in capsys.readouterr().err


def test_densities_are_drawn_of_points_in_the_plane(tmp_path, capsys):
    ref = parse_ref("toy2d[law=gaussians8]")
    cells = [
        _cell("flow_matching", dataset=ref),
        _cell("ncsn", dataset=ref),
        _cell("real", role="control", dataset=ref),
    ]
    folder = RunFolder.create(tmp_path / "run")
    folder.write_plan(StoredPlan(genbench_version="1", suite="t", tier="smoke", created="2026", cells=tuple(cells)))
    for cell in cells:
        inside = folder.clear_cell(cell.key)
        np.savez(inside / "samples.npz", samples=np.zeros((16, 2), dtype=np.float32), levels=np.array(0))
        if cell.role == "model":
            model = build(cell, build_dataset(ref))
            safetensors.torch.save_file(model.state_dict(), inside / "model.safetensors")
        folder.write_record(Record(key=cell.key, cell=cell, status="ok", started="2026", ended="2026"))
    assert main(["grid", str(folder.path), "--kind", "densities", "--columns", "2"]) == 0
    assert capsys.readouterr().out == f"{folder.path / 'densities.png'}\n"
    page = _pixels(folder.path / "densities.png")[..., :3].astype(int)
    dark = np.abs(page - (68, 1, 84)).max(-1) <= 2  # the lower end of the colours: the law's density, and the model's
    assert dark[: len(page) // 2].mean() > 0.15
    assert dark[len(page) // 2 :].mean() < 0.01  # `ncsn` and a control have none


def test_densities_of_pictures_are_an_error_that_names_a_suite_with_some(mixed, capsys):
    assert main(["grid", str(mixed.path), "--kind", "densities"]) == 2
    said = capsys.readouterr().err
    assert "not points in the plane" in said
    assert "--suite density2d" in said


def test_a_run_without_codes_is_an_error_that_says_what_would_have_some(tmp_path, capsys):
    folder = _run_folder(tmp_path / "run", [_cell("wgan_gp")])
    assert main(["grid", str(folder.path), "--kind", "traversals"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "left out `wgan_gp`: nothing is encoded and decoded" in said.err
    assert "no model of this run has traversals" in said.err
    assert "hint: models with codes have them" in said.err
    assert not (folder.path / "traversals.png").exists()


def test_a_model_whose_weights_are_gone_is_left_out_and_the_rest_is_drawn(tmp_path, capsys):
    folder = _run_folder(tmp_path / "run", [_cell("vae"), _cell("vqvae")], without_weights={"vqvae"})
    assert main(["grid", str(folder.path), "--kind", "reconstructions"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("left out `vqvae`: ")
    assert "no weights; run the cell again" in said


def test_a_cell_that_took_the_weights_of_another_is_drawn_with_them(tmp_path, capsys):
    owner = _cell("vae", seed=0)
    folder = _run_folder(tmp_path / "run", [owner, _cell("vae", seed=1, weights_from=owner.key)])
    assert main(["grid", str(folder.path), "--kind", "reconstructions", "--columns", "4"]) == 0
    assert capsys.readouterr().err == ""
    page = _pixels(folder.path / "reconstructions.png")
    top, bottom = page[20 : 20 + page.shape[0] // 2], page[page.shape[0] // 2 :]
    assert top.shape[1] == bottom.shape[1] > 4 * 66


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kind", "traversals", "--columns", "2"], "traversals need 3 or more"),
        (["--columns", "0"], "samples need 1 or more"),
        (["--kind", "interpolations", "--rows", "0"], "--rows is 0"),
    ],
)
def test_a_page_without_columns_or_rows_is_refused(mixed, words, message, capsys):
    assert main(["grid", str(mixed.path), *words]) == 2
    assert message in capsys.readouterr().err


def test_sounds_are_pictures_of_spectrograms_and_a_page_that_plays(tmp_path, capsys):
    folder = _run_folder(tmp_path / "run", [_cell("real", role="control"), _cell("noise", role="control")])
    codes = np.random.default_rng(0).integers(0, 256, (3, 1, 512), dtype=np.uint8)
    for record in folder.records():
        file = folder.cell_folder(record.key) / "samples.npz"
        np.savez(file, samples=codes, levels=np.array(256), sample_rate=np.array(8000))
    assert main(["grid", str(folder.path), "--columns", "2"]) == 0
    expected = comparison_grid(dict.fromkeys(["real", "noise"], spectrograms(codes[:2, 0], levels=256)), columns=2)
    np.testing.assert_array_equal(_pixels(folder.path / "grid.png"), np.asarray(expected))
    assert main(["grid", str(folder.path), "--kind", "sounds", "--columns", "2"]) == 0
    page = (folder.path / "sounds.html").read_text()
    assert capsys.readouterr().out.splitlines() == [str(folder.path / name) for name in ("grid.png", "sounds.html")]
    assert page.count("<audio controls") == 4
    assert [name in page for name in ("<h2>real</h2>", "<h2>noise</h2>")] == [True, True]
    assert main(["leaderboard", str(folder.path), "--format", "md", "-o", str(folder.path / "table.md")]) == 0
    table = (folder.path / "table.md").read_text()
    assert "![samples](grid.png)" in table
    assert "\n[sounds](sounds.html)" in table  # a link, as Markdown shows no page inside itself


@pytest.mark.parametrize("kind", ["samples", "sounds", "reconstructions"])
def test_cells_that_are_not_finished_are_left_out_and_named(kind, tmp_path, capsys):
    """Their samples may lie there all the same."""
    names = ("vae", "vqvae", "fsq")
    folder = _run_folder(tmp_path / "run", [_cell(name, seed=seed) for seed, name in enumerate(names)])
    done, failed, half = folder.plan().cells
    if kind == "sounds":
        codes = np.zeros((3, 1, 512), dtype=np.uint8)
        for cell in (done, failed, half):
            file = folder.cell_folder(cell.key) / "samples.npz"
            np.savez(file, samples=codes, levels=np.array(256), sample_rate=np.array(8000))
    error = Failure(phase="score", type="MemoryError", message="no memory left")
    folder.write_record(Record(key=failed.key, cell=failed, status="failed", error=error, started="2026", ended="2026"))
    (folder.cell_folder(half.key) / "record.json").unlink()
    assert main(["grid", str(folder.path), "--kind", kind, "--columns", "2"]) == 0
    remarks = [
        "left out `vqvae seed 1`: failed in score: MemoryError",
        "left out `fsq seed 2`: not finished; `genbench run` goes on with it",
    ]
    assert capsys.readouterr().err.splitlines() == remarks
    if kind == "sounds":
        page = (folder.path / "sounds.html").read_text()
        assert page.count("<h2>") == 1
        assert all(f"<p>{remark}</p>" in page for remark in remarks)
    elif kind == "samples":
        assert _pixels(folder.path / "grid.png").shape[0] < 2 * 66  # one row


def test_a_run_without_sounds_has_no_page_of_them(mixed, capsys):
    assert main(["grid", str(mixed.path), "--kind", "sounds"]) == 2
    assert "no sounds in this run" in capsys.readouterr().err
