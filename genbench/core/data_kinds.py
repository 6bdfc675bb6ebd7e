"""Which kinds of data a model takes, and of which kind a dataset is, read off their sources without importing them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from genbench.core.declared import class_value, lineage, registered_class
from genbench.core.registry import PACKAGE_ROOT

USUAL_KIND = "image"
"""Of a `DataSpec` that names none."""


@functools.cache
def kinds_taken(path: Path, name: str) -> tuple[str, ...]:
    """Kinds of data that a built-in model can be built for: `takes` of its class, or of the nearest base that says so.

    Args:
        path: of the model's file.
        name: registered name.

    Raises:
        SettingError: no class in the file is registered under that name.
    """
    return _taken(registered_class(path, name), path)


@functools.cache
def kind_of_data(path: Path, name: str) -> str | None:
    """Kind of the examples of a built-in dataset, from the `DataSpec` in its class; None where that leaves it open.

    Args:
        path: of the dataset's file.
        name: registered name.
    """
    kinds = {_kind(call) for call in _specs(path, name)}
    return kinds.pop() if len(kinds) == 1 else None


@functools.cache
def says_nothing_of(path: Path, name: str, field: str) -> bool:
    """Whether no `DataSpec` of a built-in dataset fills a field, so that its data have no such thing.

    Args:
        path: of the dataset's file.
        name: registered name.
        field: `num_classes` or `vocabulary`.
    """
    specs = _specs(path, name)
    return bool(specs) and all(field not in {word.arg for word in call.keywords} for call in specs)


def _specs(path: Path, name: str) -> list[ast.Call]:
    """Calls of `DataSpec` in the class of a dataset, or in the nearest base that has some."""
    for node in reversed(lineage(path, name)):
        calls = [call for call in ast.walk(node) if isinstance(call, ast.Call) and ast.unparse(call.func) == "DataSpec"]
        if calls:
            return calls
    return []


def _kind(call: ast.Call) -> str | None:
    given = next((word.value for word in call.keywords if word.arg == "kind"), ast.Constant(USUAL_KIND))
    return str(given.value) if isinstance(given, ast.Constant) else None


def _taken(node: ast.ClassDef, path: Path) -> tuple[str, ...]:
    own = class_value(node, "takes")
    if isinstance(own, tuple):
        return own
    return next((kinds for base, file in _bases(node, path) if (kinds := _taken(base, file))), ())


def _bases(node: ast.ClassDef, path: Path) -> Iterator[tuple[ast.ClassDef, Path]]:
    """Classes of this package that a class is derived from, in order, and the files that hold them."""
    tree = _tree(path)
    homes = {part.name: path for part in tree.body if isinstance(part, ast.ClassDef)}
    for imported in (part for part in tree.body if isinstance(part, ast.ImportFrom) and part.module):
        file = PACKAGE_ROOT.parent.joinpath(*str(imported.module).split(".")).with_suffix(".py")
        homes |= {alias.name: file for alias in imported.names if file.is_file()}
    for name in (base.id for base in node.bases if isinstance(base, ast.Name) and base.id in homes):
        inside = (part for part in _tree(homes[name]).body if isinstance(part, ast.ClassDef) and part.name == name)
        yield from ((part, homes[name]) for part in inside)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
