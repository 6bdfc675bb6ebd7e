"""Names that sources give to types, `Law = Literal["two_moons", "spirals"]`, spelt out without importing them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from genbench.core.ranges import NAMED
from genbench.core.registry import PACKAGE_ROOT

_KNOWN = frozenset({*NAMED, "bool", "int", "float", "str"})
"""Names that say all by themselves."""


def spelt_out(owner: ast.ClassDef, tree: ast.Module) -> ast.ClassDef:
    """The class with types in place of the aliases in the annotations of its fields, and of classes nested in it.

    Args:
        owner: changed in place.
        tree: of the file that holds it; an alias is defined there, or in a file of this package that it comes from.
    """
    for field in _fields(owner):
        field.annotation = _plain(field.annotation, tree)
    return owner


def _fields(owner: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    for part in owner.body:
        if isinstance(part, ast.AnnAssign):
            yield part
        elif isinstance(part, ast.ClassDef):
            yield from _fields(part)


def _plain(annotation: ast.expr, tree: ast.Module) -> ast.expr:
    if isinstance(annotation, ast.BinOp):
        return ast.BinOp(_plain(annotation.left, tree), annotation.op, _plain(annotation.right, tree))
    if isinstance(annotation, ast.Name) and annotation.id not in _KNOWN:
        return _meaning(annotation.id, tree) or annotation
    return annotation


def _meaning(name: str, tree: ast.Module) -> ast.expr | None:
    """What a name stands for in a file; None where that is no alias."""
    for part in tree.body:
        if isinstance(part, ast.Assign) and [ast.unparse(target) for target in part.targets] == [name]:
            return _plain(part.value, tree)
        if isinstance(part, ast.ImportFrom) and part.module and part.module.startswith(f"{PACKAGE_ROOT.name}."):
            original = next((alias.name for alias in part.names if name in {alias.asname, alias.name}), None)
            file = PACKAGE_ROOT.parent.joinpath(*part.module.split(".")).with_suffix(".py")
            if original is not None and file.is_file():
                return _meaning(original, _tree(file))
    return None


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
