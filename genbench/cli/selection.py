"""Options that choose the cells of a suite, shared by all commands that have some."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from genbench.core.errors import SettingError
from genbench.core.version import VERSION
from genbench.plan import Plan, Selection, check_data, load_suite, make_plan

if TYPE_CHECKING:
    from genbench.core.spec import Cell
    from genbench.store import RunFolder


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose cells."""
    group = parser.add_argument_group("what to run")
    group.add_argument("--suite", required=True, metavar="name", help="a shipped suite, or a path to a suite file")
    add_models(group)
    group.add_argument("--dataset", metavar="name", help="another dataset, such as `folder:PATH[resolution=32]`")
    group.add_argument(
        "--text-encoder", metavar="name", help="judge of captions, such as `clip` (default: the suite's, else `clip`)"
    )
    group.add_argument("--tier", metavar="name", help="budget (default: quick on a CPU, standard on a GPU)")
    group.add_argument("--seeds", metavar="numbers", help="comma-separated, such as 0,1,2")
    group.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: auto")


def add_models(group: argparse._ArgumentGroup) -> None:
    """Declare `-m`, in the same words wherever models are chosen."""
    group.add_argument(
        "-m",
        "--model",
        action="extend",
        nargs="+",
        default=[],
        metavar="model",
        help="only these: names with settings (`ddpm[num_steps=20]`), `@paradigm`, `file.py`, or `module:Class`; "
        "a bare name that is no row itself means the suite's rows of that model; may be repeated, and what is named "
        "twice counts once (default: all of the suite)",
    )


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    selection = Selection(
        tier=options.tier,
        models=tuple(options.model),
        dataset=options.dataset,
        seeds=None if options.seeds is None else _seeds(options.seeds),
        text_encoder=options.text_encoder,
        device=_device(options.device),
    )
    return make_plan(load_suite(options.suite), selection, version=VERSION)


def finished_cells(plan: Plan, folder: RunFolder) -> set[str]:
    """Keys of the cells that are finished in a run folder."""
    records = ((cell.key, folder.record(cell.key)) for cell in plan.cells)
    return {key for key, record in records if record is not None and record.status == "ok"}


def check_needed_data(plan: Plan, finished: set[str]) -> None:
    """Refuse a plan with cells to run whose data are not there.

    Raises:
        DataError: it says where they were looked for, and how to get them.
    """
    if len(finished) < len(plan.cells):
        check_data(plan)


def check_text_encoders(cells: Sequence[Cell]) -> None:
    """Refuse models with a published text encoder that can be had neither here nor over the network.

    Raises:
        DataError: it says what to do.
    """
    from genbench.core.text_encoders import check_text_encoder

    for name in dict.fromkeys(cell.subject.config.get("text_encoder") for cell in cells if cell.role == "model"):
        if name:
            check_text_encoder(str(name))


def out_folder(given: Path | None, plan: Plan) -> Path:
    """The run folder: the given one, or one below `runs` named for suite, tier and a changed dataset."""
    if given is not None:
        return given
    parts = [plan.suite.name] if plan.suite.name.endswith(plan.tier) else [plan.suite.name, plan.tier]
    if plan.protocol.dataset != plan.suite.tiers[plan.tier].dataset:
        parts.append(re.sub(r"[^A-Za-z0-9.]+", "-", plan.protocol.dataset.label).strip("-"))
    return Path("runs") / "-".join(parts)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(f"`--seeds {text}` is not a list of whole numbers", hint="write --seeds 0,1,2") from error
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise SettingError(f"`--seeds {text}`: seeds are distinct and not negative")
    return seeds


def _device(asked: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """The device asked for; `auto` looks for a driver and a CUDA build of torch without importing it."""
    if asked == "cpu":
        return asked
    driver = Path("/proc/driver/nvidia/gpus")
    present = driver.is_dir() and any(driver.iterdir()) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    usable = present and "+cpu" not in _torch_version()
    if asked == "cuda" and sys.platform == "linux" and not usable:
        raise SettingError(
            "`--device cuda`: no NVIDIA driver, or torch was built without CUDA", hint="`genbench doctor` shows both"
        )
    return "cuda" if usable or asked == "cuda" else "cpu"


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "+cpu"
