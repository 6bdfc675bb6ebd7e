import random

import pytest
from report_records import bpd, controls, fd, model

from genbench.cli.main import main
from genbench.core.errors import SettingError
from genbench.report.leaderboard import leaderboard
from genbench.report.tradeoff import Point, front, left_out, picture, points, series, short_names, without


def sweep():
    """Two samplers of one model at several costs, and another model."""
    found = []
    for sampler, scores in (("ddim", [90.0, 60.0, 50.0]), ("heun", [120.0, 55.0, 40.0])):
        for steps, score in zip((5, 10, 50), scores, strict=True):
            label = f"ddpm[sampler={sampler},num_steps={steps}]"
            found.append(model(label, [fd(score)], paradigm="diffusion", nfe=steps))
    return [*found, model("vae", [fd(130.0)], nfe=None), *controls()]


def board(records=None):
    (found,) = leaderboard(sweep() if records is None else records)
    return found


def test_points_are_the_models_that_have_both_numbers():
    found = points(board(), x="network_evaluations", y="fd_shapes_net")
    assert {(p.label.partition(",")[0], p.x, p.y) for p in found} == {
        (f"ddpm[sampler={name}", steps, score)
        for name, line in (("ddim", (90.0, 60.0, 50.0)), ("heun", (120.0, 55.0, 40.0)))
        for steps, score in zip((5, 10, 50), line, strict=True)
    }
    assert all(p.interval[0] < p.y < p.interval[1] for p in found)


@pytest.mark.parametrize("lower_x", [True, False])
@pytest.mark.parametrize("lower_y", [True, False])
def test_the_front_is_whom_nobody_beats(lower_x, lower_y):
    draw = random.Random(0)
    found = [Point(str(i), draw.randint(1, 9), draw.randint(1, 9), None) for i in range(60)]
    best = front(found, lower_x=lower_x, lower_y=lower_y)

    def beats(a, b):
        x, y = ((b.x - a.x) if lower_x else (a.x - b.x)), ((b.y - a.y) if lower_y else (a.y - b.y))
        return x >= 0 and y >= 0 and (x > 0 or y > 0)

    assert {p.label for p in best} == {p.label for p in found if not any(beats(q, p) for q in found)}
    assert [p.x for p in best] == sorted(p.x for p in best)


def test_rows_that_differ_in_steps_or_guidance_make_one_line():
    found = series(points(board(), x="network_evaluations", y="fd_shapes_net"))
    assert {label: [p.x for p in line] for label, line in found.items()} == {
        "ddpm[sampler=ddim]": [5, 10, 50],
        "ddpm[sampler=heun]": [5, 10, 50],
    }


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("ddpm", "ddpm"),
        ("ddpm[num_steps=5]", "ddpm"),
        ("ddpm[sampler=ddim,num_steps=5,eta=0.5]", "ddpm[sampler=ddim,eta=0.5]"),
        ("mine.py:Model", "mine.py:Model"),
    ],
)
def test_swept_settings_leave_a_label(label, expected):
    assert without(label, ("num_steps", "guidance")) == expected


def test_models_without_one_of_the_numbers_are_named():
    assert left_out(board(), x="network_evaluations", y="fd_shapes_net") == {"vae": "no NFE ↓"}
    assert left_out(board(), x="samples_seen", y="fd_shapes_net") == {}


def test_lines_are_named_by_what_tells_them_apart():
    labels = ["ddpm[lr=0.1,sampler=ddim]", "ddpm[lr=0.1,sampler=heun]", "vae[lr=0.1]", "ebm"]
    assert list(short_names(labels).values()) == ["ddpm[sampler=ddim]", "ddpm[sampler=heun]", "vae", "ebm"]
    assert len({*short_names(["vae", "vae[lr=0.1]", "vae[lr=0.2]"]).values()}) == 3


@pytest.mark.parametrize("guided", [False, True])
def test_scales_of_guidance_stand_beside_points(guided):
    setting = "guidance" if guided else "num_steps"
    rows = [model(f"ddpm[{setting}={value}]", [fd(90.0 - value)], nfe=10) for value in (1, 27)]
    drawn = picture(board([*rows, *controls()]), x="network_evaluations", y="fd_shapes_net", kind="svg")
    assert (b"<!-- 27 -->" in drawn) == guided  # matplotlib's note beside a text that it draws as a path


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_pictures_of_equal_tables_are_equal(kind, start):
    drawn = [picture(board(), x="network_evaluations", y="fd_shapes_net", kind=kind) for _ in range(2)]
    assert drawn[0].startswith(start)
    assert drawn[0] == drawn[1]


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(SettingError, match="has no column `nfe`"):
        points(board(), x="nfe", y="fd_shapes_net")
    alone = board([model("vae", [fd(130.0), bpd(3.0)], nfe=None), model("ddpm", [fd(9.0)], nfe=10)])
    with pytest.raises(SettingError, match="has both `network_evaluations` and `bits_per_dim`"):
        picture(alone, x="network_evaluations", y="bits_per_dim", kind="svg")


def test_the_command_refuses_what_it_cannot_draw(tmp_path, capsys):
    assert main(["plot", str(tmp_path), "-o", str(tmp_path / "x.gif")]) == 2
    assert "pictures are svg, png, pdf" in capsys.readouterr().err
    assert main(["plot", str(tmp_path / "none")]) != 0
