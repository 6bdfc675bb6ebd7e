"""Which metric gives a score: read off the sources of the metrics, which are not imported."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from genbench.core.declared import metric_declaration
from genbench.core.errors import SettingError
from genbench.core.registry import Registry

_METRICS: Registry[object] = Registry("metric", "metrics")
_BLANK = re.compile(r"<\w+>")


def metric_of(score: str, metrics: Iterable[str]) -> str | None:
    """The one of `metrics` (registered names) that gives a score, None where none of ours does.

    Of several patterns that fit, as `fd_<extractor>` and `fd_<extractor>_infinity`, the one with most letters counts.
    """
    fitting = [
        (len(_BLANK.sub("", pattern)), metric)
        for metric in dict.fromkeys(metrics)
        for pattern in given_by(metric)
        if re.fullmatch(".+".join(map(re.escape, _BLANK.split(pattern))), score)
    ]
    return max(fitting, default=(0, None))[1]


@functools.cache
def given_by(metric: str) -> tuple[str, ...]:
    """Patterns of the scores that a metric of ours declares, such as `fd_<extractor>`; empty for a plug-in."""
    path = _METRICS.path(metric)
    if path is None:
        return ()
    try:
        return tuple(name for name, _ in metric_declaration(path, metric).scores)
    except SettingError:
        return ()
