"""Without the optional library, a frozen text encoder says how to get it."""

import sys

import pytest

from genbench.core.dataset import DataSpec
from genbench.core.errors import SettingError
from genbench.nn.conditioning import Conditioner


def test_a_text_encoder_without_its_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, "genbench.nn.frozen_text_encoder", raising=False)
    spec = DataSpec(shape=(3, 8, 8), vocabulary=("", "red"))
    with pytest.raises(SettingError, match="transformers") as caught:
        Conditioner(spec, "text", 8, drop_share=0.1, owner="ddpm", text_encoder="google-t5/t5-small")
    assert caught.value.hint == "pip install genbench[text]"
