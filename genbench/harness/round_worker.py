"""The process in which one round is timed: `python -m genbench.harness.round_worker JOB.json`.

It writes `round.json` beside the job file, last of all. The job may come from another version of genbench: one that
cannot be read is refused in words, on standard error. With `--end-with-stdin` the process ends with the one that holds
the other end of its standard input.
"""

from __future__ import annotations

import time

_BEGAN = time.perf_counter()  # before anything heavy is imported: the imports are part of the cold start

import argparse  # noqa: E402
import faulthandler  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

from genbench.core.errors import GenbenchError  # noqa: E402
from genbench.core.files import write_atomically  # noqa: E402
from genbench.harness.round_job import read_job  # noqa: E402

ROUND_FILE = "round.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the round of a job file; 0 when it has readings, 3 when it broke, 2 when the job cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m genbench.harness.round_worker", description="Time one round.")
    parser.add_argument("job", type=Path, help="job file of the schema genbench.round-job/1")
    parser.add_argument("--end-with-stdin", action="store_true", help="exit when standard input closes")
    options = parser.parse_args(arguments)
    if options.end_with_stdin:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        job = read_job(options.job)
    except GenbenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    _prepare_process()

    from genbench.harness.timed_round import measure
    from genbench.timing.turns import asked_of_parent

    done = measure(job, import_seconds=time.perf_counter() - _BEGAN, turn=asked_of_parent())
    write_atomically(options.job.parent / ROUND_FILE, done.model_dump_json(indent=1).encode() + b"\n")
    return 0 if done.error is None else 3


def _prepare_process() -> None:
    if sys.platform != "win32":
        faulthandler.register(signal.SIGUSR1, all_threads=True)  # says where a hanging round hangs
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def _end_with_parent() -> None:
    """Wait for the other end of standard input to close, which a killed parent does too."""
    while os.read(0, 1):
        pass
    os._exit(130)


def _leave(code: int) -> None:
    """End at once: the round is on disk, and taking torch apart in order would cost a second."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())
