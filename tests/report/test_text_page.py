"""Pages of pictures with texts, and scores against shots."""

import numpy as np
import pytest
from report_records import model

from genbench.core.errors import SettingError
from genbench.core.record import Score
from genbench.report.leaderboard import leaderboard
from genbench.report.shots import families, shots_picture
from genbench.report.text_page import text_page

PICTURES = np.full((2, 3, 8, 8), 200, dtype=np.uint8)
TRUTH = ["a red square", "what colour ? blue"]


def _ink(page, colour):
    return int((np.asarray(page) == colour).all(axis=2).sum())


def test_wrong_texts_are_coloured_and_right_ones_are_not():
    right = text_page(PICTURES, {"model, 0 shots": TRUTH}, truth=TRUTH, caption="texts")
    wrong = text_page(PICTURES, {"model, 0 shots": ["a blue disc", "red"]}, truth=TRUTH, caption="texts")
    assert _ink(right, (170, 40, 20)) == 0
    assert _ink(wrong, (170, 40, 20)) > 0


def test_long_texts_make_a_row_higher_and_no_text_is_said():
    short = text_page(PICTURES, {"m": ["", "red"]}, truth=TRUTH, caption="")
    long = text_page(PICTURES, {"m": ["", "a very small red square " * 5]}, truth=TRUTH, caption="")
    assert long.height > short.height
    assert long.width == short.width


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 pictures"):
        text_page(PICTURES, {"m": ["red"]}, truth=TRUTH, caption="")


def _score(name, value):
    return Score(
        name=name, value=value, unit="", better="higher", kind="exact", stderr=0.01, ci95=(value - 0.02, value + 0.02),
        interval="made up", num_samples=100, num_reference=0, protocol={},
    )  # fmt: skip


def test_scores_by_shots_are_one_panel_each():
    names = ("text_match_8shot", "text_match_0shot", "text_accuracy_size_8shot", "fid")
    (board,) = leaderboard([model("flamingo", [_score(name, 0.5) for name in names])])
    assert {name: sorted(places) for name, places in families(board).items()} == {
        "text_match": [0, 8],
        "text_accuracy_size": [8],
    }
    drawn = shots_picture(board, kind="svg")
    assert drawn.startswith(b"<?xml")
    assert drawn == shots_picture(board, kind="svg")
    (other,) = leaderboard([model("vae", [_score("fid", 0.5)])])
    with pytest.raises(SettingError, match="no score by shots"):
        shots_picture(other, kind="svg")
