"""What every network for pictures asks of its input and of the machine: uint8 in, float32 throughout."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def require_pictures(images: Tensor, *, owner: str) -> None:
    """Refuse what is not a batch of 8-bit pictures; floats have no range that could be told from another.

    Raises:
        ValueError: `images` are not (N, 3, H, W) uint8.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"`{owner}` takes pictures (N, 3, H, W) uint8 with values 0 .. 255, "
            f"found {tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
        )


def without_tf32(device: torch.device) -> AbstractContextManager[object]:
    """Convolutions on a GPU in float32 and not in the 10-bit mantissas that PyTorch would use there."""
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    return nullcontext()
