"""The process in which one cell runs: `python -m genbench.harness.worker JOB.json`.

Every executor starts this same worker, and so can a person who wants to debug a cell. It writes the
record last. With `--end-with-stdin` it ends with the process that holds the other end of its
standard input, so that no worker outlives a killed run.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.core.files import write_atomically
from genbench.core.spec import Cell

if TYPE_CHECKING:
    from genbench.harness.train import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cell of a job file; 0 when its record is `ok`, 3 when it is `failed`."""
    parser = argparse.ArgumentParser(prog="python -m genbench.harness.worker", description="Run one cell.")
    parser.add_argument("job", type=Path, help="job file: {cell, folder, weights_folder}")
    parser.add_argument("--progress-fd", type=int, metavar="fd", help="write progress there as JSON lines")
    parser.add_argument("--end-with-stdin", action="store_true", help="exit when standard input closes")
    options = parser.parse_args(arguments)
    if options.end_with_stdin:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(options.job.read_text(encoding="utf-8"))
    cell = Cell.model_validate(job["cell"])
    folder = Path(job["folder"])
    weights = job["weights_folder"]
    _prepare_process()

    from genbench.harness.cell import run_cell

    say = _Teller(options.progress_fd)
    record = run_cell(cell, folder, weights_folder=None if weights is None else Path(weights), report=say)
    write_atomically(folder / "record.json", record.model_dump_json(indent=1).encode() + b"\n")
    return 0 if record.status == "ok" else 3


def _prepare_process() -> None:
    if sys.platform != "win32":
        faulthandler.register(signal.SIGUSR1, all_threads=True)  # says where a hanging cell hangs
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def _end_with_parent() -> None:
    """Wait for the other end of standard input to close, which a killed parent does too."""
    while os.read(0, 1):
        pass
    os._exit(130)


class _Teller:
    """Writes progress as JSON lines to a file descriptor, or nowhere."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __call__(self, phase: str, progress: Progress | None) -> None:
        if self._descriptor is None:
            return
        line: dict[str, str | int | float] = {"phase": phase}
        if progress is not None:
            line |= {
                "stage": progress.phase,
                "seen": progress.samples_seen,
                "total": progress.samples_total,
                "loss": progress.loss,
                "rate": progress.images_per_second,
            }
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


def _leave(code: int) -> None:
    """End at once: the record is on disk, and taking torch apart in order would cost a second a cell."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
