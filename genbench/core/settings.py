"""Settings of plug-ins: frozen dataclasses, checked key by key, type by type."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from genbench.core.errors import SettingError, nearest
from genbench.core.spec import Scalar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")


def field_names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    """Names of the settings that `kind` accepts."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.init)


def with_settings(base: S, given: Mapping[str, Scalar], *, owner: str) -> S:
    """Return a copy of `base` with the given settings, each checked against its annotation.

    Args:
        base: the settings to start from.
        given: new values by name; whole numbers are accepted where a float is meant.
        owner: whose settings these are, for the message.

    Raises:
        SettingError: an unknown key, a value of the wrong type, or one the settings refuse.
    """
    hints = typing.get_type_hints(type(base))
    known = field_names(type(base))
    checked: dict[str, object] = {}
    for key, value in given.items():
        if key not in known:
            raise SettingError(f"`{owner}` has no setting `{key}`", hint=nearest(key, known))
        checked[key] = _checked(value, hints[key], f"`{owner}` setting `{key}`")
    try:
        return dataclasses.replace(base, **checked)
    except ValueError as error:
        raise SettingError(f"`{owner}`: {error}") from error


def _checked(value: Scalar, hint: object, where: str) -> object:
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    if choices:
        if value in choices:
            return value
        raise SettingError(f"{where} is {value!r}, expected one of {', '.join(map(repr, choices))}")
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if bool not in kinds and isinstance(value, bool):
        raise SettingError(f"{where} is {value!r}, expected {_spelt(kinds)}")
    if float in kinds and isinstance(value, int):
        return float(value)
    if any(isinstance(kind, type) and isinstance(value, kind) for kind in kinds):
        return value
    raise SettingError(f"{where} is {value!r}, expected {_spelt(kinds)}")


def _spelt(kinds: tuple[object, ...]) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    spelt = [words.get(kind, str(kind)) for kind in kinds if isinstance(kind, type) and kind is not type(None)]
    return " or ".join(spelt)
