"""`genbench compare`: is one set of samples better than another, beyond the noise?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.evaluate import add_network_arguments, device_of, features_of, progress, split_names, write_json

if TYPE_CHECKING:
    from genbench.harness.compare import Comparison

_METRICS = "frechet_distance,kernel_distance,precision_recall"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `compare`."""
    parser.add_argument("first", help="samples, in any form that `evaluate` takes")
    parser.add_argument("second", help="other samples; row i counts as paired with row i of the first")
    parser.add_argument("--reference", required=True, metavar="data", help="real training data, shared by both")
    parser.add_argument("--metrics", default=_METRICS, metavar="names", help=f"comma-separated (default: {_METRICS})")
    add_network_arguments(parser)
    parser.add_argument("--held-out", metavar="data", help="real data that no model has seen, for memorisation")
    parser.add_argument("--num-reference", type=int, default=10_000, metavar="n", help="examples behind neighbours")
    parser.add_argument("--groups", type=int, default=20, metavar="n", help="of the jackknife (default: 20)")
    parser.add_argument("--json", type=Path, metavar="file", help="write the differences there, `-` for stdout")
    parser.epilog = "example: genbench compare mine_pngs theirs_pngs --reference train_pngs --features inception_v3"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    from genbench.core.errors import SettingError
    from genbench.harness.compare import compare_samples

    if options.groups < 2:
        raise SettingError(f"`--groups {options.groups}`: a jackknife needs at least 2")
    with progress() as tell:
        done = compare_samples(
            options.first,
            options.second,
            options.reference,
            metrics=split_names(options.metrics),
            features=features_of(options),
            held_out=options.held_out,
            num_reference=options.num_reference,
            groups=options.groups,
            device=device_of(options.device),
            caching=not options.no_cache,
            tell=tell,
        )
    if not write_json(done.document(), options.json):
        _print(done)
    return 0


def _print(done: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table("score", "first", "second", "first - second", "95 % interval", "p (Holm)", "better", box=None)
    for row in done.differences:
        arrow = "↓" if row.better == "lower" else "↑"
        table.add_row(
            f"{row.name} {arrow}",
            f"{row.first:.4g}",
            f"{row.second:.4g}",
            f"{row.difference:+.3g}",
            f"{row.ci95[0]:+.3g} .. {row.ci95[1]:+.3g}",
            "< 0.001" if row.p_adjusted < 0.001 else f"{row.p_adjusted:.3f}",
            row.winner,
        )
    console.print(table)
    console.print(f"{done.num_samples} samples a side; {done.how}", markup=False)
    for name, reason in done.skipped.items():
        console.print(f"{name}: skipped: {reason}", markup=False)
