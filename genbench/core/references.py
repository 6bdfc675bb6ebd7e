"""References checked before anything runs: the name, its argument and its settings, read off sources without torch."""

from __future__ import annotations

import ast
from pathlib import Path

from genbench.core.declared import Declaration, annotations_of, check_settings, lineage
from genbench.core.errors import DataError, SettingError, UnknownName, nearest
from genbench.core.registry import Registry
from genbench.core.spec import Ref, Scalar


def check_name(registry: Registry[object], ref: Ref) -> None:
    """Refuse a name that nobody registered.

    Raises:
        UnknownName: the hint names the nearest.
    """
    if ref.name not in registry.names():
        raise UnknownName(f"unknown {registry.kind} `{ref.name}`", hint=nearest(ref.name, registry.names()))


def check_reference(registry: Registry[object], ref: Ref) -> None:
    """Refuse a dataset, metric or extractor that cannot be built as it is written; of a plug-in only its name is known.

    Raises:
        UnknownName: nobody registered it.
        SettingError: an argument or a setting that it does not take, or a value of the wrong type or out of range.
        DataError: its argument is a path where nothing is.
    """
    check_name(registry, ref)
    path = registry.path(ref.name)
    if path is None:
        return
    _check_argument(registry.kind, path, ref)
    given_settings(path, ref)


def given_settings(path: Path, ref: Ref) -> dict[str, Scalar]:
    """Settings of a dataset, metric or extractor as a reference gives them, `preset` among them.

    Raises:
        SettingError: the class in the file does not have one, or not that value.
    """
    given: dict[str, Scalar] = {**({} if ref.preset is None else {"preset": ref.preset}), **ref.config}
    check_settings(Declaration(annotations_of(path, ref.name), {}, ()), given, owner=ref.name)
    return given


def _check_argument(kind: str, path: Path, ref: Ref) -> None:
    if not _takes_argument(path, ref.name):
        if ref.argument is not None:
            raise SettingError(f"{kind} `{ref.name}` takes no argument, found `{ref.argument}`")
        return
    if ref.argument is None:
        raise SettingError(f"{kind} `{ref.name}` needs a path", hint=f"write `{ref.name}:PATH`")
    if not Path(ref.argument).expanduser().exists():
        raise DataError(f"{kind} `{ref.name}:{ref.argument}`: nothing is there", hint=f"write `{ref.name}:PATH`")


def _takes_argument(path: Path, name: str) -> bool:
    assigned = [part for node in lineage(path, name) for part in node.body if isinstance(part, ast.Assign)]
    values = [
        part.value for part in assigned if any(ast.unparse(target) == "takes_argument" for target in part.targets)
    ]
    return any(isinstance(value, ast.Constant) and value.value is True for value in values)
