"""`genbench evaluate`: samples in, scores out; no model needed."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from genbench.cli.nearest import write_nearest
from genbench.cli.prompt_scores import write_prompt_scores
from genbench.core.errors import SettingError
from genbench.core.spec import Ref, parse_ref

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from genbench.evaluation.evaluate import Evaluation
    from genbench.evaluation.prompts import Captions, ReferenceCaptions

_METRICS = "frechet_distance,kernel_distance,precision_recall,inception_score,mode_coverage"
_FORMS = (
    "a folder, zip, tar, npz, npy or pt file of images, a statistics file, or a dataset such as shapes[resolution=32]"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    parser.add_argument("samples", help=_FORMS)
    parser.add_argument("--reference", required=True, metavar="data", help="real training data, in the same forms")
    parser.add_argument(
        "--metrics", default=_METRICS, metavar="names", help=f"comma-separated, or `all` (default: {_METRICS})"
    )
    add_network_arguments(parser)
    parser.add_argument("--split", metavar="name", help="of the reference (default: train of a dataset known by name)")
    parser.add_argument("--held-out", metavar="data", help="real data that no model has seen, for memorisation")
    parser.add_argument(
        "--originals", metavar="data", help="the pictures that the samples reconstruct, in the same order"
    )
    add_caption_arguments(parser)
    parser.add_argument(
        "--prompt-scores",
        type=Path,
        metavar="file",
        help="write how well each sample shows its own words there as CSV, and beside it the worst and best ten as PNG",
    )
    parser.add_argument("--num-reference", type=int, default=10_000, metavar="n", help="examples behind neighbours")
    parser.add_argument(
        "--nearest",
        type=Path,
        metavar="folder",
        help="write the samples nearest to the reference there: nearest.csv, .json, .png",
    )
    parser.add_argument("--num-nearest", type=int, default=100, metavar="n", help="of these, at most (default: 100)")
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out unreadable pictures of a folder, zip or tar, and name them; arrays are read whole or not",
    )
    parser.add_argument("--json", type=Path, metavar="file", help="write the scores there, `-` for stdout")
    parser.epilog = (
        "example: genbench evaluate my_pngs --reference 'shapes[resolution=32]' --json scores.json\n"
        "  genbench evaluate samples.npz --reference train_pngs --features inception_v3 --weights inception.pth\n"
        "  genbench evaluate a.npy --reference b.npy --features given --metrics all\n"
        "  genbench evaluate my_pngs --reference train_pngs --held-out test_pngs --nearest copies\n"
        "  genbench evaluate drawn --reference 'shapes[resolution=8]' --text-encoder shapes_clip --prompt-scores a.csv"
    )
    parser.set_defaults(run=run)


def add_caption_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Options that `evaluate` and `compare` share: what the samples were asked to show."""
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="file",
        help="one a line, JSON {file name: caption}, or a .csv or .jsonl with `file_name` and `prompt` (default: texts "
        "of a tar; .txt files, prompts.csv or metadata.jsonl of a folder)",
    )
    parser.add_argument(
        "--reference-captions",
        type=Path,
        metavar="file",
        help="other captions of the same samples, in the same forms; JSON may list several for each",
    )


