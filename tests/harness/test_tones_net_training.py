import json

import pytest
import torch

from genbench.core.features import build_features
from genbench.core.spec import Ref
from genbench.harness import tones_net_training
from genbench.harness.tones_net_training import train_tones_net


@pytest.fixture
def quick(monkeypatch):
    """Small pools and few held-out notes; the rest is as it ships."""
    monkeypatch.setattr(tones_net_training, "POOL", dict.fromkeys(tones_net_training.LENGTHS, 120))
    monkeypatch.setattr(tones_net_training, "NUM_HELD_OUT", 60)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(quick, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_tones_net(tmp_path / name, steps=2, seed=seed)
    weights = {name: (tmp_path / name / "tones_net.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]


def test_what_training_writes_is_an_extractor(quick, tmp_path):
    accuracy = train_tones_net(tmp_path, steps=1)
    path = tmp_path / "tones_net.safetensors"
    extractor = build_features(Ref(name="tones_net", config={"weights": str(path)}))
    described = json.loads(path.with_suffix(".json").read_text())
    assert extractor.protocol()["sha256"] == described["sha256"][:16]
    assert described["held_out_accuracy"] == accuracy
    assert set(accuracy) == {"512", "1024", "2048", "4096"}
    assert set(accuracy["512"]) == {"timbre", "pitch", "envelope", "loudness", "all"}
    features = extractor(tones_net_training.tones_of(512).load("train", range(50)).x)
    assert torch.isfinite(features).all()


@pytest.mark.slow
def test_training_learns_to_read(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(tones_net_training, "POOL", dict.fromkeys(tones_net_training.LENGTHS, 1500))
    accuracy = train_tones_net(tmp_path, steps=100)
    assert accuracy["2048"]["loudness"] > 0.8
    assert accuracy["2048"]["envelope"] > 0.7
