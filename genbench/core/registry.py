"""Lazy registries: a name is a file, listing imports nothing, asking for one imports one."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from genbench.core.errors import BrokenPlugin, UnknownName, nearest

T = TypeVar("T")
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Listing:
    """One row of a listing: a name, where it comes from, its first line, and why it is broken."""

    name: str
    origin: str
    summary: str
    broken: str | None = None


class Registry(Generic[T]):
    """Classes of one kind, found by file name in a package folder or by entry point.

    Args:
        kind: what the registry holds, in the singular; used in messages.
        folder: folder under the package, searched one level deep; file stem = registered name.
        group: entry-point group of installed plug-ins; None is `genbench.` and the folder.
    """

    def __init__(self, kind: str, folder: str, *, group: str | None = None) -> None:
        self.kind = kind
        self.group = f"genbench.{folder}" if group is None else group
        self._folder = folder
        self._loaded: dict[str, type[T]] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Return the decorator that records a class under `name`."""

        def decorate(cls: type[T]) -> type[T]:
            known = self._loaded.get(name)
            if known is not None and known.__module__ != cls.__module__:
                raise ValueError(
                    f"{self.kind} `{name}` is registered twice: in {known.__module__} and {cls.__module__}"
                )
            self._loaded[name] = cls
            return cls

        return decorate

    def files(self) -> dict[str, Path]:
        """Built-in names and their files, sorted; private files (`_x.py`) do not count."""
        root = PACKAGE_ROOT / self._folder
        found = [*root.glob("*.py"), *root.glob("*/*.py")]
        return {path.stem: path for path in sorted(found, key=lambda path: path.stem) if path.stem[0] != "_"}

    def plugins(self) -> dict[str, EntryPoint]:
        """Names from installed distributions; one that clashes is qualified as `dist:name`."""
        builtin = self.files()
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            dist = point.dist.name if point.dist is not None else "unknown"
            name = f"{dist}:{point.name}" if point.name in builtin or point.name in found else point.name
            found[name] = point
        return found

    def names(self) -> list[str]:
        """All names that `get` accepts, sorted; imports nothing."""
        return sorted({*self.files(), *self.plugins(), *self._loaded})

    def listing(self) -> list[Listing]:
        """Rows for `genbench list`: built-ins from their docstrings, plug-ins from their metadata."""
        rows = [
            Listing(name, path.parent.name if path.parent.name != self._folder else "built in", _summary(path))
            for name, path in self.files().items()
        ]
        for name, point in self.plugins().items():
            dist = point.dist.name if point.dist is not None else "unknown"
            rows.append(Listing(name, dist, point.value, _why_broken(point)))
        return sorted(rows, key=lambda row: row.name)

    def path(self, name: str) -> Path | None:
        """Source file of a built-in name, None for a plug-in."""
        return self.files().get(name)

    def get(self, name: str) -> type[T]:
        """Import what is registered as `name`.

        Raises:
            UnknownName: nobody registered it; the hint names the nearest.
            BrokenPlugin: its code cannot be imported; the message says why.
        """
        if name not in self._loaded:
            self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> None:
        files, plugins = self.files(), self.plugins()
        if name in files:
            parts = files[name].relative_to(PACKAGE_ROOT.parent).with_suffix("").parts
            importlib.import_module(".".join(parts))
        elif name in plugins:
            try:
                self._loaded[name] = plugins[name].load()
            except Exception as error:
                raise BrokenPlugin(
                    f"{self.kind} `{name}` is broken: {type(error).__name__}: {error}",
                    hint=f"`{plugins[name].value}` must import; upgrade or remove the distribution that declares it",
                ) from error
        if name not in self._loaded:
            raise UnknownName(f"unknown {self.kind} `{name}`", hint=nearest(name, self.names()))


def _summary(path: Path) -> str:
    """First line of a file's docstring, which opens the file; parsing it all would be slow."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix('"""').strip().removesuffix('"""')


def _why_broken(point: EntryPoint) -> str | None:
    """Why a plug-in's module cannot be found, without importing the module itself."""
    try:
        found = importlib.util.find_spec(point.module)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if found is not None else f"no module named `{point.module}`"
