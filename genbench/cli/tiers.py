"""Which tier of a suite takes which preset, for `genbench info`: of a model, and of a suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench.core.errors import SuiteError
from genbench.core.spec import Suite
from genbench.plan import read_suite, suite_files


def tiers_of_model(name: str, presets: Sequence[str]) -> list[str]:
    """A line for each preset: the tiers that take it, of the suites that have the model, or of all where none has it.

    Args:
        name: registered name of the model.
        presets: in the order of the lines.
    """
    suites = list(_suites())
    listed = [suite for suite in suites if any(entry.use.name == name for entry in suite.models)]
    lines = []
    for preset in presets:
        by_tiers: dict[tuple[str, ...], list[str]] = {}
        for suite in listed or suites:
            tiers = tuple(tier for tier in suite.tiers if preset in _presets(suite, tier, name))
            if tiers:
                by_tiers.setdefault(tiers, []).append(suite.name)
        found = [f"{_tiers(tiers)} of {', '.join(names)}" for tiers, names in by_tiers.items()]
        lines.append(f"  {preset}: {'; '.join(found) or 'no tier'}")
    return lines


def tiers_of_suite(path: Path) -> list[str]:
    """A line for each tier: data, preset, budget; and one on the rows that have a preset of their own.

    Raises:
        SuiteError: the file is no suite.
    """
    suite = read_suite(path)
    lines = ["tiers, with the preset of every model that names none:"]
    for name, tier in suite.tiers.items():
        lines.append(
            f"  {name}: preset {tier.preset} on {tier.dataset.label}, {tier.samples_seen:,} examples seen, "
            f"{tier.num_samples:,} samples drawn"
        )
    own = [entry.use.label for entry in suite.models if entry.use.preset is not None]
    return [*lines, *([f"rows with a preset of their own: {', '.join(own)}"] if own else [])]


def _suites() -> Iterator[Suite]:
    """Every suite that can be read; `genbench list suites` shows the others."""
    for path in suite_files().values():
        try:
            yield read_suite(path)
        except SuiteError:
            continue


def _presets(suite: Suite, tier: str, name: str) -> set[str]:
    """Presets that a tier gives the rows of a model; where it has none, what it would give."""
    rows = [entry for entry in suite.models if entry.use.name == name]
    usual = suite.tiers[tier].preset
    return {entry.use.preset or usual for entry in rows} or {usual}


def _tiers(names: Sequence[str]) -> str:
    return f"tier {names[0]}" if len(names) == 1 else f"tiers {', '.join(names)}"
