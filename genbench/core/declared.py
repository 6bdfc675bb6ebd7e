"""What a source file declares, read without importing it: settings, presets, capabilities.

Plans must be made without torch, so the settings of a model are read off its syntax tree.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genbench.core.aliases import spelt_out
from genbench.core.errors import SettingError, nearest
from genbench.core.ranges import NAMED, Range
from genbench.core.registry import PACKAGE_ROOT
from genbench.core.settings import ROW, Kind, checked_value, kinds_of
from genbench.core.spec import Scalar

# Folders whose code can change a number of any cell; a model's own file is added to them.
_SHARED_SOURCES = ("core", "nn", "prob", "samplers", "data", "features", "metrics", "evaluation", "harness")

_SHOWN = 16  # owners of a setting in a hint

# What the names in an annotation stand for, as far as it can be told without an import.
_KINDS = {kind.__name__: kinds_of(kind) for kind in (bool, int, float, str)}
_KINDS |= {name: kinds_of(hint) for name, hint in NAMED.items()}


@dataclass(frozen=True)
class Declaration:
    """What the class of a built-in model declares."""

    config: dict[str, str]
    """Setting -> annotation, of the nested class `Config`."""
    sampling: dict[str, str]
    """The same of the nested class `Sampling`; empty for models that are not iterative."""
    presets: tuple[str, ...]


def declaration(path: Path, name: str) -> Declaration:
    """Read the class registered as `name` in the file.

    Raises:
        SettingError: no class in the file is registered under that name.
    """
    node = registered_class(path, name)
    return Declaration(_fields(node, "Config"), _fields(node, "Sampling"), _presets(node))


def registered_class(path: Path, name: str) -> ast.ClassDef:
    """The syntax of the class registered as `name` in the file.

    Raises:
        SettingError: no class in the file is registered under that name.
    """
    own = _class_in(ast.parse(path.read_text(encoding="utf-8")), name)
    if own is None:
        raise SettingError(f"{path.name} registers nothing as `{name}`")
    return own


def _class_in(tree: ast.Module, name: str) -> ast.ClassDef | None:
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return next((spelt_out(node, tree) for node in classes if _registered(node) == name), None)


def settings_of(
    path: Path, name: str, *, nested: str = "Config", values: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Settings of a model, metric, dataset or extractor -> how they are declared and what is said of them.

    They are the fields of the nested class, or of the class registered as `name`, inherited ones first, where it has no
    `Config`; a model's sampler has its own in `Sampling`. A line reads `int = 1 (at least 1)  -- Branches.`

    Args:
        path: of the file.
        name: registered name.
        nested: class within a model that holds the settings.
        values: shown in place of the defaults, as they are written in a source.
    """
    found: dict[str, str] = {}
    for node in lineage(path, name):
        found |= _explained(_settings_body(node, nested), values or {})
    return found


def annotations_of(path: Path, name: str) -> dict[str, str]:
    """Settings of a metric, dataset or extractor -> annotation, inherited ones first."""
    found: dict[str, str] = {}
    for node in lineage(path, name):
        found |= _annotations(_settings_body(node, "Config"))
    return found


def _settings_body(owner: ast.ClassDef, nested: str) -> list[ast.stmt]:
    inside = (part for part in owner.body if isinstance(part, ast.ClassDef) and part.name == nested)
    return next((part.body for part in inside), owner.body if nested == "Config" else [])


