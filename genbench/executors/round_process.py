"""Run one timed round in a fresh process, of this genbench or of another checkout, under a deadline."""

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
from pathlib import Path

from pydantic import ValidationError

from genbench.core.bench import Round
from genbench.core.record import Failure
from genbench.executors.local import log_tail
from genbench.harness.round_job import RoundJob, write_job

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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _ROUND).unlink(missing_ok=True)
    write_job(job, folder / "job.json")
    began = time.monotonic()
    code = _returncode(_command(folder, installation), folder, installation, deadline_seconds)
    seconds = time.monotonic() - began
    try:
        done = Round.model_validate_json((folder / _ROUND).read_bytes())
    except FileNotFoundError:
        failure = _cause(code, folder, installation, deadline_seconds)
    except ValidationError as error:
        what = f"{folder / _ROUND}: not a round that this version can read: {_first_line(error)}"
        failure = Failure(phase="report", type="Unreadable", message=what, hint="another version of genbench wrote it")
    else:
        return done.model_copy(update={"seconds": round(seconds, 3)})
    return Round(
        label=job.cell.label,
        phase=job.phase,
        variant=job.variant,
        index=job.index,
        batch_size=job.batch_size,
        sweep=job.sweep,
        error=failure,
        seconds=round(seconds, 3),
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


def _returncode(command: list[str], folder: Path, installation: Installation, deadline_seconds: float) -> int | None:
    """Exit code of the process, negative for a signal; None when the deadline ended it."""
    with (folder / "stdout.log").open("wb") as stdout, (folder / "stderr.log").open("wb") as stderr:
        process = subprocess.Popen(  # noqa: S603 - our own worker, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            env=_environment(installation),
            start_new_session=True,
        )
        try:
            if _ended(process, deadline_seconds):
                return process.wait()
            process.send_signal(signal.SIGUSR1)  # the worker writes where it hangs
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            return None
        finally:
            _end(process)


def _ended(process: subprocess.Popen[bytes], deadline_seconds: float) -> bool:
    """Whether a process ends in time; on Linux without looking again and again, which would disturb what it times."""
    if sys.platform != "linux":
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(deadline_seconds)
        return process.poll() is not None
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
