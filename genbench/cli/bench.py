"""`genbench bench`: what models cost, measured in rounds of fresh processes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.selection import add_models, check_text_encoders, out_folder, plan_of

if TYPE_CHECKING:
    from genbench.core.bench import BenchFile, Effort
    from genbench.plan import Plan

_PHASES = ("train", "latency", "throughput", "memory", "counters")
_VARIANTS = ("eager", "compile", "cudagraph")
_EFFORTS = ("smoke", "quick", "standard", "paper")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench`."""
    what = parser.add_argument_group("what to measure")
    add_models(what)
    what.add_argument("--suite", default="images", metavar="name", help="data and presets (default: images)")
    what.add_argument("--tier", metavar="name", help="of the suite (default: quick on a CPU, standard on a GPU)")
    what.add_argument("--dataset", metavar="name", help="another dataset, such as `digits`")
    what.add_argument(
        "--weights",
        type=Path,
        metavar="path",
        help="trained ones: a run folder, one of its cells, or a .safetensors file (default: fresh ones)",
    )
    what.add_argument("--phase", action="extend", nargs="+", choices=_PHASES, metavar="phase", help=_of(_PHASES, "all"))
    what.add_argument(
        "--variant", action="extend", nargs="+", choices=_VARIANTS, metavar="variant", help=_of(_VARIANTS, "eager")
    )
    how = parser.add_argument_group("how to measure")
    how.add_argument("--effort", choices=_EFFORTS, help="how long the clock runs (default: the one named as the tier)")
    how.add_argument("--rounds", type=_positive, metavar="n", help="fresh processes for each model and phase")
    how.add_argument("--max-batch", type=_positive, default=1024, metavar="n", help="end of the sweep (default: 1024)")
    how.add_argument("--audit", action="store_true", help="prove that the timed calls did the work")
    how.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")
    where = parser.add_argument_group("where results go")
    where.add_argument("--json", type=Path, metavar="file", help="write everything there, `-` for stdout")
    where.add_argument("--out", type=Path, metavar="dir", help="of jobs, logs, rounds (default: runs/bench-SUITE-TIER)")
    parser.epilog = (
        "example: genbench bench -m vae ddpm --phase train latency --effort quick --json bench.json\n"
        "  genbench bench -m mine.py --variant eager compile --audit\n"
        "  genbench bench -m ddpm --phase latency --weights runs/images-quick"
    )
    parser.set_defaults(run=run, seeds=None, text_encoder=None)


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from rich.console import Console

    from genbench.cli.round_progress import round_progress
    from genbench.cli.trained_weights import trained_weights
    from genbench.core.bench import BenchFile
    from genbench.plan import check_data
    from genbench.rounds import BENCH_FILE, PHASES, bench

    plan = plan_of(options)
    check_data(plan)
    first = plan.protocol.seeds[0]
    cells = [cell for cell in plan.cells if cell.role == "model" and cell.seed == first]
    check_text_encoders(cells)
    weights = {} if options.weights is None else trained_weights(options.weights, cells)
    folder = options.out or Path("runs") / f"bench-{out_folder(None, plan).name}"
    of = "fresh weights" if options.weights is None else f"the weights of {options.weights}"
    with round_progress(Console(stderr=True, highlight=False), f"bench with {of} -> {folder}") as tell:
        try:
            made = bench(
                cells,
                effort=_effort(options, plan),
                folder=folder,
                phases=[phase for phase in PHASES if options.phase is None or phase in options.phase],
                variants=list(dict.fromkeys(options.variant or ["eager"])),
                tell=tell,
                audit=options.audit,
                weights=weights,
                max_batch=options.max_batch,
            )
        except KeyboardInterrupt:
            kept = folder / BENCH_FILE
            if kept.is_file():
                _show(BenchFile.model_validate_json(kept.read_bytes()), options.json)
            sys.stderr.write(f"\ninterrupted; what was measured before is kept in {kept}\n")
            return 130
    _show(made, options.json)
    return _exit_code(made)


def _show(made: BenchFile, json: Path | None) -> None:
    from genbench.core.files import write_atomically
    from genbench.report.bench import print_bench
    from genbench.report.terminal import results_console

    document = made.model_dump_json(indent=1) + "\n"
    if json is not None and str(json) == "-":
        sys.stdout.write(document)
        return
    if json is not None:
        write_atomically(json, document.encode())
    print_bench(made, results_console())


def _exit_code(made: BenchFile) -> int:
    """3 when a subject failed, 6 when there is not one number."""
    if any(row.error is not None for row in made.results):
        return 3
    return 0 if any(row.measures or row.memory or row.counters for row in made.results) else 6


def _effort(options: argparse.Namespace, plan: Plan) -> Effort:
    from genbench.core.bench import EFFORTS

    named = options.effort or (plan.tier if plan.tier in EFFORTS else "quick")
    effort = EFFORTS[named]
    return effort if options.rounds is None else effort.model_copy(update={"rounds": options.rounds})


def _of(names: Sequence[str], default: str) -> str:
    return f"{', '.join(names)} (default: {default})"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a number from 1 up")
    return number
