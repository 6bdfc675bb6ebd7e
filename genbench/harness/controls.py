"""Controls: rows that are no models, and scale the table.

`real` is held-out data and shows what a perfect model would get; `train_copy` shows what memorising
the training set would get; the others are real data damaged in known ways, down to plain noise. A
metric that ranks them in the wrong order is broken, and the suite says so. `shuffled_captions` is held-out data again,
beside the captions of others (`caption_controls`).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from genbench.core.dataset import DataSpec
from genbench.prob import mu_law

JPEG_QUALITY = 15
BLUR_SIGMA_SHARE = 1 / 16
"""Standard deviation of the Gaussian blur as a share of the image's width."""
BLUR_SECONDS = 2.5e-4
"""The same for a waveform, over time: of a tone of 1 kHz it leaves 0.3, of one of 2 kHz 0.007."""

OF_IMAGES = frozenset({"jpeg", "mean_image"})
"""Controls without a meaning for waveforms."""
OF_TEXTS = frozenset({"real", "shuffled_texts"})
"""Controls of texts: the true ones, and the true ones of other pictures."""

_Control = Callable[[Tensor, Tensor, DataSpec, Generator], Tensor]


def control_samples(name: str, held_out: Tensor, train: Tensor, spec: DataSpec, *, generator: Generator) -> Tensor:
    """Samples of a control: (N, *shape) uint8, as many as there are held-out examples.

    Args:
        name: one of `real`, `train_copy`, `jpeg`, `blur`, `mean_image`, `noise`, `shuffled_captions`, `shuffled_texts`;
            not all are of waveforms or texts, and not all data have captions.
        held_out: (N, *shape) uint8 examples that no model has seen.
        train: (M, *shape) uint8 training examples.
        spec: of the data.
        generator: source of the noise and of the choice of copies.

    Raises:
        ValueError: the data have no such control.
    """
    if spec.kind == "waveform" and name in OF_IMAGES:
        raise ValueError(f"control `{name}` is of images, the data are of kind `waveform`")
    if (spec.kind == "text" or name == "shuffled_texts") and not (spec.kind == "text" and name in OF_TEXTS):
        fitting = ", ".join(sorted(OF_TEXTS if spec.kind == "text" else set(_CONTROLS) - {"shuffled_texts"}))
        raise ValueError(f"the data are of kind `{spec.kind}`, whose controls are {fitting}, found `{name}`")
    if name == "shuffled_captions" and not spec.vocabulary:
        raise ValueError("control `shuffled_captions` is of data with captions, these have none")
    return _CONTROLS[name](held_out, train, spec, generator)


def _real(held_out: Tensor, train: Tensor, spec: DataSpec, generator: Generator) -> Tensor:
    return held_out


def _train_copy(held_out: Tensor, train: Tensor, spec: DataSpec, generator: Generator) -> Tensor:
    rows = torch.randperm(len(train), generator=generator)[: len(held_out)]
    return train[rows.repeat(-(-len(held_out) // len(rows)))[: len(held_out)]]


def _jpeg(held_out: Tensor, train: Tensor, spec: DataSpec, generator: Generator) -> Tensor:
    scale = 255 / (_levels(spec) - 1)
    shown = (held_out.float() * scale).round().to(torch.uint8).numpy()
    packed = np.stack([_through_jpeg(image) for image in shown])
    return (torch.from_numpy(packed).float() / scale).round().to(torch.uint8)


def _through_jpeg(image: np.ndarray) -> np.ndarray:
    """One (C, H, W) uint8 image, compressed and decompressed."""
    grey = image.shape[0] == 1
    buffer = io.BytesIO()
    Image.fromarray(image[0] if grey else image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=JPEG_QUALITY)
    back = np.asarray(Image.open(buffer))
    return back[None] if grey else back.transpose(2, 0, 1)


def _blur(held_out: Tensor, train: Tensor, spec: DataSpec, generator: Generator) -> Tensor:
    if spec.kind == "waveform":
        return _blurred_over_time(held_out, spec)
    width = held_out.shape[-1]
    sigma = width * BLUR_SIGMA_SHARE
    reach = min(int(3 * sigma + 0.5), width - 1)
    taps = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (taps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(held_out.shape[1], 1, 1, -1)
    padded = F.pad(held_out.float(), (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, kernel, groups=len(kernel))
    both = F.conv2d(rows, kernel.transpose(2, 3), groups=len(kernel))
    return both.round().clamp(0, _levels(spec) - 1).to(torch.uint8)


def _blurred_over_time(held_out: Tensor, spec: DataSpec) -> Tensor:
    """Waveforms (N, 1, T) whose amplitudes, not their codes, are averaged over neighbours."""
    if spec.sample_rate is None:
        raise ValueError("control `blur` of waveforms needs their sample rate")
    sigma = BLUR_SECONDS * spec.sample_rate
    reach = max(1, int(3 * sigma + 0.5))
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    amplitudes = torch.from_numpy(mu_law.decode(held_out.numpy(), levels=_levels(spec))).float()
    padded = F.pad(amplitudes, (reach, reach), mode="replicate")
    smooth = F.conv1d(padded, (taps / taps.sum())[None, None])
    return torch.from_numpy(mu_law.encode(smooth.numpy(), levels=_levels(spec)))


def _mean_image(held_out: Tensor, train: Tensor, spec: DataSpec, generator: Generator) -> Tensor:
    mean = train.double().mean(dim=0).round().to(torch.uint8)
    return mean.expand_as(held_out).clone()


def _noise(held_out: Tensor, train: Tensor, spec: DataSpec, generator: Generator) -> Tensor:
    return torch.randint(_levels(spec), held_out.shape, generator=generator).to(torch.uint8)


def _shuffled_texts(held_out: Tensor, train: Tensor, spec: DataSpec, generator: Generator) -> Tensor:
    return held_out.roll(1, dims=0)  # episodes are independent: any other one is a random one


def _levels(spec: DataSpec) -> int:
    if spec.levels is None:
        raise ValueError("controls are made of images; these data are not integers")
    return spec.levels


_CONTROLS: dict[str, _Control] = {
    "real": _real,
    "train_copy": _train_copy,
    "jpeg": _jpeg,
    "blur": _blur,
    "mean_image": _mean_image,
    "noise": _noise,
    "shuffled_texts": _shuffled_texts,
    "shuffled_captions": _real,
}
