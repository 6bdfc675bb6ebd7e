"""`genbench stats`: reference statistics of a dataset, with provenance beside them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from genbench.cli.evaluate import device_of, features_of, progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `stats`."""
    parser.add_argument("reference", help="a folder or file of images, or a dataset such as shapes[resolution=16]")
    parser.add_argument("--features", default="shapes_net", metavar="name", help="extractor (default: shapes_net)")
    parser.add_argument("--weights", metavar="file", help="weights of the extractor (also: GENBENCH_WEIGHTS)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="default: cpu")
    parser.add_argument("--split", metavar="name", help="default: train of a dataset by name, all of a file or folder")
    parser.add_argument("--num-examples", type=int, default=50_000, metavar="n", help="at most (default: 50000)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="file", help="the .npz to write")
    parser.epilog = "example: genbench stats my_pngs -o my_pngs.npz"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Compute, write, and print the path."""
    from genbench.core.errors import SettingError
    from genbench.core.features import build_features, save_statistics
    from genbench.evaluation.reference import compute_statistics
    from genbench.evaluation.sides import read_reference

    if options.output.suffix != ".npz":
        raise SettingError(f"`{options.output}`: statistics are .npz files", hint=f"-o {options.output}.npz")
    if options.num_examples < 2:
        raise SettingError(f"`--num-examples {options.num_examples}`: a covariance needs at least 2")
    side = read_reference(options.reference, split=options.split, features_given=False)
    if side.dataset is None or side.ref is None:
        raise SettingError(f"`{options.reference}` holds statistics already; they are made from images")
    with progress() as tell:
        statistics = compute_statistics(
            side.ref,
            side.dataset,
            build_features(features_of(options)).to(device_of(options.device)),
            splits=side.splits,
            num_examples=options.num_examples,
            tell=tell,
        )
    save_statistics(statistics, options.output)
    sys.stdout.write(f"{options.output}\n")
    return 0
