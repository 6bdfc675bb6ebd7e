"""Settings are checked key by key, type by type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from genbench.core.errors import SettingError
from genbench.core.settings import Kind, checked_value, with_settings


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 3
    rate: float = 0.5
    mode: Literal["a", "b"] = "a"
    limit: int | None = None
    fast: bool = False
    sizes: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width {self.width}, expected at least 1")


def test_given_settings_replace_the_base():
    assert with_settings(Config(), {"width": 8, "limit": 2}, owner="x") == Config(width=8, limit=2)


def test_a_whole_number_may_stand_where_a_float_is_meant():
    value = with_settings(Config(), {"rate": 1}, owner="x").rate
    assert isinstance(value, float)
    assert value == 1.0


def test_a_row_of_numbers_is_written_with_an_x_between_them():
    assert with_settings(Config(), {"sizes": "1x2x12"}, owner="x").sizes == (1, 2, 12)
    assert with_settings(Config(), {"sizes": 3}, owner="x").sizes == (3,)
    for given in ("1,2", "x2", "1x-2", True, 1.0):
        with pytest.raises(SettingError, match="such as 1x2x2"):
            with_settings(Config(), {"sizes": given}, owner="x")


def test_an_unknown_key_names_the_nearest():
    with pytest.raises(SettingError, match="`x` has no setting `widht`") as caught:
        with_settings(Config(), {"widht": 8}, owner="x")
    assert "`width`" in caught.value.hint


def test_a_choice_that_is_nearly_spelt_names_the_nearest_and_others_are_only_listed():
    kinds = (Kind(plain=type(None)), Kind(choices=("ddpm", "ddim", "heun")))
    with pytest.raises(SettingError, match="expected one of 'ddpm', 'ddim', 'heun'") as caught:
        checked_value("huen", kinds, owner="x", key="sampler")
    assert caught.value.hint == "did you mean `heun`?"
    for given in ("euler_maruyama", 3, True):
        with pytest.raises(SettingError, match="expected one of") as caught:
            checked_value(given, kinds, owner="x", key="sampler")
        assert caught.value.hint is None


@pytest.mark.parametrize(
    "given",
    [
        {"width": "8"},
        {"width": 1.5},
        {"width": True},
        {"rate": "1e-4"},
        {"rate": False},
        {"mode": "c"},
        {"fast": 1},
        {"sizes": "1x"},
    ],
)
def test_a_value_of_the_wrong_type_is_refused(given):
    with pytest.raises(SettingError):
        with_settings(Config(), given, owner="x")


def test_what_the_settings_themselves_refuse_is_a_setting_error():
    with pytest.raises(SettingError, match="expected at least 1"):
        with_settings(Config(), {"width": 0}, owner="x")
