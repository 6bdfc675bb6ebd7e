import json
import math

import pytest
import torch
from torch.nn import functional as F

from genbench.core.features import build_features
from genbench.core.spec import Ref
from genbench.data.shapes import FACTORS
from genbench.evaluation.damage import Damaged
from genbench.features.shapes_clip import ShapesClipNetwork
from genbench.harness import shapes_clip_training
from genbench.harness._feature_pools import RESOLUTIONS, Drawn
from genbench.harness.shapes_clip_training import every_caption, train_shapes_clip


@pytest.fixture
def quick(monkeypatch):
    """Small pools and few held-out pictures; the rest is as it ships."""
    monkeypatch.setattr(shapes_clip_training, "POOL", dict.fromkeys(RESOLUTIONS, 240))
    monkeypatch.setattr(shapes_clip_training, "PICTURES", dict.fromkeys(RESOLUTIONS, 24))
    monkeypatch.setattr(shapes_clip_training, "NUM_HELD_OUT", 100)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(quick, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_shapes_clip(tmp_path / name, steps=2, seed=seed)
    weights = {name: (tmp_path / name / "shapes_clip.safetensors").read_bytes() for name in "abc"}
    described = {name: (tmp_path / name / "shapes_clip.json").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"]
    assert described["a"] == described["b"]
    assert weights["a"] != weights["c"]


def test_what_training_writes_is_an_encoder(quick, tmp_path):
    accuracy = train_shapes_clip(tmp_path, steps=1)
    path = tmp_path / "shapes_clip.safetensors"
    encoder = build_features(Ref(name="shapes_clip", config={"weights": str(path)}))
    described = json.loads(path.with_suffix(".json").read_text())
    assert encoder.protocol()["sha256"] == described["sha256"][:16]
    assert described["held_out_retrieval"] == accuracy
    assert set(accuracy) == {"8", "16", "32", "64"}
    assert set(accuracy["8"]) == {"all_captions", "all_captions_novel", "image_to_text", "text_to_image"}


@pytest.mark.slow
def test_training_learns_to_match(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(shapes_clip_training, "POOL", dict.fromkeys(RESOLUTIONS, 2000))
    monkeypatch.setattr(shapes_clip_training, "PICTURES", dict.fromkeys(RESOLUTIONS, 80))
    accuracy = train_shapes_clip(tmp_path, steps=40)
    assert accuracy["32"]["text_to_image"] > 0.2  # chance is 1 in 100
    assert accuracy["32"]["all_captions"] > 0.05  # chance is 1 in 960


def test_the_loss_is_the_symmetric_cross_entropy_with_equal_captions_as_equal_answers():
    torch.manual_seed(0)
    network = ShapesClipNetwork(28, 12).eval()
    text = every_caption(FACTORS)[[5, 700, 5]]  # the first and the third picture share a caption
    pictures = 255.0 * torch.rand(5, 3, 32, 32)
    damage = Damaged(
        images=pictures,
        grade=torch.tensor([0.0, 0.0, 0.0, 8.0, 0.5]),
        legible=torch.tensor([True, True, True, False, True]),
        meaningless=torch.tensor([False, False, False, True, False]),
    )
    drawn = Drawn(pictures, torch.zeros(5, 5), torch.cat([text, text[:2]]), [damage])
    found = shapes_clip_training._loss(network, shapes_clip_training._Temperature(), drawn)

    images, texts = F.normalize(network(pictures), dim=1), F.normalize(network.embed_text(text), dim=1)
    logits = images @ texts.T / 0.07
    rows, columns = logits[:3].log_softmax(dim=1), logits[:4].log_softmax(dim=0)  # the fourth picture shows nothing
    find_text = ((rows[0, 0] + rows[0, 2]) / 2 + rows[1, 1] + (rows[2, 0] + rows[2, 2]) / 2) / 3
    find_image = ((columns[0, 0] + columns[2, 0]) / 2 + columns[1, 1] + (columns[0, 2] + columns[2, 2]) / 2) / 3
    assert found.item() == pytest.approx(-(find_text + find_image).item() / 2, rel=1e-5)


def test_the_temperature_starts_at_7_percent_and_never_falls_below_1():
    temperature = shapes_clip_training._Temperature()
    assert temperature(torch.ones(())).item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        temperature.log_scale.fill_(math.log(1000.0))
    assert temperature(torch.ones(())).item() == pytest.approx(100.0)


def test_pads_and_other_captions_do_not_change_an_embedding():
    network = ShapesClipNetwork(28, 12).eval()
    text = every_caption(FACTORS)[[0, 100, 4]]
    alone = torch.cat([network.embed_text(row[None]) for row in text])
    torch.testing.assert_close(network.embed_text(text), alone)
    with torch.no_grad():
        network.words.weight[0] += 5.0  # the embedding of the padding
    torch.testing.assert_close(network.embed_text(text), alone)
