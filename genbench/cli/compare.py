"""`genbench compare`: is one set of samples, or one run, better than another, beyond the noise?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.cli.evaluate import (
    add_caption_arguments,
    add_network_arguments,
    captions_of,
    device_of,
    features_of,
    progress,
    split_names,
    write_json,
)

if TYPE_CHECKING:
    from genbench.evaluation.compare import Comparison

_METRICS = "frechet_distance,kernel_distance,precision_recall"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `compare`."""
    parser.add_argument("first", help="samples, in any form that `evaluate` takes; or a run, bench file or baseline")
    parser.add_argument(
        "second",
        nargs="?",
        help="other samples; row i is paired with row i of the first; or a later run (with `--models`: the first)",
    )
    samples = parser.add_argument_group("two sets of samples")
    samples.add_argument("--reference", metavar="data", help="real training data, shared by both")
    samples.add_argument("--metrics", default=_METRICS, metavar="names", help=f"comma-separated (default: {_METRICS})")
    add_network_arguments(samples)
    add_caption_arguments(samples)
    samples.add_argument("--held-out", metavar="data", help="real data that no model has seen, for memorisation")
    samples.add_argument("--num-reference", type=int, default=10_000, metavar="n", help="examples behind neighbours")
    samples.add_argument("--groups", type=int, default=20, metavar="n", help="of the jackknife (default: 20)")
    runs = parser.add_argument_group("two runs, or two rows of one")
    runs.add_argument(
        "--models",
        nargs=2,
        metavar=("first", "second"),
        help="set these two rows against each other, named as in the table: one of each run, or both of one; exit "
        "code 1 means that the second is worse in some score (default: rows of equal names)",
    )
    runs.add_argument("--tolerance", type=float, default=0.02, metavar="share", help="slow-down (default: 0.02)")
    runs.add_argument(
        "--quality-tolerance", type=float, default=0.02, metavar="share", help="of scores (default: 0.02)"
    )
    runs.add_argument("--allow-versions", action="store_true", help="compare although versions or machines differ")
    runs.add_argument("--strict", action="store_true", help="exit with 4 where a verdict is inconclusive")
    runs.add_argument("--junit", type=Path, metavar="file", help="write the verdicts as JUnit XML")
    parser.add_argument(
        "--json", type=Path, metavar="file", help="write the differences there; of samples: `-` for stdout"
    )
    parser.epilog = (
        "example: genbench compare mine_pngs theirs_pngs --reference train_pngs --features inception_v3\n"
        "  genbench compare runs/before runs/after\n"
        "  genbench compare runs/reconstruction-quick --models 'fsq[levels=8x6x5]' 'fsq[levels=8x8]'"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    from genbench.cli.compare_runs import is_measured, run_comparison
    from genbench.core.errors import SettingError

    if options.reference is not None:
        return _compare_samples(options)
    if options.second is None and options.models is None:
        raise SettingError(
            "nothing to compare it with",
            hint="give a second path, or two rows of the run with `--models FIRST SECOND`",
        )
    sides = Path(options.first), Path(options.first if options.second is None else options.second)
    if not all(map(is_measured, sides)):
        raise SettingError(
            f"{' and '.join(f'`{side}`' for side in dict.fromkeys(sides))}: not both runs, bench files or baselines, "
            "and samples need a reference",
            hint="give `--reference DATA`, the real data that both sets of samples are compared with",
        )
    return run_comparison(
        *sides,
        tolerance=options.tolerance,
        quality_tolerance=options.quality_tolerance,
        allow_versions=options.allow_versions,
        strict=options.strict,
        json=options.json,
        junit=options.junit,
        models=None if options.models is None else (options.models[0], options.models[1]),
    )


def _compare_samples(options: argparse.Namespace) -> int:
    from genbench.core.errors import SettingError
    from genbench.evaluation.compare import compare_samples

    if options.second is None:
        raise SettingError("samples are compared with samples: a second set is missing", hint="give both paths")
    if options.models is not None:
        raise SettingError("`--models` names rows of runs, and samples have none", hint="leave `--reference` out")
    if options.groups < 2:
        raise SettingError(f"`--groups {options.groups}`: a jackknife needs at least 2")
    captions, reference_captions = captions_of(options)
    with progress() as tell:
        done = compare_samples(
            options.first,
            options.second,
            options.reference,
            metrics=split_names(options.metrics),
            features=features_of(options),
            perceptual=options.perceptual,
            text_encoder=options.text_encoder,
            captions=captions,
            reference_captions=reference_captions,
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

    from genbench.evaluation.evaluate import by_reason

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
    for reason, names in by_reason(done.skipped).items():
        console.print(f"{', '.join(names)}: skipped: {reason}", markup=False)
    for warning in done.warnings:
        sys.stderr.write(f"warning: {warning}\n")
