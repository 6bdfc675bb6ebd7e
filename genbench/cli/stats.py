"""`genbench stats`: reference statistics of a dataset, with provenance beside them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `stats`."""
    parser.add_argument("reference", help="dataset with settings, such as shapes[resolution=16] or folder:PATH")
    parser.add_argument("--features", default="shapes_net", metavar="name", help="extractor (default: shapes_net)")
    parser.add_argument("--split", choices=["train", "test"], default="train", help="default: train")
    parser.add_argument("--num-examples", type=int, default=50_000, metavar="n", help="at most (default: 50000)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="file", help="the .npz to write")
    parser.epilog = "example: genbench stats folder:my_pngs -o my_pngs.npz"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compute, write, and print the path."""
    from genbench.core.dataset import build_dataset
    from genbench.core.errors import SettingError
    from genbench.core.features import build_features, save_statistics
    from genbench.core.spec import parse_ref
    from genbench.harness.reference import compute_statistics

    if options.output.suffix != ".npz":
        raise SettingError(f"`{options.output}`: statistics are .npz files", hint=f"-o {options.output}.npz")
    if options.num_examples < 2:
        raise SettingError(f"`--num-examples {options.num_examples}`: a covariance needs at least 2")
    reference = parse_ref(options.reference)
    statistics = compute_statistics(
        reference,
        build_dataset(reference),
        build_features(parse_ref(options.features)),
        split=options.split,
        num_examples=options.num_examples,
    )
    save_statistics(statistics, options.output)
    sys.stdout.write(f"{options.output}\n")
    return 0
