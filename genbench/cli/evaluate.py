"""`genbench evaluate`: samples in, scores out; no model needed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.core.errors import DataError
from genbench.core.registry import Registry
from genbench.core.spec import Ref, parse_ref

if TYPE_CHECKING:
    from genbench.harness.evaluate import Evaluation

METRICS = "frechet_distance,kernel_distance,precision_recall,mode_coverage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    parser.add_argument("samples", help="folder of pictures, .npz file, or a dataset such as cifar10")
    parser.add_argument("--reference", required=True, metavar="data", help="the same kinds, or shapes[resolution=32]")
    parser.add_argument("--metrics", default=METRICS, metavar="names", help=f"comma-separated (default: {METRICS})")
    parser.add_argument("--features", default="shapes_net", metavar="name", help="extractor (default: shapes_net)")
    parser.add_argument("--json", type=Path, metavar="file", help="write the scores there, `-` for stdout")
    parser.epilog = "example: genbench evaluate my_pngs --reference 'shapes[resolution=32]' --json scores.json"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Score and print."""
    from genbench.core.files import write_atomically
    from genbench.harness.evaluate import evaluate

    done = evaluate(
        data_ref(options.samples),
        data_ref(options.reference),
        metrics=[parse_ref(name) for name in _split(options.metrics)],
        features=parse_ref(options.features),
    )
    text = json.dumps(done.document(), indent=2) + "\n"
    if options.json is not None and str(options.json) != "-":
        write_atomically(options.json, text.encode())
    if str(options.json) == "-":
        sys.stdout.write(text)
    else:
        _print(done)
    return 0


def data_ref(text: str) -> Ref:
    """A dataset's name, or a path: folders and .npz files need no prefix."""
    path = Path(text.partition("[")[0])
    settings = text[len(str(path)) :] if "[" in text else ""
    if path.is_dir():
        return parse_ref(f"folder:{path}{settings}")
    if path.suffix == ".npz":
        return parse_ref(f"npz:{path}{settings}")
    ref = parse_ref(text)
    known = Registry[object]("dataset", "data", group="genbench.datasets").names()
    if ref.name not in known:
        raise DataError(f"`{text}` is no folder, no .npz file and no dataset", hint=f"datasets: {', '.join(known)}")
    return ref


def _split(names: str) -> list[str]:
    """Names at top-level commas: settings in brackets hold commas of their own."""
    parts, depth = [""], 0
    for char in names:
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _print(done: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("score", "value", "95 % interval", "samples", "reference", box=None)
    for score in done.scores:
        arrow = "↓" if score.better == "lower" else "↑"
        interval = "-" if score.ci95 is None else f"{score.ci95[0]:.4g} .. {score.ci95[1]:.4g}"
        counts = (str(score.num_samples), str(score.num_reference or "-"))
        table.add_row(f"{score.name} {arrow}", f"{score.value:.4g}", interval, *counts)
    console.print(table)
    for name, reason in done.skipped.items():
        console.print(f"{name}: skipped: {reason}", markup=False)
