import json

import pytest
import torch

from genbench.core.features import build_features
from genbench.core.spec import Ref
from genbench.evaluation.damage import KINDS, damaged
from genbench.harness import feature_training
from genbench.harness.feature_training import train_shapes_net


@pytest.fixture
def quick(monkeypatch):
    """Small pools and few held-out pictures; the rest is as it ships."""
    monkeypatch.setattr(feature_training, "POOL", dict.fromkeys(feature_training.RESOLUTIONS, 240))
    monkeypatch.setattr(feature_training, "PICTURES", dict.fromkeys(feature_training.RESOLUTIONS, 24))
    monkeypatch.setattr(feature_training, "NUM_HELD_OUT", 100)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(quick, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_shapes_net(tmp_path / name, steps=2, seed=seed)
    weights = {name: (tmp_path / name / "shapes_net.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]


def test_what_training_writes_is_an_extractor(quick, tmp_path):
    accuracy = train_shapes_net(tmp_path, steps=1)
    path = tmp_path / "shapes_net.safetensors"
    extractor = build_features(Ref(name="shapes_net", config={"weights": str(path)}))
    described = json.loads(path.with_suffix(".json").read_text())
    assert extractor.protocol()["sha256"] == described["sha256"][:16]
    assert described["held_out_accuracy"] == accuracy
    assert set(accuracy) == {"8", "16", "32", "64"}
    assert set(accuracy["8"]) == {"shape", "colour", "size", "position", "background", "all"}


@pytest.mark.slow
def test_training_learns_to_read(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_training, "POOL", dict.fromkeys(feature_training.RESOLUTIONS, 4000))
    accuracy = train_shapes_net(tmp_path, steps=60)
    assert accuracy["32"]["background"] > 0.9
    assert accuracy["32"]["colour"] > 0.6


def test_damage_keeps_shape_and_range_and_half_the_pictures():
    images = torch.randint(256, (100, 3, 16, 16), dtype=torch.uint8)
    found = damaged(images, generator=torch.Generator().manual_seed(0))
    assert found.images.shape == images.shape
    assert torch.equal(found.images, found.images.round().clamp(0, 255))
    assert torch.equal(found.images[:50], images[:50].float())
    assert (found.grade[:50] == 0).all()
    assert found.legible[:50].all()
    assert not (found.legible & found.meaningless).any()
    assert sum(kind.share for kind in KINDS) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.damage.__name__)
@pytest.mark.parametrize("side", [8, 32])
def test_every_kind_of_damage_gives_one_grade_per_picture_and_the_same_for_the_same_seed(kind, side):
    images = torch.randint(256, (7, 3, side, side)).float()
    first, grade = kind.damage(images.clone(), torch.Generator().manual_seed(3))
    again, _ = kind.damage(images.clone(), torch.Generator().manual_seed(3))
    assert first.shape == images.shape
    assert grade.shape == (7,)
    assert torch.equal(first, again)
    assert (kind.damage.__name__ == "untouched") == torch.equal(first, images)