def add_network_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Options that `evaluate`, `compare`, `stats` and `audit` share: networks, device, cache."""
    parser.add_argument(
        "--features", default="shapes_net", metavar="name", help="extractor, or `given` (default: shapes_net)"
    )
    parser.add_argument("--weights", metavar="file", help="weights of the extractor (also: GENBENCH_WEIGHTS)")
    parser.add_argument("--perceptual", metavar="name", help="for perceptual distances (default: lpips)")
    parser.add_argument("--text-encoder", metavar="name", help="for captions: clip, shapes_clip (default: clip)")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"], help="default: cpu")
    parser.add_argument("--no-cache", action="store_true", help="neither read nor keep features")


def _check_place(table: Path, samples: str) -> None:
    """Refuse a table of prompts that is none by its name, or whose picture would stand among the samples.

    Raises:
        SettingError: what to write in its place.
    """
    if table.suffix.lower() != ".csv":
        raise SettingError(f"`--prompt-scores {table}`: it is a table, name it `.csv`")
    if Path(samples).is_dir() and Path(samples).resolve() in table.resolve().parents:
        raise SettingError(
            f"`--prompt-scores {table}`: it lies in the folder of the samples, and so would its picture",
            hint=f"write it elsewhere: `--prompt-scores {table.name}`",
        )


def run(options: argparse.Namespace) -> int:
    """Score, print, and write what is nearest."""
    from genbench.evaluation.evaluate import evaluate

    if options.num_nearest < 1:
        raise SettingError(f"`--num-nearest {options.num_nearest}`: list at least 1, or leave `--nearest` out")
    if options.prompt_scores is not None:
        _check_place(options.prompt_scores, options.samples)
    captions, reference_captions = captions_of(options)
    metrics = split_names(options.metrics)
    if options.prompt_scores is not None and not {"all", "clip_score"} & {parse_ref(name).name for name in metrics}:
        metrics.append("clip_score")  # the mean of what is written
    with progress() as tell:
        done = evaluate(
            with_skip_bad(options.samples) if options.skip_bad else options.samples,
            options.reference,
            metrics=metrics,
            features=features_of(options),
            perceptual=options.perceptual,
            text_encoder=options.text_encoder,
            split=options.split,
            held_out=options.held_out,
            originals=options.originals,
            captions=captions,
            reference_captions=reference_captions,
            num_reference=options.num_reference,
            num_nearest=0 if options.nearest is None else options.num_nearest,
            each_prompt=options.prompt_scores is not None,
            device=device_of(options.device),
            caching=not options.no_cache,
            tell=tell,
        )
    written = [] if done.nearest is None else write_nearest(done.nearest, options.nearest)
    written += [] if done.prompt_scores is None else write_prompt_scores(done.prompt_scores, options.prompt_scores)
    if not write_json(done.document(), options.json):
        _print(done)
        sys.stdout.writelines(f"{path}\n" for path in written)
    return 0


def captions_of(options: argparse.Namespace) -> tuple[Captions | None, ReferenceCaptions | None]:
    """What the files of captions hold, where they were named."""
    from genbench.evaluation.prompts import read_captions, read_reference_captions

    asked, others = options.captions, options.reference_captions
    return (
        None if asked is None else read_captions(asked),
        None if others is None else read_reference_captions(others),
    )


def write_json(document: dict[str, object], path: Path | None) -> bool:
    """Write a document to a file, or to stdout where the path is `-`; whether it went to stdout."""
    from genbench.core.files import write_atomically

    text = json.dumps(document, indent=2) + "\n"
    if path is None:
        return False
    if str(path) == "-":
        sys.stdout.write(text)
        return True
    write_atomically(path, text.encode())
    return False


def with_skip_bad(samples: str) -> str | Ref:
    """The samples as a data set that leaves out pictures which cannot be read.

    As they are where no picture can be unreadable by itself: an array, a data set known by name, a statistics file.
    """
    from genbench.core.dataset import DATASETS
    from genbench.core.settings import field_names
    from genbench.evaluation.sides import data_ref

    ref = data_ref(samples)
    if "skip_bad" not in field_names(cast("type[DataclassInstance]", DATASETS.get(ref.name))):
        return samples
    return ref.model_copy(update={"config": {**ref.config, "skip_bad": True}})


def features_of(options: argparse.Namespace) -> Ref:
    """The extractor with its weights file, where one is given."""
    ref = parse_ref(options.features)
    if options.weights is None:
        return ref
    return ref.model_copy(update={"config": {**ref.config, "weights": options.weights}})


def device_of(name: str) -> str:
    """`auto` is the first accelerator, else the processor.

    Raises:
        SettingError: `cuda` was asked for and there is none.
    """
    if name == "cpu":
        return name
    import torch

    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise SettingError(
            "`--device cuda`: no NVIDIA driver, or torch was built without CUDA", hint="`genbench doctor` shows both"
        )
    return "cuda" if usable else "cpu"


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr while pictures are looked at; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield tell


def split_names(names: str) -> list[str]:
    """Names at top-level commas: settings in brackets hold commas of their own."""
    from genbench.evaluation.evaluate import names_in

    return names_in(names)


def _print(done: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table

    from genbench.evaluation.evaluate import by_reason

    console = Console(highlight=False)
    table = Table("score", "value", "95 % interval", "samples", "reference", box=None)
    for score in done.scores:
        arrow = "↓" if score.better == "lower" else "↑"
        interval = "-" if score.ci95 is None else f"{score.ci95[0]:.4g} .. {score.ci95[1]:.4g}"
        counts = (str(score.num_samples), str(score.num_reference or "-"))
        table.add_row(f"{score.name} {arrow}", f"{score.value:.4g}", interval, *counts)
    console.print(table)
    for reason, names in by_reason(done.skipped).items():
        console.print(f"{', '.join(names)}: skipped: {reason}", markup=False)
    for warning in done.warnings:
        sys.stderr.write(f"warning: {warning}\n")
