"""Run timed rounds in fresh processes, of this genbench or of another checkout, under a deadline.

One round at a time, or two whose processes take their timed blocks in turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from genbench.core.bench import Round
from genbench.core.record import Failure
from genbench.executors.local import log_tail
from genbench.harness.round_job import RoundJob, write_job
from genbench.timing.turns import VARIABLE, Seat, deal

DEADLINE_SECONDS = 3600.0
_WORKER = "genbench.harness.round_worker"
_ROUND = "round.json"


@dataclasses.dataclass(frozen=True)
class Installation:
    """The Python and the genbench that run a round."""

    python: str = sys.executable
    path: Path | None = None
    """A checkout that is put before everything else on the path of modules; None is the running genbench."""


HERE = Installation()


def run_round(
    job: RoundJob, *, folder: Path, installation: Installation = HERE, deadline_seconds: float = DEADLINE_SECONDS
) -> Round:
    """Measure one round in a process of its own; never raises for what the round does.

    Args:
        job: what to measure.
        folder: for the job file, the logs and `round.json`; made when it is not there.
        installation: whose code runs.
        deadline_seconds: after this long the process is ended, and the round is an error.

    Returns:
        What the process wrote, or a round whose `error` says how it died.
    """
    with _Started(job, folder, installation) as process:
        in_time = process.ended(deadline_seconds)
    return process.round(in_time, deadline_seconds)


@dataclasses.dataclass(frozen=True)
class Side:
    """One of two rounds that run side by side."""

    job: RoundJob
    folder: Path
    installation: Installation = HERE


def run_side_by_side(first: Side, second: Side, *, deadline_seconds: float = DEADLINE_SECONDS) -> tuple[Round, Round]:
    """Measure two rounds at once, whose processes take their timed blocks alternately; else as `run_round`.

    Both get ready at the same time; the first to be ready has the first turn. An installation that knows no turns is
    measured all the same: the other side then waits for its end. On Windows the rounds run one after the other.

    Args:
        first: one round.
        second: the other, with a folder of its own.
        deadline_seconds: for each round, hence twice as long for both.
    """
    if sys.platform == "win32":
        one, other = (run_round(s.job, folder=s.folder, installation=s.installation) for s in (first, second))
        return one, other
    with contextlib.ExitStack() as stack:
        tables = [stack.enter_context(_Table()) for _ in range(2)]
        processes = [
            stack.enter_context(_Started(side.job, side.folder, side.installation, table))
            for side, table in zip((first, second), tables, strict=True)
        ]
        seats = [table.seat(process.lives) for table, process in zip(tables, processes, strict=True)]
        began = time.monotonic()
        deal(seats, deadline_seconds=2 * deadline_seconds)
        left = max(0.0, 2 * deadline_seconds - (time.monotonic() - began))
        in_time = [process.ended(left) for process in processes]
    one, other = (p.round(met, 2 * deadline_seconds) for p, met in zip(processes, in_time, strict=True))
    return one, other


class _Table:
    """Two pipes between a process that takes turns and this one, which deals them."""

    def __init__(self) -> None:
        self._asked, self._ask = os.pipe()
        self._answered, self._answer = os.pipe()
        self.handed = (self._ask, self._answered)
        """The process's ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        for descriptor in (self._asked, self._answer):
            os.close(descriptor)

    def seat(self, lives: Callable[[], bool]) -> Seat:
        """This process's ends; the others are closed here, so that the pipe ends with the process."""
        for descriptor in self.handed:
            os.close(descriptor)
        return Seat(self._asked, self._answer, lives)


