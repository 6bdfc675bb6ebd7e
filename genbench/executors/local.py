"""Run cells on this machine, each in a fresh process of its own session, under a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from genbench.core.files import write_atomically
from genbench.core.spec import Cell
from genbench.executors.job import Job, Outcome

GRACE_SECONDS = 5.0
"""Between the polite signal and the one that cannot be refused."""
_POLL_SECONDS = 0.2  # only where the system cannot wait for a process and a pipe at once


class LocalExecutor:
    """Starts workers on this machine; may be used from several threads at once."""

    def __init__(self) -> None:
        self._alive: set[subprocess.Popen[bytes]] = set()

    def run(self, job: Job, *, on_progress: Callable[[Mapping[str, object]], None]) -> Outcome:
        """Run one cell to its end, its deadline, or its death; never raises for what the cell does.

        Args:
            job: the cell and its folder, which exists.
            on_progress: called with each line of progress: `phase`, and in training `seen`, `total`, ...
        """
        write_atomically(job.folder / "job.json", _described(job))
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb", buffering=0) as progress:
            try:
                process = _start(job, writing)
            finally:
                os.close(writing)
            self._alive.add(process)
            try:
                return _watch(process, progress.fileno(), job.cell, on_progress)
            finally:
                _end(process)
                self._alive.discard(process)

    def stop(self) -> None:
        """End every cell in flight; each `run` then returns."""
        for process in tuple(self._alive):
            _signal_group(process, signal.SIGTERM)


def _start(job: Job, progress: int) -> subprocess.Popen[bytes]:
    with (job.folder / "stdout.log").open("wb") as stdout, (job.folder / "stderr.log").open("wb") as stderr:
        return subprocess.Popen(  # noqa: S603 - our own worker, no shell
            _command(job, progress),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(progress,),
            env=_environment(),
            start_new_session=True,
        )


def _described(job: Job) -> bytes:
    weights = None if job.weights_folder is None else str(job.weights_folder)
    described = {"cell": job.cell.model_dump(mode="json"), "folder": str(job.folder), "weights_folder": weights}
    return json.dumps(described, indent=1).encode() + b"\n"


def _command(job: Job, progress: int) -> list[str]:
    worker = [sys.executable, "-m", "genbench.harness.worker", str(job.folder / "job.json")]
    return [*worker, "--progress-fd", str(progress), "--end-with-stdin"]


def _environment() -> dict[str, str]:
    """The parent's variables, with what must stand before torch loads."""
    # Threads spin for microseconds, then sleep: as fast as spinning, and harmless on a busy machine.
    return {"GOMP_SPINCOUNT": "10000", **os.environ, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}


def _watch(
    process: subprocess.Popen[bytes], progress: int, cell: Cell, on_progress: Callable[[Mapping[str, object]], None]
) -> Outcome:
    deadline = time.monotonic() + cell.protocol.deadline_seconds
    lines = _Lines()
    with _waiting(process, progress) as selector:
        while process.poll() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                _interrupt(process)
                return Outcome(returncode=None, phase=lines.phase, timed_out=True)
            patience = left if sys.platform == "linux" else min(left, _POLL_SECONDS)
            for key, _ in selector.select(patience):
                if key.fd == progress and not lines.read(progress, on_progress):
                    selector.unregister(progress)
    lines.drain(progress, on_progress)
    return Outcome(returncode=process.returncode, phase=lines.phase, timed_out=False)


@contextlib.contextmanager
def _waiting(process: subprocess.Popen[bytes], progress: int) -> Iterator[selectors.BaseSelector]:
    """A selector that wakes for progress and, on Linux, for the end of the process."""
    os.set_blocking(progress, False)
    with selectors.DefaultSelector() as selector:
        selector.register(progress, selectors.EVENT_READ)
        if sys.platform != "linux":
            yield selector
            return
        handle = os.pidfd_open(process.pid)
        try:
            selector.register(handle, selectors.EVENT_READ)
            yield selector
        finally:
            os.close(handle)


class _Lines:
    """Splits what arrives into lines of JSON and remembers the last phase."""

    def __init__(self) -> None:
        self.phase = "start"
        self._rest = b""

    def read(self, descriptor: int, on_progress: Callable[[Mapping[str, object]], None]) -> bool:
        """Pass on what has arrived; False when the other end is closed."""
        try:
            arrived = os.read(descriptor, 65536)
        except BlockingIOError:
            return True
        *whole, self._rest = (self._rest + arrived).split(b"\n")
        for line in whole:
            message = json.loads(line)
            self.phase = message["phase"]
            on_progress(message)
        return bool(arrived)

    def drain(self, descriptor: int, on_progress: Callable[[Mapping[str, object]], None]) -> None:
        """Pass on what is left after the process has ended."""
        while self._rest or self._more(descriptor):
            before = self._rest
            if not self.read(descriptor, on_progress) or self._rest == before:
                return

    def _more(self, descriptor: int) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            return bool(selector.select(0))


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ask a cell that is out of time to write where it hangs."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGUSR1)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Make sure that the process and everything it started are gone."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        _signal_group(process, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    if process.stdin is not None:
        process.stdin.close()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def log_tail(path: Path, *, lines: int = 3) -> str:
    """The last non-empty lines of a log, for a message; empty when there are none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        text = file.read().decode("utf-8", errors="replace")
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
