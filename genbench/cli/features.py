"""`genbench features train`: remake the weights of an extractor that travels with the package."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `features`."""
    parser.add_argument("action", choices=["train"], help="what to do")
    parser.add_argument(
        "name", choices=["shapes_net", "shapes_clip", "shapes_language", "tones_net"], help="which extractor"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="dir", help="folder for weights and description")
    parser.add_argument("--steps", type=int, metavar="n", help="optimiser steps (default: as shipped)")
    parser.add_argument("--seed", type=int, default=0, metavar="n", help="default: 0")
    parser.epilog = "example: genbench features train shapes_net --out weights"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, write, and print the held-out accuracy; progress goes to stderr."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from genbench.harness import (
        feature_training,
        shapes_clip_training,
        shapes_language_training,
        tones_net_training,
    )

    trainings = {
        "shapes_net": (feature_training.train_shapes_net, feature_training.DEFAULT_STEPS),
        "shapes_clip": (shapes_clip_training.train_shapes_clip, shapes_clip_training.DEFAULT_STEPS),
        "shapes_language": (
            shapes_language_training.train_shapes_language,
            shapes_language_training.DEFAULT_STEPS,
        ),
        "tones_net": (tones_net_training.train_tones_net, tones_net_training.DEFAULT_STEPS),
    }
    train, default_steps = trainings[options.name]
    train(options.out, steps=default_steps if options.steps is None else options.steps, seed=options.seed)
    sys.stdout.write((options.out / f"{options.name}.json").read_text(encoding="utf-8"))
    return 0
