"""genbench: how good is a generative model, and what does it cost?

The public names below load on first use; `import genbench` alone imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genbench.core.dataset import Batch as Batch
    from genbench.core.dataset import Dataset as Dataset
    from genbench.core.dataset import DataSpec as DataSpec
    from genbench.core.dataset import build_dataset as build_dataset
    from genbench.core.dataset import register_dataset as register_dataset
    from genbench.core.model import GenerativeModel as GenerativeModel
    from genbench.core.model import Loss as Loss
    from genbench.core.model import Phase as Phase
    from genbench.core.model import Player as Player
    from genbench.core.model import register_model as register_model
    from genbench.core.record import Record as Record
    from genbench.core.record import Score as Score
    from genbench.core.spec import Suite as Suite
    from genbench.evaluation.compare import compare_samples as compare_samples
    from genbench.evaluation.evaluate import Evaluation as Evaluation
    from genbench.evaluation.evaluate import evaluate as evaluate
    from genbench.plan import load_suite as load_suite
    from genbench.report.frame import frame as frame
    from genbench.store import RunFolder as RunFolder

_HOMES = {
    "Batch": "core.dataset",
    "DataSpec": "core.dataset",
    "Dataset": "core.dataset",
    "build_dataset": "core.dataset",
    "register_dataset": "core.dataset",
    "GenerativeModel": "core.model",
    "Loss": "core.model",
    "Phase": "core.model",
    "Player": "core.model",
    "register_model": "core.model",
    "Record": "core.record",
    "Score": "core.record",
    "Suite": "core.spec",
    "Evaluation": "evaluation.evaluate",
    "compare_samples": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "load_suite": "plan",
    "frame": "report.frame",
    "RunFolder": "store",
    "__version__": "core.version",
}
__all__ = sorted(name for name in _HOMES if not name.startswith("_"))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `genbench` has no attribute `{name}`")
    home = importlib.import_module(f"genbench.{_HOMES[name]}")
    return vars(home)["VERSION" if name == "__version__" else name]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
