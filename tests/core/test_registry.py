"""Names are files, listing imports nothing, and a broken plug-in stops nothing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from genbench.core.errors import BrokenPlugin, UnknownName
from genbench.core.registry import Registry


class _WithPlugins(Registry[object]):
    """A registry that finds the given entry points beside the real files."""

    def __init__(self, *points: EntryPoint) -> None:
        super().__init__("model", "models")
        self._points = points

    def plugins(self):
        found = {}
        for point in self._points:
            found[f"dist:{point.name}" if point.name in self.files() else point.name] = point
        return found


def test_a_name_is_the_stem_of_a_file():
    registry = Registry[object]("model", "models")
    assert registry.files()["vae"].name == "vae.py"
    assert registry.files()["vae"].parent.name == "vae"


def test_a_miss_names_the_nearest_names():
    with pytest.raises(UnknownName, match="unknown model `dppm`") as caught:
        Registry[object]("model", "models").get("dppm")
    assert "`ddpm`" in caught.value.hint


def test_listing_models_imports_neither_torch_nor_a_model():
    code = (
        "import sys; from genbench.core.registry import Registry; "
        "rows = Registry('model', 'models').listing(); assert len(rows) > 5, rows; "
        "assert 'torch' not in sys.modules; assert not any(m.startswith('genbench.models') for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_plug_in_without_its_module_is_listed_as_broken():
    registry = _WithPlugins(EntryPoint("ghost", "no_such_module_anywhere:Model", "genbench.models"))
    row = next(row for row in registry.listing() if row.name == "ghost")
    assert row.broken is not None
    assert "no_such_module_anywhere" in row.broken
    assert "vae" in registry.names()


def test_a_plug_in_that_cannot_be_imported_says_so_when_asked_for(tmp_path, monkeypatch):
    (tmp_path / "breaks_on_import.py").write_text("raise RuntimeError('needs a licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry = _WithPlugins(EntryPoint("broken", "breaks_on_import:Model", "genbench.models"))
    with pytest.raises(BrokenPlugin, match="needs a licence"):
        registry.get("broken")
    assert "vae" in registry.names()


def test_a_plug_in_with_a_built_in_name_is_qualified_by_its_distribution():
    registry = _WithPlugins(EntryPoint("vae", "elsewhere:VAE", "genbench.models"))
    assert {"vae", "dist:vae"} <= set(registry.names())


def test_the_same_name_from_two_modules_is_an_error():
    registry = Registry[object]("model", "models")
    first = type("A", (), {"__module__": "one"})
    second = type("B", (), {"__module__": "two"})
    registry.register("twice")(first)
    with pytest.raises(ValueError, match="one and two"):
        registry.register("twice")(second)
