"""A dual encoder of noised pictures and captions, and the slope of what it finds alike.

GLIDE (Nichol et al. 2021, arXiv:2112.10741, Sec. 2.4) guides with a CLIP whose picture tower sees x_t and t. With f of
noised pictures and g of captions, both of length 1, and a learned k (`sharpness`),

    logits_ij = k f(x_t_i, t_i) . g(c_j)

learns by cross-entropy both ways (Radford et al. 2021, arXiv:2103.00020, Fig. 3). Captions that a batch holds more than
once are all right answers: the target of a row is uniform over them (Yang et al. 2022, arXiv:2204.03610).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.nn.conditioning import CaptionEncoder
from genbench.nn.noisy_classifier import NoisyClassifier

INITIAL_SHARPNESS = 1.0 / 0.07
MOST_SHARP = 100.0
"""Both of Radford et al. 2021, Sec. 2.5."""


class NoisyDualEncoder(nn.Module):
    """Noised pictures (B, C, H, W) with their times (B,), and captions (B, T), in one space.

    Args:
        pictures: maps noised pictures and times to (B, F).
        num_words: size of the vocabulary, padding included.
        dim: F.
        width: of the tower of captions.
    """

    def __init__(self, pictures: NoisyClassifier, *, num_words: int, dim: int, width: int) -> None:
        super().__init__()
        self.pictures = pictures
        self.words = CaptionEncoder(num_words, width)
        self.of_words = nn.Linear(width, dim)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(INITIAL_SHARPNESS)))

    @property
    def sharpness(self) -> Tensor:
        """k, a scalar of at most `MOST_SHARP`."""
        return self.log_sharpness.clamp(max=math.log(MOST_SHARP)).exp()

    def captions(self, captions: Tensor) -> Tensor:
        """Directions of captions: (B, F), of length 1."""
        return F.normalize(self.of_words(self.words(captions)), dim=1)

    def shown(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Directions of noised pictures: (B, F), of length 1."""
        return F.normalize(self.pictures(x_t, t), dim=1)

    def loss(self, x_t: Tensor, t: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of a batch both ways in nats, and the share of pictures whose nearest caption is their own."""
        distinct, which = captions.unique(dim=0, return_inverse=True)
        logits = self.sharpness * self.shown(x_t, t) @ self.captions(distinct).T[:, which]  # (B, B)
        same = which[:, None] == which
        target = same / same.sum(1, keepdim=True)
        loss = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
        found = same.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        return loss, found.detach()


def similarity_slope(similarity: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor) -> Tensor:
    """Gradient in x of a similarity of each example: the shape of `x`.

    It works under `torch.no_grad` and inference mode, and nothing is differentiable afterwards.

    Args:
        similarity: noised pictures and times to (B,); treats examples independently.
        x: (B, ...) float.
        t: (B,) times.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        x, t = x.clone().detach().requires_grad_(), t.clone()
        (slope,) = torch.autograd.grad(similarity(x, t).sum(), x)
    return slope