class _Started:
    """The process of one round: started on entry, gone on exit, with everything that it has started."""

    def __init__(self, job: RoundJob, folder: Path, installation: Installation, table: _Table | None = None) -> None:
        self._job, self._folder, self._installation = job, folder, installation
        self._handed = () if table is None else table.handed
        self._seconds = 0.0

    def __enter__(self) -> Self:
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _ROUND).unlink(missing_ok=True)
        write_job(self._job, folder / "job.json")
        self._began = time.monotonic()
        turns = {VARIABLE: ",".join(map(str, self._handed))} if self._handed else {}
        with (folder / "stdout.log").open("wb") as stdout, (folder / "stderr.log").open("wb") as stderr:
            self._process = subprocess.Popen(  # noqa: S603 - our own worker, no shell
                _command(folder, self._installation),
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                env={**_environment(self._installation), **turns},
                pass_fds=self._handed,
                start_new_session=True,
            )
        return self

    def __exit__(self, *details: object) -> None:
        self._seconds = time.monotonic() - self._began
        _end(self._process)

    def lives(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def ended(self, deadline_seconds: float) -> bool:
        """Wait for the end; False where the process had to be ended, after it has written where it hangs."""
        if _ended(self._process, deadline_seconds):
            self._process.wait()
            return True
        self._process.send_signal(signal.SIGUSR1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        return False

    def round(self, in_time: bool, deadline_seconds: float) -> Round:
        """What the process has written, or why it has not."""
        job, folder = self._job, self._folder
        code = self._process.returncode if in_time else None
        try:
            done = Round.model_validate_json((folder / _ROUND).read_bytes())
        except FileNotFoundError:
            failure = _cause(code, folder, self._installation, deadline_seconds)
        except ValidationError as error:
            what = f"{folder / _ROUND}: not a round that this version can read: {_first_line(error)}"
            failure = Failure(
                phase="report", type="Unreadable", message=what, hint="another version of genbench wrote it"
            )
        else:
            return done.model_copy(update={"seconds": round(self._seconds, 3)})
        return Round(
            label=job.cell.label,
            phase=job.phase,
            variant=job.variant,
            index=job.index,
            batch_size=job.batch_size,
            sweep=job.sweep,
            error=failure,
            seconds=round(self._seconds, 3),
        )


def _command(folder: Path, installation: Installation) -> list[str]:
    # The folder in which the command was given may hold a genbench, and only the running one may be meant by it.
    safe = [] if installation == HERE else ["-P"]
    return [installation.python, *safe, "-m", _WORKER, str(folder.resolve() / "job.json"), "--end-with-stdin"]


def _environment(installation: Installation) -> dict[str, str]:
    """The parent's variables, with what must stand before torch loads."""
    # Threads spin for microseconds, then sleep: as fast as spinning, and harmless on a busy machine.
    base = {"GOMP_SPINCOUNT": "10000", **os.environ, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}
    if installation == HERE:
        return base
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if installation.path is None:  # another Python, whose own genbench is meant
        kept = [part for part in given if not (Path(part) / "genbench").is_dir()]
        return {**base, "PYTHONPATH": os.pathsep.join(kept)}
    return {**base, "PYTHONPATH": os.pathsep.join([str(installation.path.resolve()), *given, str(Path.cwd())])}


def _ended(process: subprocess.Popen[bytes], deadline_seconds: float) -> bool:
    """Whether a process ends in time; on Linux without looking again and again, which would disturb what it times."""
    if sys.platform != "linux":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(deadline_seconds)
        return process.poll() is not None
    if process.poll() is not None:
        return True
    handle = os.pidfd_open(process.pid)
    try:
        return bool(select.select([handle], [], [], deadline_seconds)[0])
    finally:
        os.close(handle)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that the process and everything it started are gone; it has nothing to put in order."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _cause(code: int | None, folder: Path, installation: Installation, deadline_seconds: float) -> Failure:
    """Why a process left no round."""
    words = log_tail(folder / "stderr.log")
    log = str(folder / "stderr.log")
    if code is None:
        hint = "the log says where it hung; a smaller `--effort` or a smaller model needs less time"
        return Failure(
            phase="round", type="Timeout", message=f"no end after {deadline_seconds:g} s", hint=hint, log=log
        )
    if f"No module named {_WORKER}" in words or f"No module named '{_WORKER}'" in words:
        where = "the running genbench" if installation.path is None else f"the genbench in {installation.path}"
        hint = "it is older than timed rounds; compare with a newer one"
        return Failure(phase="start", type="TooOld", message=f"{where} has no timed rounds", hint=hint, log=log)
    if code == -signal.SIGKILL:
        hint = "most often the system ran out of memory"
        return Failure(phase="round", type="Killed", message="killed by SIGKILL", hint=hint, log=log)
    shown = f"killed by {signal.Signals(-code).name}" if code < 0 else f"the process exited with code {code}"
    last = f"; last words: {words}" if words else ""
    return Failure(phase="round", type="Killed" if code < 0 else "Exited", message=shown + last, log=log)


def _first_line(error: ValidationError) -> str:
    first = error.errors()[0]
    return json.dumps({"field": ".".join(str(part) for part in first["loc"]), "problem": first["msg"]})
