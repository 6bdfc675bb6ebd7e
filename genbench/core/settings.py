"""Settings of plug-ins: frozen dataclasses, checked key by key, type by type.

A row of whole numbers, `tuple[int, ...]`, is written with an `x` between them: `multipliers=1x2x2`.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from genbench.core.errors import SettingError, meant, nearest
from genbench.core.ranges import Range
from genbench.core.spec import Scalar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")

ROW = tuple[int, ...]
_NOUNS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    ROW: "whole numbers with `x` between them, such as 1x2x2",
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """One of the kinds of values that a setting takes."""

    plain: object = None
    """A type; None where `choices` say it all."""
    limits: Range | None = None
    """Of a number; None leaves it free."""
    choices: tuple[object, ...] = ()

    @property
    def words(self) -> str:
        """What is expected, for a message."""
        if self.choices:
            return "one of " + ", ".join(map(repr, self.choices))
        noun = _NOUNS.get(self.plain, str(self.plain))
        return noun if self.limits is None else self.limits.words(noun)


def field_names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    """Names of the settings that `kind` accepts."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.init)


def with_settings(base: S, given: Mapping[str, Scalar], *, owner: str) -> S:
    """Return a copy of `base` with the given settings, each checked against its annotation.

    The numbers that `base` itself brings, defaults and presets, are held to their ranges too.

    Args:
        base: the settings to start from.
        given: new values by name; whole numbers are accepted where a float is meant.
        owner: whose settings these are, for the message.

    Raises:
        SettingError: an unknown key, a value of the wrong type or out of range, or one the settings refuse.
    """
    hints = typing.get_type_hints(type(base), include_extras=True)
    known = field_names(type(base))
    checked: dict[str, object] = {}
    for key, value in given.items():
        if key not in known:
            raise SettingError(f"`{owner}` has no setting `{key}`", hint=nearest(key, known))
        checked[key] = checked_value(value, kinds_of(hints[key]), owner=owner, key=key)
    for key in known:
        value = getattr(base, key)
        if key not in given and isinstance(value, int | float):
            kinds = kinds_of(hints[key])
            if any(kind.limits is not None for kind in kinds):
                checked_value(value, kinds, owner=owner, key=key)
    try:
        return dataclasses.replace(base, **checked)
    except ValueError as error:
        raise SettingError(f"`{owner}`: {error}") from error


def kinds_of(hint: object) -> tuple[Kind, ...]:
    """The kinds of values that a resolved annotation allows."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union or origin is types.UnionType:
        return tuple(kind for part in parts for kind in kinds_of(part))
    if origin is typing.Literal:
        return (Kind(choices=parts),)
    if origin is typing.Annotated:
        limits = next((part for part in parts[1:] if isinstance(part, Range)), None)
        return tuple(dataclasses.replace(kind, limits=limits or kind.limits) for kind in kinds_of(parts[0]))
    return (Kind(plain=hint),)


def checked_value(value: Scalar | None, kinds: Iterable[Kind], *, owner: str, key: str) -> Scalar | ROW | None:
    """The value, made a float or a row of numbers where one is meant; None, which only Python gives, where allowed.

    Raises:
        SettingError: it is of none of the kinds.
    """
    kinds = tuple(kinds)
    if value is None and any(kind.plain is type(None) for kind in kinds):
        return None
    for kind in kinds:
        found = _as_kind(value, kind)
        if found is not None:
            return found
    expected = " or ".join(kind.words for kind in kinds if kind.plain is not type(None))
    choices = [choice for kind in kinds for choice in kind.choices if isinstance(choice, str)]
    hint = meant(value, choices) if isinstance(value, str) else None
    raise SettingError(f"`{owner}` setting `{key}` is {value!r}, expected {expected}", hint=hint)


def _as_kind(value: Scalar | None, kind: Kind) -> Scalar | ROW | None:
    """The value as one of that kind; None where it is not."""
    if kind.choices:
        return value if any(value == choice and type(value) is type(choice) for choice in kind.choices) else None
    if kind.plain == ROW:
        text = str(value)  # a single number is read as one
        return tuple(map(int, text.split("x"))) if re.fullmatch(r"[0-9]+(x[0-9]+)*", text) else None
    if isinstance(value, bool):
        return value if kind.plain is bool else None
    if isinstance(value, int) and kind.plain is float:
        try:
            value = float(value)
        except OverflowError:
            return None
    if not isinstance(kind.plain, type) or not isinstance(value, kind.plain):
        return None
    outside = kind.limits is not None and isinstance(value, int | float) and value not in kind.limits
    return None if outside else value
