"""`genbench info`: everything that a name's own source says of it, without importing it."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Mapping
from pathlib import Path

from genbench.cli.tiers import tiers_of_model, tiers_of_suite
from genbench.core.declared import declaration, settings_of
from genbench.core.errors import SettingError, UnknownName, nearest
from genbench.core.presets import SAMPLING, preset_values
from genbench.core.references import checked_model, given_settings
from genbench.core.registry import Registry
from genbench.core.spec import Ref, Scalar, parse_ref
from genbench.plan import suite_files

_FOLDERS = {"model": "models", "dataset": "data", "metric": "metrics", "feature extractor": "features"}
_KINDS = {"model": "model", "dataset": "dataset", "metric": "metric", "features": "feature extractor", "suite": "suite"}
"""What may be asked for, and what it is called in prose."""
_USUAL_PRESET = "small"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `info`."""
    parser.add_argument(
        "name",
        help="a model, suite, dataset, metric or extractor; with settings in brackets (`fsq[preset=paper,width=64]`) "
        "their values are those that would be used",
    )
    parser.add_argument("--kind", choices=_KINDS, help="only that kind of thing, where several have the name")
    parser.epilog = "example: genbench info ddpm\n  genbench info 'ddpm[preset=paper]'"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the description of every thing of that name."""
    ref = parse_ref(options.name)
    found, known = _places(ref.name)
    if options.kind is not None:
        found = {kind: path for kind, path in found.items() if kind == _KINDS[options.kind]}
    if not found:
        asked = "nothing" if options.kind is None else f"no {_KINDS[options.kind]}"
        raise UnknownName(f"{asked} is called `{ref.name}`", hint=nearest(ref.name, known))
    texts = [_described(kind, path, ref) for kind, path in found.items()]
    if len(found) > 1:
        kinds = " and ".join(f"a {kind}" for kind in found)
        texts.insert(0, f"`{ref.name}` is {kinds}; both follow, and `--kind` shows one alone")
    sys.stdout.write("\n\n".join(texts).rstrip() + "\n")
    return 0


def _places(name: str) -> tuple[dict[str, Path], set[str]]:
    """Kind -> file of everything of that name, and all names that there are."""
    suites = suite_files()
    files = {kind: Registry[object](kind, folder).files() for kind, folder in _FOLDERS.items()}
    found = {kind: named[name] for kind, named in files.items() if name in named}
    if name in suites:
        found["suite"] = suites[name]
    return found, {*suites, *(other for named in files.values() for other in named)}


def _described(kind: str, path: Path, ref: Ref) -> str:
    if kind == "suite":
        if ref.preset is not None or ref.config:
            raise SettingError(f"suite `{ref.name}` takes no settings", hint=f"`genbench info {ref.name}` describes it")
        tiers = "\n".join(tiers_of_suite(path))
        return f"{ref.name} (suite)\n\n{tiers}\n\n{path.read_text(encoding='utf-8')}".rstrip()
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "no description"
    text = f"{ref.name} ({kind}, {path.parent.name})\n\n{doc}"
    if kind == "model":
        return "\n".join([text, *_of_model(path, ref)])
    settings = settings_of(path, ref.name, values=_written(given_settings(path, ref)))
    return "\n".join([text, *(["settings:", *_listed(settings)] if settings else [])])


def _of_model(path: Path, ref: Ref) -> list[str]:
    """Presets, and every setting with the value that it would have."""
    declared = declaration(path, ref.name)
    preset = ref.preset or (_USUAL_PRESET if _USUAL_PRESET in declared.presets else declared.presets[0])
    checked_model(Registry[object]("model", "models"), path, ref, preset=preset)
    given = _written(ref.config)
    config = settings_of(path, ref.name, values={**preset_values(path, ref.name, preset), **given})
    sampler = preset_values(path, ref.name, preset, table=SAMPLING)
    sampling = settings_of(path, ref.name, nested="Sampling", values={**sampler, **given}) if declared.sampling else {}
    changed = f" and {', '.join(f'`{key}`' for key in given)} as given" if given else ""
    other = next((name for name in reversed(declared.presets) if name != preset), preset)
    return [
        f"presets: {', '.join(declared.presets)}; a tier takes, unless `{ref.name}[preset=NAME]` says another:",
        *tiers_of_model(ref.name, declared.presets),
        f"settings with preset `{preset}`{changed}; `genbench info '{ref.name}[preset={other}]'` shows another:",
        *_listed(config),
        *([f"settings of the sampler with preset `{preset}`:", *_listed(sampling)] if sampling else []),
    ]


def _written(settings: Mapping[str, Scalar]) -> dict[str, str]:
    """Values as a source spells them."""
    return {key: repr(value) for key, value in settings.items()}


def _listed(settings: Mapping[str, str]) -> list[str]:
    return [f"  {key}: {how}" for key, how in settings.items()]
