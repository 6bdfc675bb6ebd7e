"""`genbench info`: everything that a name's own source says of it, without importing it."""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from genbench.core.declared import declaration, settings_of
from genbench.core.errors import UnknownName, nearest
from genbench.core.registry import Registry

_FOLDERS = {"model": "models", "dataset": "data", "metric": "metrics", "feature extractor": "features"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `info`."""
    parser.add_argument("name", help="a model, suite, dataset, metric or extractor")
    parser.epilog = "example: genbench info ddpm"
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the description of every thing of that name."""
    from genbench.plan import suite_files

    found, known = [], set(suite_files())
    for kind, folder in _FOLDERS.items():
        files = Registry[object](kind, folder).files()
        known |= set(files)
        if options.name in files:
            found.append(_described(kind, files[options.name], options.name))
    if options.name in suite_files():
        found.append(f"{options.name} (suite)\n\n{suite_files()[options.name].read_text(encoding='utf-8')}")
    if not found:
        raise UnknownName(f"nothing is called `{options.name}`", hint=nearest(options.name, known))
    sys.stdout.write("\n\n".join(found).rstrip() + "\n")
    return 0


def _described(kind: str, path: Path, name: str) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "no description"
    text = f"{name} ({kind}, {path.parent.name})\n\n{doc}"
    settings = [f"  {key}: {hint}" for key, hint in settings_of(path, name).items()]
    if kind != "model":
        return "\n".join([text, *(["settings:", *settings] if settings else [])])
    declared = declaration(path, name)
    sampling = [f"  {key}: {hint}" for key, hint in settings_of(path, name, nested="Sampling").items()]
    parts = [text, f"presets: {', '.join(declared.presets)}", "settings, which presets change:", *settings]
    return "\n".join([*parts, *(["settings of the sampler:", *sampling] if sampling else [])])
