"""A researcher's own model: a file with `sample`, and `train_step` and `nll` if it has them.

    # mine.py
    def sample(n, seed, device): ...     # (n, C, H, W): uint8 levels, or float in [0, 1]
    def train_step(batch): ...           # optional; batch: (B, C, H, W) uint8; returns the loss
    def nll(x): ...                      # optional; x: (B, C, H, W) uint8; nats per example (B,)

A file may instead hold one subclass of `GenerativeModel`; `mine.py:Class` and `module:Class` name one.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import ModelError, SampleError
from genbench.core.model import (
    GenerativeModel,
    LikelihoodEstimate,
    Loss,
    Phase,
    Player,
    SelfTraining,
    build_model,
)
from genbench.core.spec import Ref, Scalar

BATCH_SIZE = 64
_SEEDS = 2**31


class FunctionModel(GenerativeModel):
    """A model made of the functions of a file."""

    def __init__(self, spec: DataSpec, module: ModuleType) -> None:
        super().__init__(spec)
        self._functions = cast("dict[str, Callable[..., object]]", vars(module))
        self.register_buffer("_here", torch.empty(0), persistent=False)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Never called: a file that trains does its own steps."""
        raise ModelError("a file with `sample` alone has no loss; add `train_step(batch)` to train it")

    def phases(self) -> tuple[Phase, ...]:
        """Nothing to train."""
        return ()

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Call the file's `sample` with a seed drawn from the generator; floats become levels."""
        device = generator.device
        seed = int(torch.randint(_SEEDS, (), generator=generator, device=device))
        drawn = self._functions["sample"](num_samples, seed, str(device))
        if not isinstance(drawn, Tensor):
            raise SampleError(f"`sample` returned {type(drawn).__name__}, expected a tensor")
        return _levels(drawn.detach(), self.spec)


class _Trained(FunctionModel, SelfTraining):
    def phases(self) -> tuple[Phase, ...]:
        player = Player(name="own", modules=(), lr=0.0)
        return (Phase(name="train", share=1.0, players=(player,), batch_size=BATCH_SIZE),)

    def train_step(self, batch: Batch) -> Tensor:
        loss = self._functions["train_step"](batch.x)
        return torch.as_tensor(0.0 if loss is None else loss, dtype=torch.float32)


class _Scored(FunctionModel, LikelihoodEstimate):
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        return _minus_nll(self._functions, x)


class _TrainedScored(_Trained, LikelihoodEstimate):
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        return _minus_nll(self._functions, x)


def is_external(ref: Ref) -> bool:
    """Whether a reference names code of the user's rather than a registered model."""
    return ref.name.endswith(".py") or ref.argument is not None


def external_model(ref: Ref, spec: DataSpec, *, preset: str, settings: dict[str, Scalar]) -> GenerativeModel:
    """Load and build a user's model.

    Raises:
        ModelError: the file does not hold what it must.
    """
    module = _load(ref)
    kind = _class_in(module, ref.argument)
    if kind is None:
        functions = _functions_in(module, ref)
        return _KINDS["train_step" in functions, "nll" in functions](spec, module)
    if kind.presets:
        return build_model(kind, spec, preset=preset, settings=settings, owner=ref.label)
    return cast("Callable[[DataSpec], GenerativeModel]", kind)(spec)


_KINDS: dict[tuple[bool, bool], type[FunctionModel]] = {
    (False, False): FunctionModel,
    (True, False): _Trained,
    (False, True): _Scored,
    (True, True): _TrainedScored,
}


def _load(ref: Ref) -> ModuleType:
    try:
        return _imported(ref)
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{ref.name}: cannot be loaded: {type(error).__name__}: {error}", hint="the file must import without errors"
        ) from error


def _imported(ref: Ref) -> ModuleType:
    if not ref.name.endswith(".py"):
        return importlib.import_module(ref.name)
    path = Path(ref.name)
    loaded = importlib.util.spec_from_file_location(path.stem, path)
    if loaded is None or loaded.loader is None or not path.is_file():
        raise ModelError(f"{path}: no such model file")
    module = importlib.util.module_from_spec(loaded)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.parent))
    loaded.loader.exec_module(module)
    return module


def _class_in(module: ModuleType, name: str | None) -> type[GenerativeModel] | None:
    """The model class of a module: the named one, else its only one, else None."""
    classes = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, GenerativeModel)
        and not inspect.isabstract(value)
        and value.__module__ == module.__name__
    }
    if name is not None:
        if name not in classes:
            raise ModelError(f"{module.__name__} has no model class `{name}`", hint=f"found: {sorted(classes)}")
        return classes[name]
    if len(classes) > 1:
        raise ModelError(
            f"{module.__name__} has several model classes: {', '.join(sorted(classes))}",
            hint="name one: `FILE.py:CLASS`",
        )
    return next(iter(classes.values()), None)


def _functions_in(module: ModuleType, ref: Ref) -> set[str]:
    functions = {name for name in ("sample", "train_step", "nll") if callable(vars(module).get(name))}
    if "sample" not in functions:
        raise ModelError(
            f"{ref.label}: no function `sample(n, seed, device)` and no subclass of GenerativeModel",
            hint="a model file needs one of them; the README has an example of each",
        )
    return functions


def _levels(drawn: Tensor, spec: DataSpec) -> Tensor:
    """Integer levels from uint8 levels or from floats in [0, 1]; other data pass unchanged."""
    if spec.levels is None or drawn.dtype == torch.uint8:
        return drawn
    if not drawn.is_floating_point():
        raise SampleError(f"`sample` returned {drawn.dtype}, expected uint8, or floats in [0, 1]")
    if not bool(torch.isfinite(drawn).all()):
        raise SampleError("`sample` drew values that are not finite (NaN or infinity)")
    low, high = float(drawn.min()), float(drawn.max())
    if low < 0 or high > 1:
        raise SampleError(
            f"`sample` drew floats in [{low:.3g}, {high:.3g}], expected [0, 1]",
            hint="rescale: (x + 1) / 2 for a model with tanh output; clamp what overshoots",
        )
    return (drawn * (spec.levels - 1)).round().to(torch.uint8)


def _minus_nll(functions: dict[str, Callable[..., object]], x: Tensor) -> Tensor:
    nats = functions["nll"](x)
    if not isinstance(nats, Tensor) or nats.shape != (len(x),):
        raise ModelError(f"`nll` must return one number per example, a tensor of shape ({len(x)},)")
    return -nats.detach()
