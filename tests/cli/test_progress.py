"""Progress without a terminal: a line when a cell begins and ends, and few between them."""

from __future__ import annotations

import io

import pytest
from gate_files import BROKEN, cell, score
from rich.console import Console

from genbench.cli.progress import Lines, _standing
from genbench.cli.wording import lasted
from genbench.core.record import Record
from genbench.core.spec import parse_ref


class Log:
    """Plain lines of a run under a clock that a test turns."""

    def __init__(self) -> None:
        self.now, self._file = 100.0, io.StringIO()
        self.observer = Lines(Console(file=self._file, width=60), "suite -> run", clock=lambda: self.now)

    @property
    def lines(self) -> list[str]:
        return self._file.getvalue().splitlines()


def ended(of, **fields):
    return Record(key=of.key, cell=of, started="2026", ended="2026", **{"status": "ok", **fields})


def test_a_cell_is_announced_when_it_begins_and_its_end_tells_phase_seconds_and_result():
    log, vae, ddpm = Log(), cell("vae"), cell("ddpm", seed=2)
    log.observer.begin([vae, ddpm], 0)
    log.observer.cell_begins(vae)
    log.now += 12.34
    log.observer.cell_ends(vae, ended(vae, scores=(score(126.4),)))
    log.observer.cell_begins(ddpm)
    log.now += 150.0
    log.observer.cell_ends(ddpm, ended(ddpm, status="failed", error=BROKEN))
    assert log.lines == [
        "suite -> run: 2 cells",
        "  [1/2] vae seed 0: begins",
        "  [1/2] vae seed 0: fd_shapes_net 126 (12.3 s)",
        "  [2/2] ddpm seed 2: begins",
        "  [2/2] ddpm seed 2: failed in train: RuntimeError: out of ideas (2 min 30 s)",
    ]


def test_cells_that_were_finished_before_count():
    log, vae = Log(), cell("vae")
    log.observer.begin([vae, cell("ddpm"), cell("ebm")], 2)
    log.observer.cell_begins(vae)
    assert log.lines == ["suite -> run: 3 cells, 2 of them finished before", "  [3/3] vae seed 0: begins"]


def test_a_long_cell_says_where_it_stands_ever_more_rarely():
    log, vae = Log(), cell("vae")
    log.observer.begin([vae], 0)
    log.observer.cell_begins(vae)
    for second in range(24 * 3600):
        log.now = 100.0 + second
        progress = {"stage": "fit", "seen": 10 * second, "total": 1_000_000, "loss": 2.5, "rate": 1234.0}
        log.observer.cell_reports(vae, {"phase": "train", **progress})
    standing = log.lines[2:]
    sound = vae.model_copy(update={"dataset": parse_ref("tones")})
    assert _standing(sound, {"phase": "train", **progress}).endswith(" 1,234 sounds/s")
    assert standing[0] == (
        "  [1/1] vae seed 0: train: fit, 600 of 1,000,000 examples, loss 2.5, 1,234 img/s, 60.0 s so far"
    )
    assert [line.rpartition(", ")[2] for line in standing[1:4]] == [
        "2 min 00 s so far",
        "4 min 00 s so far",
        "8 min 00 s so far",
    ]
    assert len(standing) == 11  # a day is 1440 minutes, and 2^11 is more


def test_a_phase_without_numbers_is_named_and_silence_is_made_up_for_once():
    log, vae = Log(), cell("vae")
    log.observer.begin([vae], 0)
    log.observer.cell_begins(vae)
    log.now += 600.0
    log.observer.cell_reports(vae, {"phase": "score"})
    log.observer.cell_reports(vae, {"phase": "save"})
    assert log.lines[2:] == ["  [1/1] vae seed 0: score, 10 min 00 s so far"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0.0 s"), (99.9, "99.9 s"), (100.0, "1 min 40 s"), (3599.7, "1 h 00 min")]
)
def test_durations_have_the_unit_that_suits_them(seconds, words):
    assert lasted(seconds) == words
