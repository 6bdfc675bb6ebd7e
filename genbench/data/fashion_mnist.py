"""Fashion-MNIST: 70,000 articles of clothing, grey, 28x28.

Read from `GENBENCH_DATA/fashion_mnist/FashionMNIST/raw`, where torchvision puts it: the four idx files, plain or
gzipped. They are never downloaded silently. Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for
benchmarking machine learning algorithms", 2017, arXiv 1708.07747.
"""

from __future__ import annotations

from dataclasses import dataclass

from genbench.core.dataset import register_dataset
from genbench.data._idx import IdxImages


@register_dataset("fashion_mnist")
@dataclass(frozen=True)
class FashionMNIST(IdxImages):
    """Articles of clothing in ten classes."""

    source = "https://github.com/zalandoresearch/fashion-mnist, MIT"
    folders = ("fashion_mnist/FashionMNIST/raw",)  # where torchvision puts the files
    how = (
        "get the four files `*-ubyte.gz` from http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/ "
        "into that folder"
    )

    @property
    def name(self) -> str:
        """The registered name."""
        return "fashion_mnist"
