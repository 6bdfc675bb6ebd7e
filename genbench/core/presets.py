"""The values that a preset of a built-in model gives its settings, read off its source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from genbench.core.declared import registered_class

CONFIG, SAMPLING = "presets", "sampling_presets"
"""Where a class keeps the presets of its nested `Config`, and those of its nested `Sampling`."""


def preset_values(path: Path, name: str, preset: str, *, table: str = CONFIG) -> dict[str, str]:
    """Settings that a preset changes -> their values, as they are written in the file.

    What is not among them keeps the default of its field.

    Args:
        path: of the model's file.
        name: registered name of the model.
        preset: one of its presets.
        table: `CONFIG` or `SAMPLING`.

    Raises:
        SettingError: no class in the file is registered under that name.
    """
    for key, value in _entries(registered_class(path, name), table):
        if key == preset and isinstance(value, ast.Call):
            return {word.arg: ast.unparse(word.value) for word in value.keywords if word.arg is not None}
    return {}


def value_with(path: Path, name: str, preset: str, setting: str) -> str | None:
    """Value of a setting of `Config` with a preset, as the file writes it; None where a class has no such setting.

    Args:
        path: of the model's file.
        name: registered name of the model.
        preset: one of its presets.
        setting: name of a field.

    Raises:
        SettingError: no class in the file is registered under that name.
    """
    given = preset_values(path, name, preset).get(setting)
    return given if given is not None else _default(registered_class(path, name), setting)


def _default(owner: ast.ClassDef, setting: str) -> str | None:
    inside = (part for part in owner.body if isinstance(part, ast.ClassDef) and part.name == "Config")
    fields = (field for part in inside for field in part.body if isinstance(field, ast.AnnAssign))
    values = (field.value for field in fields if ast.unparse(field.target) == setting)
    return next((ast.unparse(value) for value in values if value is not None), None)


def _entries(owner: ast.ClassDef, table: str) -> Iterator[tuple[object, ast.expr]]:
    for node in owner.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == table:
            assert isinstance(node.value, ast.Dict)
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(key, ast.Constant):
                    yield key.value, value
