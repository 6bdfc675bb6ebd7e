"""What examples are called in units of speed and energy, by the kind of the data; read without importing a dataset."""

from __future__ import annotations

import functools

from genbench.core.data_kinds import kind_of_data
from genbench.core.registry import Registry

_DATASETS: Registry[object] = Registry("dataset", "data", group="genbench.datasets")
_EXAMPLES = {"image": "img", "vector": "point", "waveform": "sound"}
_PLAIN = "example"
"""An episode of texts, and an example of data whose kind is not known."""


def example_of(kind: str | None) -> str:
    """What one example is called: `img`, `point`, `sound`, or plainly `example`.

    Args:
        kind: of the data, as `DataSpec` has it; None where it is not known.
    """
    return _EXAMPLES.get(kind or "", _PLAIN)


def rate_unit(kind: str | None) -> str:
    """Unit of examples in a second: `img/s`, `points/s`, `sounds/s`, or `examples/s`."""
    example = example_of(kind)
    return f"{example}/s" if example == _EXAMPLES["image"] else f"{example}s/s"


@functools.cache
def kind_on(dataset: str) -> str | None:
    """Kind of the data that a label such as `toy2d[law=spirals]` or `folder:PATH` names; None where it is not known."""
    name = dataset.partition("[")[0].partition(":")[0]
    path = _DATASETS.path(name)
    return None if path is None else kind_of_data(path, name)
