"""Ranges hold their ends and nothing beyond; plans and builds refuse in the same words."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass

import pytest

from genbench.core import ranges
from genbench.core.declared import Declaration, annotations_of, check_settings, declaration, settings_of
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, IterativeSampler, split_settings
from genbench.core.ranges import NAMED, Count, Fraction, Positive, Range, Real
from genbench.core.settings import kinds_of, with_settings

TINY = 5e-324
"""The least float above 0."""
BELOW_ONE = math.nextafter(1.0, 0.0)
ENDS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "Count": ((1, 10**400), (0, -1)),
    "Several": ((2,), (1, 0, -2)),
    "Whole": ((0, 1), (-1,)),
    "Real": ((-1e308, 0.0, 1e308), ()),
    "Positive": ((TINY, 1e308), (0.0, -0.0, -TINY)),
    "NonNegative": ((0.0, 1e308), (-TINY, -1.0)),
    "Share": ((0.0, 1.0), (-TINY, math.nextafter(1.0, 2.0))),
    "OpenShare": ((TINY, BELOW_ONE), (0.0, 1.0)),
    "Fraction": ((0.0, BELOW_ONE), (-TINY, 1.0)),
    "Margin": ((TINY, math.nextafter(0.5, 0.0)), (0.0, 0.5)),
}
WORDS = {
    "Count": "a whole number of at least 1",
    "Several": "a whole number of at least 2",
    "Whole": "a whole number of at least 0",
    "Real": "a number that is finite",
    "Positive": "a number above 0",
    "NonNegative": "a number of at least 0",
    "Share": "a number from 0 to 1",
    "OpenShare": "a number above 0 and below 1",
    "Fraction": "a number from 0 to below 1",
    "Margin": "a number above 0 and below 0.5",
}


def _range(name: str) -> Range:
    (kind,) = kinds_of(NAMED[name])
    assert kind.limits is not None
    return kind.limits


def test_every_range_of_the_module_can_be_named_in_a_source_file():
    declared = {name: kind for name, kind in vars(ranges).items() if typing.get_origin(kind) is typing.Annotated}
    assert declared == NAMED
    assert set(declared) == set(ENDS) == set(WORDS)


@pytest.mark.parametrize("name", ENDS)
def test_a_range_holds_its_ends_and_nothing_just_outside(name):
    inside, outside = ENDS[name]
    assert all(value in _range(name) for value in inside)
    assert not any(value in _range(name) for value in outside)


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_range_holds_what_is_not_finite(name, value):
    assert value not in _range(name)


@pytest.mark.parametrize("name", WORDS)
def test_a_range_says_what_it_expects(name):
    (kind,) = kinds_of(NAMED[name])
    assert kind.words == WORDS[name]


def test_one_upper_end_is_said_too():
    assert Range(high=3).limits == "at most 3"
    assert Range(high=3, includes_high=False).limits == "below 3"
    assert Range(0, 1, includes_low=False).limits == "above 0 and at most 1"
    assert Range(high=3).words("a number") == "a number of at most 3"


@dataclass(frozen=True, kw_only=True)
class Config:
    layers: Count = 2
    limit: Count | None = None
    rate: Positive = 0.1
    decay: Fraction | None = None
    mean: Real = 0.0
    free: float = 0.0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"layers": 0}, "`x` setting `layers` is 0, expected a whole number of at least 1"),
        ({"layers": True}, "`x` setting `layers` is True, expected a whole number of at least 1"),
        ({"layers": 1.0}, "`x` setting `layers` is 1.0, expected a whole number of at least 1"),
        ({"limit": 0}, "`x` setting `limit` is 0, expected a whole number of at least 1"),
        ({"rate": 0}, "`x` setting `rate` is 0.*, expected a number above 0"),
        ({"rate": math.nan}, "`x` setting `rate` is nan, expected a number above 0"),
        ({"rate": 10**400}, "expected a number above 0"),
        ({"decay": 1.0}, "`x` setting `decay` is 1.0, expected a number from 0 to below 1"),
        ({"mean": math.inf}, "`x` setting `mean` is inf, expected a number that is finite"),
        ({"free": "fast"}, "`x` setting `free` is 'fast', expected a number"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_was_expected(given, expected):
    with pytest.raises(SettingError, match=f"{expected}$"):
        with_settings(Config(), given, owner="x")


def test_values_in_range_and_numbers_without_one_are_taken():
    given = {"layers": 1, "limit": 7, "rate": 2, "decay": 0, "mean": -3.5, "free": math.inf}
    assert with_settings(Config(), given, owner="x") == Config(
        layers=1, limit=7, rate=2.0, decay=0.0, mean=-3.5, free=math.inf
    )


def test_none_is_taken_where_the_type_has_it_and_nowhere_else():
    assert with_settings(Config(limit=3), {"limit": None}, owner="x").limit is None
    with pytest.raises(SettingError, match="`layers` is None, expected a whole number of at least 1"):
        with_settings(Config(), {"layers": None}, owner="x")


def test_a_default_or_preset_out_of_range_is_refused_unless_it_is_replaced():
    with pytest.raises(SettingError, match="`x` setting `layers` is 0, expected a whole number of at least 1"):
        with_settings(Config(layers=0), {"rate": 1.0}, owner="x")
    assert with_settings(Config(layers=0), {"layers": 3}, owner="x").layers == 3


_FILE = '''
@register_metric("closeness")
class Closeness:
    needs: ClassVar[frozenset] = frozenset()
    k: Count | None = 3
    """Neighbours."""
    share: Share = 0.5
    mean: Real = 0.0
    mode: Literal["a", "b"] | None = None
    fold: Literal[0, 1] = 1
    other: Elsewhere = "x"
'''


def test_what_is_said_of_settings_names_their_ranges(tmp_path):
    path = tmp_path / "closeness.py"
    path.write_text(_FILE)
    assert settings_of(path, "closeness") == {
        "k": "int | None = 3 (at least 1)  -- Neighbours.",
        "share": "float = 0.5 (from 0 to 1)",
        "mean": "float = 0.0",
        "mode": "Literal['a', 'b'] | None = None",
        "fold": "Literal[0, 1] = 1",
        "other": "Elsewhere = 'x'",
    }
    assert settings_of(path, "closeness", nested="Sampling") == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"k": 0}, "`closeness` setting `k` is 0, expected a whole number of at least 1"),
        ({"share": 1.5}, "`closeness` setting `share` is 1.5, expected a number from 0 to 1"),
        ({"mode": "c"}, "`closeness` setting `mode` is 'c', expected one of 'a', 'b'"),
        ({"fold": 2}, "`closeness` setting `fold` is 2, expected one of 0, 1"),
        ({"fold": True}, "`closeness` setting `fold` is True, expected one of 0, 1"),
    ],
)
def test_values_are_refused_by_what_the_file_says(tmp_path, given, expected):
    path = tmp_path / "closeness.py"
    path.write_text(_FILE)
    declared = Declaration(annotations_of(path, "closeness"), {}, ())
    with pytest.raises(SettingError) as caught:
        check_settings(declared, given, owner="closeness")
    assert caught.value.message == expected
    check_settings(declared, {"k": 1, "share": 1, "mode": "a", "fold": 0, "other": -1}, owner="closeness")


def _just_outside(limits: Range, *, whole: bool) -> list[float]:
    step = (lambda x, to: x + math.copysign(1, to)) if whole else math.nextafter
    low = [] if math.isinf(limits.low) else [step(limits.low, -math.inf) if limits.includes_low else limits.low]
    high = [] if math.isinf(limits.high) else [step(limits.high, math.inf) if limits.includes_high else limits.high]
    ends = [int(x) if whole else float(x) for x in low + high]
    return ends if whole else [*ends, math.nan, math.inf, -math.inf]


def _ranged(kind: type) -> list[tuple[str, Range, bool]]:
    nested = [type(preset) for preset in kind.presets.values()]
    if issubclass(kind, IterativeSampler):
        nested += [type(preset) for preset in kind.sampling_presets.values()]
    return [
        (key, part.limits, part.plain is int)
        for config in dict.fromkeys(nested)
        for key, hint in typing.get_type_hints(config, include_extras=True).items()
        for part in kinds_of(hint)
        if part.limits is not None
    ]


def _refusal(act, *arguments, **named) -> str:
    with pytest.raises(SettingError) as caught:
        act(*arguments, **named)
    return caught.value.message


@pytest.mark.parametrize("name", sorted(MODELS.files()))
def test_plans_and_builds_refuse_what_lies_just_outside_in_the_same_words(name):
    kind, path = MODELS.get(name), MODELS.path(name)
    declared = declaration(path, name)
    found = _ranged(kind)
    assert len(found) > 5
    for key, limits, whole in found:
        for value in _just_outside(limits, whole=whole):
            planned = _refusal(check_settings, declared, {key: value}, owner=name)
            for_sampling, _ = split_settings(kind, {key: value})
            base = next(iter((kind.sampling_presets if for_sampling else kind.presets).values()))
            assert planned == _refusal(with_settings, base, {key: value}, owner=name)
            assert planned.startswith(f"`{name}` setting `{key}` is {value!r}, expected a ")


@pytest.mark.parametrize("name", sorted(MODELS.files()))
def test_every_preset_lies_in_the_ranges_of_its_model(name):
    kind = MODELS.get(name)
    for preset in kind.presets.values():
        assert with_settings(preset, {}, owner=name) == preset
    if issubclass(kind, IterativeSampler):
        for preset in kind.sampling_presets.values():
            assert with_settings(preset, {}, owner=name) == preset
