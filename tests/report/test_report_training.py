"""Pictures of trainings: what stands in them, read off the drawn lines."""

import numpy as np
import pytest

from genbench.cli.main import main
from genbench.core.record import Look, TimeToQuality
from genbench.report import training
from genbench.report.training import Curve, training_page


def curve(label="vae", losses=(5.0, 2.0, 1.0), quality=None):
    return Curve(label, np.arange(1, len(losses) + 1) * 1000, np.array(losses), quality)


def quality(values=(90.0, None, 40.0)):
    looks = tuple(
        Look(samples_seen=1000 * (i + 1), seconds=float(i + 1), value=value) for i, value in enumerate(values)
    )
    return TimeToQuality(
        score="fd_shapes_net", unit="", better="lower", target=50.0, num_samples=16, every=1000, looks=looks,
        seconds=None, samples_seen=None, budget_seconds=3.0, budget_samples=3000,
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written, kept for a look."""
    kept = []
    write = training.as_bytes
    monkeypatch.setattr(
        training, "as_bytes", lambda figure, kind, dpi: (kept.append(figure), write(figure, kind, dpi=dpi))[1]
    )
    return kept


def test_each_training_has_its_losses_and_its_looks(drawn):
    training_page([curve("vae"), curve("ddpm", (4.0, 3.0), quality())], title="images, tier quick", kind="png")
    (figure,) = drawn
    losses = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    assert set(losses) == {"vae", "ddpm"}
    assert losses["vae"].lines[0].get_ydata().tolist() == [5.0, 2.0, 1.0]
    assert losses["vae"].lines[0].get_xdata().tolist() == [1000, 2000, 3000]
    (scores,) = (axes for axes in figure.axes if axes.get_ylabel().startswith("fd_shapes_net"))
    looks, target = scores.lines
    assert list(looks.get_xdata()) == [1000, 3000]  # a look without a score leaves a gap
    assert looks.get_ydata().tolist() == [90.0, 40.0]
    assert set(target.get_ydata()) == {50.0}


@pytest.mark.parametrize(
    ("losses", "scale"),
    [((5.0, 1.0), "linear"), ((5.0, 0.1), "log"), ((5.0, -0.1), "linear"), ((5.0, np.nan), "linear")],
)
def test_an_axis_is_logarithmic_where_losses_are_positive_and_far_apart(drawn, losses, scale):
    training_page([curve(losses=losses)], title="", kind="svg")
    assert drawn[0].axes[0].get_yscale() == scale


@pytest.mark.parametrize("kind", ["svg", "png", "pdf"])
def test_the_same_trainings_give_the_same_file(kind):
    pages = [training_page([curve(quality=quality())], title="x", kind=kind) for _ in range(2)]
    assert pages[0] == pages[1]


def test_a_page_needs_trainings():
    with pytest.raises(ValueError, match="at least one"):
        training_page([], title="", kind="png")
    with pytest.raises(ValueError, match="a block of steps"):
        training_page([curve(losses=())], title="", kind="png")


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0"), (500, "500"), (40_000, "40k"), (2_500_000, "2.5M"), (3e9, "3G")]
)
def test_counts_are_short(count, shown):
    assert training._counted(count, 0) == shown


@pytest.mark.slow
def test_a_run_is_drawn_from_its_folder_and_a_run_without_trainings_is_refused(tiny_suite, tmp_path, capsys):
    run, page = tmp_path / "run", tmp_path / "training.svg"
    assert main(["run", "--suite", str(tiny_suite), "--tier", "smoke", "-m", "vae", "--out", str(run)]) == 0
    assert main(["plot", str(run), "--kind", "training", "-o", str(page)]) == 0
    assert page.read_bytes().startswith(b"<?xml")
    assert main(["plot", str(run), "--kind", "training", "--x", "params"]) == 2
    for losses in run.glob("cells/*/raw/loss.npz"):
        losses.unlink()
    capsys.readouterr()
    assert main(["plot", str(run), "--kind", "training", "-o", str(page)]) != 0
    assert "no training has ended" in capsys.readouterr().err
