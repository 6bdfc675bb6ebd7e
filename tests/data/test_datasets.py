"""What every dataset that needs no download has in common."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.spec import parse_ref

OFFLINE = [
    "shapes[resolution=8]",
    "shapes[resolution=64]",
    "digits",
    "patches",
    "patches[resolution=64]",
    "tones",
    "tones[length=512]",
    "toy2d",
] + [f"toy2d[law={law}]" for law in ("checkerboard", "spirals", "gaussians25", "gaussians8")]


@pytest.fixture(params=OFFLINE)
def data(request):
    return build_dataset(parse_ref(request.param))


def test_examples_have_the_shape_and_range_that_the_spec_states(data):
    spec = data.spec
    for split in data.splits:
        batch = data.load(split, range(40))
        assert batch.x.shape == (40, *spec.shape)
        if spec.levels is None:
            assert batch.x.dtype == torch.float32
            assert torch.isfinite(batch.x).all()
        else:
            assert batch.x.dtype == torch.uint8
            assert int(batch.x.max()) < spec.levels
        if spec.num_classes:
            assert batch.y.dtype == torch.int64
            assert 0 <= int(batch.y.min()) <= int(batch.y.max()) < spec.num_classes
        else:
            assert batch.y is None


def test_an_index_names_the_same_example_in_any_company(data):
    whole = data.load("train", np.arange(30))
    pieces = torch.cat([data.load("train", [index]).x for index in reversed(range(30))])
    assert torch.equal(pieces.flip(0), whole.x)
    assert torch.equal(data.load("train", [7, 7]).x[0], whole.x[7])


def test_splits_show_different_examples(data):
    train, test = (data.load(split, range(300)).x.numpy() for split in ("train", "test"))
    shared = {row.tobytes() for row in train} & {row.tobytes() for row in test}
    assert len(shared) < 15  # flat sky can look the same twice; a leak would share all


def test_what_is_loaded_is_the_callers_own(data):
    first = data.load("train", range(5))
    kept = first.x.clone()
    first.x.zero_()
    assert torch.equal(data.load("train", range(5)).x, kept)


def test_no_index_gives_an_empty_batch(data):
    assert len(data.load("train", [])) == 0


@pytest.mark.parametrize(("indices", "said"), [([-1], "index -1 is out of range"), ([0.5], "whole numbers")])
def test_indices_that_name_nothing_are_refused(data, indices, said):
    with pytest.raises(IndexError, match=said):
        data.load("train", indices)


def test_the_end_of_a_finite_split_is_respected(data):
    size = data.size("test")
    if size is not None:
        assert len(data.load("test", [size - 1])) == 1
        with pytest.raises(IndexError, match=f"index {size} is out of range, expected 0 .. {size - 1}"):
            data.load("test", [size])


def test_the_fingerprint_belongs_to_the_settings(data):
    again = pickle.loads(pickle.dumps(data))
    assert again == data
    assert again.fingerprint() == data.fingerprint()
    assert len(data.fingerprint()) == 16


def test_an_unknown_split_is_refused(data):
    with pytest.raises(ValueError, match="has no split `valid`"):
        data.load("valid", [0])


def test_fingerprints_differ_between_datasets():
    found = {build_dataset(parse_ref(ref)).fingerprint() for ref in OFFLINE}
    assert len(found) == len(OFFLINE)


@pytest.mark.parametrize(
    "ref", ["mnist", "fashion_mnist", "cifar10", "speech_digits", "folder:/nowhere", "npz:/nowhere.npz"]
)
def test_a_dataset_is_built_without_touching_its_files(ref, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / "nothing"))
    data = build_dataset(parse_ref(ref))
    assert pickle.loads(pickle.dumps(data)) == data
