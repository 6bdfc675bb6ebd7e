"""Published peaks of devices: dense FLOP/s, without structured sparsity.

`float32` is the rate of the ordinary cores; matrix products of float32 numbers in TensorFloat-32 are `tensorfloat32`.
Half precisions are tensor-core rates with accumulation in float32. A datasheet that gives only the sparse rate is
halved, as its footnote says. Variants of a chip with other clocks (NVL, Laptop, D, Ti) and slices of a device (MIG) are
not in the table: a peak is known or None, never guessed.
"""

from __future__ import annotations

import re

import torch

_TERA = 1.0e12

#: Pattern of the whole device name, TFLOP/s by type, source.
PEAKS: tuple[tuple[str, dict[str, float], str], ...] = (
    (
        r"NVIDIA H100 (80GB HBM3|SXM5.*)",
        {"float32": 66.9, "tensorfloat32": 494.7, "bfloat16": 989.4, "float16": 989.4},
        "NVIDIA H100 Tensor Core GPU Architecture, whitepaper v1.04, table of H100 SXM5",
    ),
    (
        r"NVIDIA H100 PCIe",
        {"float32": 51.2, "tensorfloat32": 378.0, "bfloat16": 756.0, "float16": 756.0},
        "NVIDIA H100 Tensor Core GPU Architecture, whitepaper v1.04, table of H100 PCIe",
    ),
    (
        r"NVIDIA H200",
        {"float32": 66.9, "tensorfloat32": 494.7, "bfloat16": 989.4, "float16": 989.4},
        "NVIDIA H200 Tensor Core GPU datasheet, SXM: the rates of H100 SXM",
    ),
    (
        r"(NVIDIA )?A100[- ](SXM4-[48]0GB|PCIE-[48]0GB|80GB PCIe)",
        {"float32": 19.5, "tensorfloat32": 156.0, "bfloat16": 312.0, "float16": 312.0},
        "NVIDIA A100 Tensor Core GPU datasheet, 2021",
    ),
    (
        r"NVIDIA L4",
        {"float32": 30.3, "tensorfloat32": 60.0, "bfloat16": 121.0, "float16": 121.0},
        "NVIDIA L4 Tensor Core GPU datasheet, sparse rates halved",
    ),
    (
        r"NVIDIA L40S",
        {"float32": 91.6, "tensorfloat32": 183.0, "bfloat16": 362.05, "float16": 362.05},
        "NVIDIA L40S GPU datasheet",
    ),
    (
        r"Tesla V100-SXM2-(16|32)GB",
        {"float32": 15.7, "float16": 125.0},
        "NVIDIA V100 Tensor Core GPU datasheet, 2020, SXM2",
    ),
    (
        r"Tesla V100-PCIE-(16|32)GB",
        {"float32": 14.0, "float16": 112.0},
        "NVIDIA V100 Tensor Core GPU datasheet, 2020, PCIe",
    ),
    (
        r"Tesla T4",
        {"float32": 8.1, "float16": 65.0},
        "NVIDIA T4 Tensor Core GPU datasheet",
    ),
    (
        r"NVIDIA GeForce RTX 4090",
        {"float32": 82.6, "tensorfloat32": 82.6, "bfloat16": 165.2, "float16": 165.2},
        "NVIDIA Ada GPU Architecture, whitepaper v2.1, appendix A",
    ),
    (
        r"NVIDIA GeForce RTX 3090",
        {"float32": 35.6, "tensorfloat32": 35.6, "bfloat16": 71.0, "float16": 71.0},
        "NVIDIA Ampere GA102 GPU Architecture, whitepaper v2.1, appendix A",
    ),
)


def peak_flops(device_name: str, dtype: torch.dtype | str) -> float | None:
    """Dense FLOP/s that the maker publishes, None for a device or type that is not in the table.

    Args:
        device_name: as `torch.cuda.get_device_name` says.
        dtype: of the numbers multiplied, as a type or its name; `tensorfloat32` has a name only.
    """
    name = str(dtype).removeprefix("torch.")
    for pattern, rates, _ in PEAKS:
        if re.fullmatch(pattern, device_name):
            return rates[name] * _TERA if name in rates else None
    return None


def peak_source(device_name: str) -> str | None:
    """The document that the peaks of a device stand in."""
    return next((source for pattern, _, source in PEAKS if re.fullmatch(pattern, device_name)), None)
