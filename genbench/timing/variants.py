"""Variants: the same model, its networks run eagerly, compiled, or replayed from captured graphs.

What changes is the forward pass of each network: `network` of an iterative sampler, else the modules of all players,
and where such a module has no forward pass of its own, the modules in it. Everything round the networks stays as it is.
Weights are shared, so a variant trains and samples as the model does.

A variant never turns into the eager model in silence: a network that would need too many compilations raises, and so
does leaving the context when no changed network was called or when one could not be captured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from genbench.core.bench import Variant
from genbench.core.errors import SettingError
from genbench.core.model import GenerativeModel, IterativeSampler

_BACKENDS: dict[Variant, str] = {"compile": "inductor", "cudagraph": "cudagraphs"}
_COMPILATIONS = 8  # of each network, PyTorch's own limit; networks of one class share theirs


@contextlib.contextmanager
def as_variant(model: GenerativeModel, variant: Variant) -> Iterator[GenerativeModel]:
    """The model itself, its networks running as the variant says until the context is left.

    `compile` specialises on shapes. `cudagraph` captures the eager kernels, without compiling any.

    Raises:
        SettingError: the variant cannot run on this machine, or did not run with this model.
    """
    if variant == "eager":
        yield model
        return
    check_variant(variant, _device(model))
    networks = networks_of(model)
    called: set[nn.Module] = set()
    missed = _missed_captures()
    for network in networks:
        vars(network)["forward"] = _noting(network, called, _compiled(network, variant))
    limits = {"recompile_limit": _COMPILATIONS * len(networks), "fail_on_recompile_limit_hit": True}
    try:
        with cast("Any", torch)._dynamo.config.patch(**limits):
            yield model
    finally:
        for network in networks:
            del vars(network)["forward"]
    _check_that_it_ran(model, variant, bool(called), _missed_captures() - missed)


def networks_of(model: GenerativeModel) -> tuple[nn.Module, ...]:
    """The modules whose forward passes a variant changes.

    Raises:
        SettingError: the model has no module with a forward pass.
    """
    if isinstance(model, IterativeSampler):
        return (model.network,)
    played = [module for phase in model.phases() for player in phase.players for module in player.modules]
    networks = tuple(dict.fromkeys(network for module in played for network in _with_forward(module)))
    if not networks:
        raise SettingError(
            f"`{type(model).__name__}` has no network to compile: no player has a module with a forward pass",
            hint="time it with `--variant eager`",
        )
    return networks


def check_variant(variant: Variant, device: torch.device) -> None:
    """Refuse a variant that cannot run on a device of this machine, before anything is measured.

    Raises:
        SettingError: what is missing.
    """
    if variant == "cudagraph" and device.type != "cuda":
        raise SettingError(
            f"variant `cudagraph` on device `{device}`: graphs are captured on CUDA devices only",
            hint="add `--device cuda`, or use `--variant compile`",
        )
    if variant == "compile" and device.type == "cpu":
        _check_compiler()
    if variant == "compile" and device.type == "cuda":
        _check_triton()


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes seconds to import, and only here is it needed
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise SettingError(
            f"variant `compile` on a CPU needs a C++ compiler, found none: {error}",
            hint="install g++ or clang++, or use `--variant eager`",
        ) from error


def _check_triton() -> None:
    from torch.utils._triton import has_triton

    if not has_triton():
        raise SettingError(
            "variant `compile` on a CUDA device needs Triton, found no working one",
            hint="pip install triton, or use `--variant eager`",
        )


def _with_forward(module: nn.Module) -> list[nn.Module]:
    """The module, or if it has no forward pass of its own, those in it that have."""
    if type(module).forward is not nn.Module.forward:
        return [module]
    return [network for child in module.children() for network in _with_forward(child)]


def _compiled(network: nn.Module, variant: Variant) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(network.forward, backend=_BACKENDS[variant], dynamic=False)
    return compiled


def _noting(network: nn.Module, called: set[nn.Module], forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward pass, which notes that it was called."""

    def noted(*inputs: object, **named: object) -> object:
        called.add(network)
        return forward(*inputs, **named)

    return noted


def _missed_captures() -> int:
    """How often PyTorch has run a graph eagerly because it could not be captured."""
    import torch._dynamo.utils

    return int(torch._dynamo.utils.counters["inductor"]["cudagraph_skips"])


def _check_that_it_ran(model: GenerativeModel, variant: Variant, called: bool, missed: int) -> None:
    name = type(model).__name__
    if not called:
        raise SettingError(
            f"variant `{variant}` of `{name}`: no changed network was called, so the eager model ran",
            hint="its networks are used by other methods than `forward` here; use `--variant eager`",
        )
    if variant == "cudagraph" and missed:
        raise SettingError(
            f"variant `cudagraph` of `{name}`: {missed} graphs could not be captured and ran eagerly",
            hint="`TORCH_LOGS=cudagraphs` says why; or use `--variant compile`",
        )


def _device(model: nn.Module) -> torch.device:
    tensors: Sequence[torch.Tensor] = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")
