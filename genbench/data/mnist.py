"""MNIST: 70,000 handwritten digits, grey, 28x28.

Read from `GENBENCH_DATA/mnist/MNIST/raw`, where torchvision puts it: the four idx files, plain or gzipped. They are
never downloaded silently. LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
recognition", 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

from genbench.core.dataset import register_dataset
from genbench.data._idx import IdxImages


@register_dataset("mnist")
@dataclass(frozen=True)
class MNIST(IdxImages):
    """Handwritten digits; the label is the digit."""

    source = "http://yann.lecun.com/exdb/mnist, CC BY-SA 3.0"
    folders = ("mnist/MNIST/raw",)  # where torchvision puts the files
    how = "get the four files `*-ubyte.gz` from https://ossci-datasets.s3.amazonaws.com/mnist/ into that folder"

    @property
    def name(self) -> str:
        """The registered name."""
        return "mnist"