def lineage(path: Path, name: str) -> list[ast.ClassDef]:
    """The class registered as `name` after the bases that it takes from private files beside it; empty without one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = _class_in(tree, name)
    return [] if own is None else [*_bases(own, tree, path.parent), own]


def class_value(owner: ast.ClassDef, attribute: str) -> object:
    """Plain value that a class gives one of its attributes; None where it gives none."""
    for part in owner.body:
        if isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
            target = part.target if isinstance(part, ast.AnnAssign) else part.targets[0]
            if ast.unparse(target) == attribute:
                value: object = ast.literal_eval(part.value)
                return value
    return None


def _bases(own: ast.ClassDef, tree: ast.Module, folder: Path) -> Iterator[ast.ClassDef]:
    names = {base.id for base in own.bases if isinstance(base, ast.Name)}
    for imported in (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module):
        stem = str(imported.module).rpartition(".")[2]
        file = folder / f"{stem}.py"
        wanted = names & {alias.name for alias in imported.names}
        if stem.startswith("_") and wanted and file.is_file():
            inner = ast.parse(file.read_text(encoding="utf-8"))
            for node in inner.body:
                if isinstance(node, ast.ClassDef) and node.name in wanted:
                    yield from _bases(node, inner, folder)
                    yield spelt_out(node, inner)


def _explained(body: Sequence[ast.stmt], values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for part, after in itertools.zip_longest(body, body[1:]):
        if not isinstance(part, ast.AnnAssign) or not isinstance(part.target, ast.Name):
            continue
        annotation = ast.unparse(part.annotation)
        if annotation.startswith("ClassVar"):
            continue
        kind, limits = _spelt(annotation)
        value = None if part.value is None else ast.unparse(part.value)
        shown = values.get(part.target.id, value)
        default = "" if shown is None else f" = {shown}"
        says = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
        first = " ".join(str(says).split())
        yield part.target.id, f"{kind}{default}{limits}{f'  -- {first}' if first else ''}"


@dataclass(frozen=True)
class MetricDeclaration:
    """What the class of a built-in metric declares."""

    needs: tuple[str, ...]
    """Kinds of evidence."""
    scores: tuple[tuple[str, str], ...]
    """Name and better direction of each number that it gives."""
    source: str
    """Paper and equation."""


def metric_declaration(path: Path, name: str) -> MetricDeclaration:
    """Read the metric registered as `name` in the file.

    Raises:
        SettingError: no class in the file is registered under that name, or it declares no needs, scores and source.
    """
    parts = {
        part.target.id: part.value
        for node in lineage(path, name)
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value is not None
    }
    if {"needs", "gives", "source"} <= set(parts):
        return MetricDeclaration(
            needs=tuple(sorted(_attributes(parts["needs"]))),
            scores=tuple(_scores(parts["gives"])),
            source=str(ast.literal_eval(parts["source"])),
        )
    raise SettingError(f"{path.name} declares no needs, scores and source of a metric `{name}`")


def _attributes(node: ast.expr) -> list[str]:
    return [part.attr.lower() for part in ast.walk(node) if isinstance(part, ast.Attribute)]


def _scores(node: ast.expr) -> list[tuple[str, str]]:
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call) and len(part.args) >= 2]
    return [(str(ast.literal_eval(call.args[0])), str(ast.literal_eval(call.args[1]))) for call in calls]


def check_settings(
    declared: Declaration,
    settings: dict[str, Scalar],
    *,
    owner: str,
    others: Callable[[str], Sequence[str]] = lambda setting: (),
) -> None:
    """Refuse unknown settings, and values of the wrong type or out of range, before anything runs.

    Args:
        declared: what there is to set.
        settings: as they are given.
        owner: whose they are, for the message.
        others: who else has a setting of a name, for the hint.

    Raises:
        SettingError: the first setting that does not fit.
    """
    known = {**declared.config, **declared.sampling}
    for key, value in settings.items():
        if key not in known:
            hint = _elsewhere(others(key), owner=owner) or nearest(key, known)
            raise SettingError(f"`{owner}` has no setting `{key}`", hint=hint)
        _check(value, known[key], owner=owner, key=key)


def _elsewhere(having: Sequence[str], *, owner: str) -> str | None:
    """Who has a setting that an owner lacks, and where the owner's are listed; None where nobody has it."""
    if not having:
        return None
    names = ", ".join(f"`{name}`" for name in having[:_SHOWN])
    names += f" and {len(having) - _SHOWN} more" if len(having) > _SHOWN else ""
    return f"{names} {'has' if len(having) == 1 else 'have'} it; `genbench info {owner}` lists what `{owner}` has"


def _check(value: Scalar, annotation: str, *, owner: str, key: str) -> None:
    kinds = _kinds(ast.parse(annotation, mode="eval").body)
    if kinds is not None:
        checked_value(value, kinds, owner=owner, key=key)


