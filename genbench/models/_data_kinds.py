"""Which data a model takes: images of integers, vectors of floats, or either."""

from __future__ import annotations

from genbench.core.dataset import DataSpec
from genbench.core.errors import SettingError


def takes_images(spec: DataSpec, *, owner: str) -> bool:
    """Whether the data are images of integers, where a model takes these and vectors of floats.

    Args:
        spec: of the data.
        owner: name of the model, for the message.

    Raises:
        SettingError: the data are neither.
    """
    if spec.kind == "image" and spec.levels is not None:
        return True
    if spec.kind == "vector" and spec.levels is None:
        return False
    raise SettingError(f"`{owner}` models images of integers and vectors of floats, found {spec.kind} data")


def require_images(spec: DataSpec, *, owner: str) -> None:
    """Refuse whatever is not images of integers, for a model that takes nothing else; arguments of `takes_images`.

    Raises:
        SettingError: the data are something else.
    """
    if spec.kind != "image" or spec.levels is None:
        raise SettingError(f"`{owner}` models images of integers, found {spec.kind} data")
