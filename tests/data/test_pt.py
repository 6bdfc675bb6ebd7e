"""Tensors in `.pt` files: names, labels, forms, and what is refused."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import torch

from genbench.core.errors import DataError
from genbench.data.pt import Pt

RGB = torch.randint(0, 256, (20, 3, 5, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LABELS = torch.arange(20) % 4


def _saved(tmp_path, content, *, settings=None, **form) -> Pt:
    torch.save(content, tmp_path / "a.pt", **form)
    return Pt(str(tmp_path / "a.pt"), **(settings or {}))


@pytest.mark.parametrize(
    "content",
    [
        RGB,
        {"images": RGB},
        {"samples": RGB, "seeds": torch.arange(20)},
        {"x": RGB, "y": LABELS},
        {"whatever": RGB},
        collections.OrderedDict(images=RGB),
        torch.nn.Parameter(RGB.float() / 255.0),
    ],
    ids=["tensor", "images", "samples", "x and y", "the only tensor", "ordered", "parameter"],
)
def test_images_are_found_in_a_tensor_or_by_their_name(content, tmp_path):
    settings = {"value_range": "unit"} if isinstance(content, torch.nn.Parameter) else {}
    assert torch.equal(_saved(tmp_path, content, settings=settings).load("train", range(20)).x, RGB)


@pytest.mark.parametrize("name", ["labels", "y"])
def test_labels_follow_their_images(name, tmp_path):
    data = _saved(tmp_path, {"images": RGB, name: LABELS})
    assert data.load("train", [5, 2]).y.tolist() == [1, 2]
    assert data.spec.num_classes == 4
    assert data.fingerprint() != _saved(tmp_path, {"images": RGB, name: LABELS.flip(0)}).fingerprint()


@pytest.mark.parametrize("labels", [LABELS[:5], LABELS / 2, LABELS - 1, [0] * 20])
def test_labels_that_do_not_fit_are_refused(labels, tmp_path):
    with pytest.raises(DataError, match=r"the labels must be 20 whole numbers|is negative"):
        _ = _saved(tmp_path, {"images": RGB, "labels": labels}).spec


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_every_precision_are_read(kind, tmp_path):
    binary = torch.where(RGB > 99, 255, 0).to(torch.uint8)
    data = _saved(tmp_path, (binary / 127.5 - 1.0).to(kind), settings={"value_range": "signed"})
    assert torch.equal(data.load("train", range(20)).x, binary)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_both_forms_are_read(zipped, tmp_path):
    data = _saved(tmp_path, {"images": RGB}, _use_new_zipfile_serialization=zipped)
    assert torch.equal(data.load("train", range(20)).x, RGB)


def test_what_is_loaded_is_the_callers_own(tmp_path):
    data = _saved(tmp_path, RGB)
    data.load("train", [0]).x.zero_()
    assert torch.equal(data.load("train", [0]).x[0], RGB[0])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "holds `weight`, `bias`, expected images"),
        ({}, "holds nothing"),
        ([RGB], "holds a list"),
        (torch.ones(5, 4), "no images"),
        (torch.zeros(0, 3, 4, 4), "no images"),
        (torch.tensor(1.0), "no images"),
        (RGB > 99, "is bool"),
        (RGB.to_sparse(), "sparse"),
        (RGB.to(torch.int32) * 300, r"holds 0 \.\. 76500"),
        (torch.full((2, 3, 4, 4), float("nan")), "NaN"),
    ],
)
def test_what_is_no_images_is_refused(content, said, tmp_path):
    with pytest.raises(DataError, match=said):
        _saved(tmp_path, content).load("train", [0])


class Stranger:
    """Something that only a pickle can bring."""


def test_pickled_objects_are_never_opened(tmp_path):
    with pytest.raises(DataError, match="cannot be read") as caught:
        _ = _saved(tmp_path, {"images": RGB, "model": Stranger()}).spec
    assert "can run code and are not opened" in caught.value.hint


@pytest.mark.parametrize("cut", [0, 5, 300, -200])
def test_a_file_that_was_cut_is_refused(cut, tmp_path):
    _saved(tmp_path, RGB)
    path = tmp_path / "a.pt"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="cannot be read"):
        _ = Pt(str(path)).spec


def test_the_same_images_as_floats_keep_their_names(tmp_path):
    assert _saved(tmp_path, RGB).identify("train", np.array([7])) == ["00000007"]