def source_digest(extra: Iterable[Path] = ()) -> str:
    """Digest of all source files that can change a number, with a subject's own files."""
    content = _shared_content().copy()
    for path in extra:
        content.update(_framed(path))
    return content.hexdigest()[:16]


@functools.cache
def _shared_content() -> hashlib._Hash:
    """The hash of the shared sources so far: they are read once, however many cells a plan has."""
    content = hashlib.sha256()
    folders = [sorted((PACKAGE_ROOT / folder).rglob("*.py")) for folder in _SHARED_SOURCES]
    of_several_models = sorted((PACKAGE_ROOT / "models").glob("_*.py"))
    for path in itertools.chain(*folders, of_several_models):
        content.update(_framed(path))
    return content


def _framed(path: Path) -> bytes:
    return path.name.encode() + b"\0" + path.read_bytes() + b"\0"


def _registered(node: ast.ClassDef) -> str | None:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and decorator.args and isinstance(decorator.args[0], ast.Constant):
            return str(decorator.args[0].value)
    return None


def _fields(owner: ast.ClassDef, nested: str) -> dict[str, str]:
    inside = (part for part in owner.body if isinstance(part, ast.ClassDef) and part.name == nested)
    return next((_annotations(part.body) for part in inside), {})


def _annotations(body: Iterable[ast.stmt]) -> dict[str, str]:
    fields = (part for part in body if isinstance(part, ast.AnnAssign))
    found = {part.target.id: ast.unparse(part.annotation) for part in fields if isinstance(part.target, ast.Name)}
    return {key: annotation for key, annotation in found.items() if not annotation.startswith("ClassVar")}


def _presets(owner: ast.ClassDef) -> tuple[str, ...]:
    for node in owner.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            named = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            named = [node.target.id] if isinstance(node.target, ast.Name) else []
        else:
            continue
        if "presets" in named:
            return tuple(str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
    return ()


def _kinds(node: ast.expr) -> tuple[Kind, ...] | None:
    """The kinds of values that an annotation allows; None where it has a name that only an import would explain."""
    if isinstance(node, ast.Constant) and node.value is None:
        return (Kind(plain=type(None)),)
    if isinstance(node, ast.Name):
        return _KINDS.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left, right = _kinds(node.left), _kinds(node.right)
        return None if left is None or right is None else left + right
    if ast.unparse(node) == str(ROW):
        return (Kind(plain=ROW),)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
        choices = ast.literal_eval(node.slice)
        return (Kind(choices=choices if isinstance(choices, tuple) else (choices,)),)
    return _limited(node) if isinstance(node, ast.Subscript) else None


def _limited(node: ast.Subscript) -> tuple[Kind, ...] | None:
    """The kinds of `Annotated[int, Range(4, 64)]`; None of anything else."""
    if ast.unparse(node.value) != "Annotated" or not isinstance(node.slice, ast.Tuple):
        return None
    plain, *notes = node.slice.elts
    ranges = [note for note in notes if isinstance(note, ast.Call) and ast.unparse(note.func) == "Range"]
    kinds = _kinds(plain)
    if kinds is None or len(ranges) != 1:
        return None
    values = [ast.literal_eval(value) for value in ranges[0].args]
    named = {word.arg: ast.literal_eval(word.value) for word in ranges[0].keywords if word.arg is not None}
    return tuple(replace(kind, limits=Range(*values, **named)) for kind in kinds)


def _spelt(annotation: str) -> tuple[str, str]:
    """The annotation with types that everybody knows, and the range of its numbers: `int`, ` (at least 1)`."""
    plain, limits = [], []
    for part in annotation.split(" | "):
        limited = part in NAMED or part.startswith("Annotated[")
        kinds = (_kinds(ast.parse(part, mode="eval").body) if limited else None) or ()
        plain += [kind.plain.__name__ for kind in kinds if isinstance(kind.plain, type)] or [part]
        limits += [kind.limits.limits for kind in kinds if kind.limits is not None and kind.limits.limits]
    return " | ".join(plain), f" ({', '.join(limits)})" if limits else ""
