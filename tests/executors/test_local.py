"""The local executor against everything that a cell can do to it.

The worker is replaced on the path by small programs that misbehave, so that each case takes a moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench.core.spec import Cell
from genbench.executors import local
from genbench.executors.job import Job
from genbench.plan import Selection, load_suite, make_plan


@pytest.fixture(scope="module")
def cell() -> Cell:
    return make_plan(load_suite("images_smoke"), Selection(), version="1").cells[0]


@pytest.fixture
def run(tmp_path: Path, cell: Cell, monkeypatch):
    """Run a program in the worker's place: (outcome, progress messages, seconds)."""

    def start(program: str, *, deadline: float = 20.0):
        script = tmp_path / "worker.py"
        script.write_text(
            "import os, sys, time, signal\nfd = int(sys.argv[sys.argv.index('--progress-fd') + 1])\n" + program
        )
        real = local._command

        def command(job: Job, progress: int) -> list[str]:
            return [sys.executable, str(script), *real(job, progress)[3:]]

        monkeypatch.setattr(local, "_command", command)
        limited = cell.model_copy(update={"protocol": cell.protocol.model_copy(update={"deadline_seconds": deadline})})
        folder = tmp_path / "cell"
        folder.mkdir(exist_ok=True)
        messages: list[dict] = []
        before = time.monotonic()
        outcome = local.LocalExecutor().run(Job(limited, folder, None), on_progress=messages.append)
        return outcome, messages, time.monotonic() - before

    return start


def test_progress_and_logs_arrive(run, tmp_path):
    outcome, messages, _ = run(
        'os.write(fd, b\'{"phase": "data"}\\n{"phase": "train", "seen": 3}\\n\'); print(\'hello\')\n'
        "print('oops', file=sys.stderr)"
    )
    assert outcome.returncode == 0
    assert outcome.phase == "train"
    assert messages == [{"phase": "data"}, {"phase": "train", "seen": 3}]
    assert (tmp_path / "cell" / "stdout.log").read_text() == "hello\n"
    assert local.log_tail(tmp_path / "cell" / "stderr.log") == "oops"


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise ValueError('broken')", 1),
        ("sys.exit(7)", 7),
        ("os._exit(9)", 9),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_every_way_to_die_is_told_apart(run, program, code):
    outcome, _, _ = run(program)
    assert (outcome.returncode, outcome.timed_out) == (code, False)


@pytest.mark.parametrize(
    "program", ["time.sleep(60)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass"]
)
def test_a_cell_that_hangs_is_ended_at_its_deadline(run, monkeypatch, program):
    monkeypatch.setattr(local, "GRACE_SECONDS", 0.5)
    outcome, _, seconds = run('os.write(fd, b\'{"phase": "train"}\\n\')\n' + program, deadline=1.0)
    assert outcome.timed_out
    assert outcome.phase == "train"
    assert seconds < 10


def test_a_flood_of_output_does_not_block_the_cell(run, tmp_path):
    outcome, _, _ = run("sys.stdout.write('x' * 10_000_000); sys.stderr.write('y' * 10_000_000)")
    assert outcome.returncode == 0
    assert (tmp_path / "cell" / "stdout.log").stat().st_size == 10_000_000


def test_children_of_a_cell_do_not_outlive_it(run, tmp_path):
    child = "import subprocess\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    run(child + f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))")
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the grandchild is still running")


def test_stopping_the_executor_ends_what_is_in_flight(tmp_path, cell, monkeypatch):
    import threading

    executor = local.LocalExecutor()
    monkeypatch.setattr(local, "_command", lambda job, fd: [sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "cell").mkdir()
    timer = threading.Timer(1.0, executor.stop)
    timer.start()
    before = time.monotonic()
    outcome = executor.run(Job(cell, tmp_path / "cell", None), on_progress=lambda message: None)
    timer.join()
    assert outcome.returncode == -signal.SIGTERM
    assert time.monotonic() - before < 20


def test_a_worker_ends_when_the_one_who_started_it_is_killed(tmp_path, cell):
    (tmp_path / "cell").mkdir()
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import sys, json\nfrom pathlib import Path\nfrom genbench.core.spec import Cell\n"
        "from genbench.executors import local\nfrom genbench.executors.job import Job\n"
        "cell = Cell.model_validate_json(Path(sys.argv[1]).read_text())\n"
        "def tell(message):\n    print('running', flush=True)\n"
        "local.LocalExecutor().run(Job(cell, Path(sys.argv[2]), None), on_progress=tell)\n"
    )
    (tmp_path / "cell.json").write_text(cell.model_dump_json())
    command = [sys.executable, str(parent), str(tmp_path / "cell.json"), str(tmp_path / "cell")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "running\n"
        workers = _workers(tmp_path / "cell")
        process.kill()
    assert workers
    for _ in range(100):
        if not _workers(tmp_path / "cell"):
            return
        time.sleep(0.1)
    pytest.fail("the worker is still running")


def _workers(folder: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"genbench.harness.worker" in words and str(folder / "job.json").encode() in words:
            found.append(int(path.parent.name))
    return found
