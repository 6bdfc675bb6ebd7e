"""What a person sees while timed rounds go: a line when one ends, on a terminal also what is measured. On stderr."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.text import Text

from genbench.core.bench import Round, unit_of
from genbench.rounds import Progress


@contextlib.contextmanager
def round_progress(console: Console, title: str) -> Iterator[Callable[[Progress], None]]:
    """Told of every round, it prints; the title comes first."""
    console.print(title, markup=False, soft_wrap=True)
    if not console.is_terminal:
        yield lambda progress: _say(console, progress)
        return
    with console.status("starting") as status:

        def tell(progress: Progress) -> None:
            status.update(Text(f"{progress.job.title}, round {progress.job.index + 1}"))
            _say(console, progress)

        yield tell


def _say(console: Console, progress: Progress) -> None:
    done = progress.round
    if done is None:
        return
    planned = "" if progress.planned is None else f"/{progress.planned}"
    round_ = "" if done.sweep else f" round {done.index + 1}"
    how = _outcome(done, progress.job.cell.dataset.label)
    line = f"  [{progress.done}{planned}] {progress.job.title}{round_}: {how} ({done.seconds:.1f} s)"
    console.print(line, markup=False, soft_wrap=True)


def _outcome(done: Round, dataset: str) -> str:
    """One phrase on how a round ended."""
    if done.error is not None:
        return f"{done.error.type}: {done.error.message.splitlines()[0]}"
    shown = [f"{statistics.median(values):.4g} {unit_of(name, dataset)}" for name, values in done.values.items()]
    return ", ".join([*shown, *done.flags]) or "done"
