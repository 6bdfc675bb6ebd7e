"""Counters: what a call does, whatever the machine is busy with.

Operators are counted where they reach the dispatcher, after composite ones have been taken apart, in forward and
backward passes alike. Counts are of the eager network: compiled code calls kernels that no dispatcher sees.

**FLOPs** count matrix products, convolutions and attention, a multiply-add twice, by the formulas of
`torch.utils.flop_counter`, and by the same ones for attention on a CPU, products in place, and products with
a vector, which have none there.
Element-wise operators, reductions, normalisation, look-ups and random numbers are not FLOPs by convention.

**Uncounted** are operators without a formula that belong to one of two sets: those of `aten` whose names say that they
multiply or transform matrices or signals (`_ARITHMETIC`: products of matrices and vectors, convolutions, attention,
recurrent layers, Fourier transforms, decompositions and solvers, pairwise distances), and all operators of libraries
other than PyTorch's own, which could do anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.core.bench import Counters

_ARITHMETIC = re.compile(
    r"""(^|_)(mm|addmm|bmm|addbmm|baddbmm|matmul|linear|mv|addmv|dot|vdot|addr|ger|trilinear|bilinear)(_|$)
    |conv(olution|_|\d)|attention|(^|_)(rnn|lstm|gru)(_|$)|transformer_encoder
    |(^|_)fft_|linalg_|(^|_)(cholesky|qr|geqrf|ormqr|orgqr|svd|lu|lstsq|inverse|eigh?|triangular_solve)(_|$)
    |(^|_)([cp]|euclidean_)dist(_|$)|matrix_exp|spsolve|(^|_)(smm|hspmm|sspaddmm)(_|$)""",
    re.VERBOSE,
)
_HARMLESS = frozenset(
    {"linalg_vector_norm", "linalg__powsum", "linalg_cross", "linalg_diagonal", "_linalg_check_errors"}
)
"""Names that match, though their operators do no more than element-wise ones and reductions."""
_OWN_LIBRARIES = frozenset({"aten", "prim", "prims", "profiler"})


def count(call: Callable[[], object], *, parameters: int) -> Counters:
    """Counts of one call, the same in every run on the same versions.

    What only a first call makes (moments of an optimiser, caches) is counted if this is the first call.

    Args:
        call: runs once, eagerly and some times slower than usual.
        parameters: of the model, for the record.
    """
    counter = _Counter()
    with counter:
        call()
    return Counters(
        flops=counter.flops,
        uncounted=tuple(sorted(counter.uncounted)),
        operators=counter.calls,
        bytes_allocated=counter.bytes_allocated,
        parameters=parameters,
    )


class _Counter(TorchDispatchMode):
    """Sees every operator call that reaches the dispatcher.

    `torch.utils.flop_counter.FlopCounterMode` gives the same FLOPs where it has a formula, and by module; which costs
    several times as much and tells neither operators nor bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.calls = self.bytes_allocated = 0
        self.uncounted = set[str]()
        self._whole = set[object]()  # operators that were found not to be made of others

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        named = kwargs or {}
        formula = _formula(func)
        if formula is None and func not in self._whole:
            with self:  # composite operators arrive whole in inference mode
                made = func.decompose(*args, **named)
            if made is not NotImplemented:
                return made
            self._whole.add(func)
        made = func(*args, **named)
        self.calls += 1
        self.bytes_allocated += _new_bytes((args, named), made)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=made)
        elif _is_arithmetic(func):
            self.uncounted.add(_name(func))
        return made


def _new_bytes(given: object, made: object) -> int:
    """Bytes of the memory in which made tensors stand and no given one does, once however many views it has."""
    old = {storage._cdata for storage in _storages(given)}
    return sum({storage._cdata: storage.nbytes() for storage in _storages(made) if storage._cdata not in old}.values())


def _storages(value: object) -> Iterator[torch.UntypedStorage]:
    """Memory of all dense tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        if value.layout is torch.strided:
            yield value.untyped_storage()
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _storages(part)
    elif isinstance(value, dict):
        yield from _storages(tuple(value.values()))


def _formula(func: Any) -> Callable[..., int] | None:  # noqa: ANN401
    """How many FLOPs a call takes, from its arguments and its result."""
    packet = func._overloadpacket
    return _MORE_FORMULAS.get(packet) or flop_counter.flop_registry.get(packet)


def _name(func: Any) -> str:  # noqa: ANN401
    return str(func.name()).partition(".")[0]


def _is_arithmetic(func: Any) -> bool:  # noqa: ANN401
    library, _, name = _name(func).partition("::")
    if library not in _OWN_LIBRARIES:
        return True
    return name not in _HARMLESS and _ARITHMETIC.search(name) is not None


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    """FLOPs of attention; all tensors are (B, heads, T, D)."""
    return int(flop_counter.sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward_flops(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    return int(flop_counter.sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


def _vector_flops(first: Tensor, *_: object, **__: object) -> int:
    """FLOPs of a product of a matrix (N, K), or a vector (K,), and a vector (K,)."""
    return 2 * first.numel()


_MORE_FORMULAS: dict[Any, Callable[..., int]] = {
    torch.ops.aten.addmm_: flop_counter.flop_registry[torch.ops.aten.addmm],
    torch.ops.aten.baddbmm_: flop_counter.flop_registry[torch.ops.aten.baddbmm],
    torch.ops.aten.mv: _vector_flops,
    torch.ops.aten.dot: _vector_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
