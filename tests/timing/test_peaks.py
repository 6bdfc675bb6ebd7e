"""Peaks are known or None, never guessed."""

from __future__ import annotations

import pytest
import torch

from genbench.timing.peaks import PEAKS, peak_flops, peak_source

DEVICES = {
    "NVIDIA H100 80GB HBM3": 989.4e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989.4e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-PCIE-40GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362.05e12,
    "Tesla V100-SXM2-32GB": 125e12,
    "Tesla V100-PCIE-16GB": 112e12,
    "Tesla T4": 65e12,
    "NVIDIA GeForce RTX 4090": 165.2e12,
    "NVIDIA GeForce RTX 3090": 71e12,
}


@pytest.mark.parametrize("name", DEVICES)
def test_half_precision_of_devices_by_the_names_that_torch_gives_them(name):
    assert peak_flops(name, torch.float16) == pytest.approx(DEVICES[name])
    assert peak_source(name)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "Intel(R) Xeon(R) Processor",
        "",
    ],
)
def test_relatives_slices_and_processors_have_no_known_peak(name):
    assert peak_flops(name, "float32") is None
    assert peak_source(name) is None


def test_a_type_may_be_given_by_name_and_an_unknown_one_has_no_peak():
    assert peak_flops("Tesla T4", "float32") == peak_flops("Tesla T4", torch.float32) == pytest.approx(8.1e12)
    assert peak_flops("Tesla T4", "bfloat16") is None
    assert peak_flops("NVIDIA H200", torch.int64) is None


@pytest.mark.parametrize("rates", [rates for _, rates, _ in PEAKS], ids=[pattern for pattern, _, _ in PEAKS])
def test_shorter_numbers_are_never_slower(rates):
    assert rates["float32"] <= rates.get("tensorfloat32", rates["float32"]) <= rates["float16"]
    assert rates.get("bfloat16", rates["float16"]) == rates["float16"]
