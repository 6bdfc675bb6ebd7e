"""CLIP scores against formulas, the definition's own steps, and a library that takes the maximum too late."""

import types
import warnings

import numpy as np
import pytest
import torch
from sklearn.preprocessing import normalize

from genbench.core.errors import SettingError
from genbench.core.metric import CaptionEvidence, Evidence, build_metric
from genbench.core.spec import parse_ref
from genbench.metrics.clip_score import HESSEL_PREFIX, CLIPScore, clip_score, ref_clip_score


def _rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _at_cosine(cosines):
    """Image directions, and texts of other lengths at the given cosines to them."""
    images = torch.tensor([[2.0, 0.0]]).repeat(len(cosines), 1)
    texts = torch.stack([torch.tensor([c, (1.0 - c * c) ** 0.5]) * (1.0 + i) for i, c in enumerate(cosines)])
    return images, texts


def _evidence(images, texts, **kwargs):
    return Evidence(
        captions=CaptionEvidence(images=images, texts=texts, extractor="clip", protocol={"sha256": "0" * 16}, **kwargs)
    )


def test_the_three_scalings_are_those_of_known_cosines():
    pair = _at_cosine([0.6, 0.0, -0.8])
    assert clip_score(*pair).value == pytest.approx(-0.2 / 3, abs=1e-7)
    assert clip_score(*pair, preset="times100").value == pytest.approx(100 * 0.6 / 3, abs=1e-5)
    assert clip_score(*pair, preset="hessel").value == pytest.approx(2.5 * 0.6 / 3, abs=1e-6)


def test_the_maximum_is_taken_of_each_sample_and_not_of_the_mean():
    """torchmetrics takes max(mean, 0), so captions that do not fit cancel those that do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("torchmetrics.multimodal.clip_score")
    cosines = [0.3, 0.2, -0.4, -0.3]
    images, texts = _at_cosine(cosines)
    state = types.SimpleNamespace(score=torch.tensor(cosines).sum() * 100, n_samples=torch.tensor(len(cosines)))
    theirs = float(peer.CLIPScore.compute(state))
    assert theirs == 0.0
    assert clip_score(images, texts, preset="times100").value == pytest.approx(100 * 0.5 / 4, abs=1e-4)


def test_hessels_score_equals_the_steps_of_the_original_script():
    images, texts = _rows(50, 16).numpy(), _rows(50, 16, seed=1).numpy()
    steps = 2.5 * np.clip(np.sum(normalize(images, axis=1) * normalize(texts, axis=1), axis=1), 0, None)
    found = clip_score(torch.from_numpy(images), torch.from_numpy(texts), preset="hessel")
    assert found.value == pytest.approx(float(np.mean(steps)), rel=1e-6)
    assert found.stderr == pytest.approx(float(np.std(steps, ddof=1)) / 50**0.5, rel=1e-5)


def test_half_precision_embeddings_are_summed_in_double():
    """A float16 sum of 512 products of length-20 embeddings is off in the third digit, or overflows."""
    images, texts = _rows(40, 512).half() * 300, _rows(40, 512, seed=1).half() * 300
    texts = texts + images
    exact = torch.nn.functional.cosine_similarity(images.double(), texts.double()).mean()
    assert clip_score(images, texts).value == pytest.approx(float(exact), rel=1e-12)
    assert not torch.isfinite((images * texts).sum(dim=1)).all()


def test_with_references_the_harmonic_mean_is_of_the_nearest_one():
    """Image and caption at cosine 0.6 (CLIP-S 1.5), references at 0.5 and 0.8 of the caption; then one far off."""
    images, texts = _at_cosine([0.6, -0.5])
    angle = torch.atan2(texts[:, 1], texts[:, 0])
    references = torch.stack(
        [torch.stack([torch.cos(angle + a), torch.sin(angle + a)], dim=1) for a in np.arccos([0.5, 0.8])], dim=1
    )
    found = ref_clip_score(images, texts, references)
    assert found.value == pytest.approx((2 * 1.5 * 0.8 / 2.3 + 0.0) / 2, abs=1e-6)
    opposite = ref_clip_score(images, texts, -texts[:, None])
    assert opposite.value == 0.0


def test_scores_are_two_with_references_and_say_how_they_were_scaled():
    images, texts = _rows(8, 4), _rows(8, 4, seed=1)
    (plain,) = CLIPScore().compute(_evidence(images, texts))
    assert (plain.name, plain.better, plain.num_samples) == ("clip_score", "higher", 8)
    assert plain.protocol == {"sha256": "0" * 16, "extractor": "clip", "preset": "cosine", "prefix": ""}
    scores = CLIPScore(preset="times100").compute(_evidence(images, texts, references=_rows(8, 3, 4)))
    assert [score.name for score in scores] == ["clip_score", "ref_clip_score"]
    assert [score.protocol["preset"] for score in scores] == ["times100", "hessel"]
    assert all(score.ci95[0] <= score.value <= score.ci95[1] for score in scores)
    assert len({plain.protocol["preset"], scores[0].protocol["preset"]}) == 2


def test_the_prefix_that_the_encoder_was_given_is_kept():
    evidence = CaptionEvidence(
        images=_rows(3, 4), texts=_rows(3, 4), extractor="clip", protocol={"prefix": HESSEL_PREFIX}
    )
    (score,) = CLIPScore(preset="hessel").compute(Evidence(captions=evidence))
    assert score.protocol["prefix"] == "A photo depicts "
    assert score.value == pytest.approx(2.5)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    """2000 sets of 60 samples with cosines uniform on (-0.5, 0.7): mean 0.1, positive part 2.5 * 0.49 / 2.4."""
    random = np.random.default_rng(0)
    for preset, truth in (("cosine", 0.1), ("hessel", 2.5 * 0.49 / 2.4)):
        covered = 0
        for _ in range(500):
            c = torch.from_numpy(random.uniform(-0.5, 0.7, size=60))
            images = torch.tensor([[1.0, 0.0]], dtype=torch.float64).repeat(60, 1)
            low, high = clip_score(images, torch.stack([c, (1 - c * c).sqrt()], dim=1), preset=preset).ci95
            covered += low <= truth <= high
        assert 0.92 <= covered / 500 <= 0.98


def test_what_cannot_be_scored_is_refused():
    good = _rows(4, 3)
    for images, texts, message in (
        (good[:1], good[:1], "at least 2 samples"),
        (good, good[:3], "as many of their captions"),
        (good, torch.zeros(4, 3), "positive length"),
        (good, torch.full((4, 3), float("nan")), "finite embeddings"),
    ):
        with pytest.raises(ValueError, match=message):
            clip_score(images, texts)
    with pytest.raises(ValueError, match="reference captions"):
        ref_clip_score(good, good, good)
    with pytest.raises(ValueError, match="found none"):
        CLIPScore().compute(Evidence())


def test_a_preset_in_brackets_is_that_of_the_metric():
    assert build_metric(parse_ref("clip_score[preset=hessel]")) == CLIPScore(preset="hessel")
    with pytest.raises(SettingError, match="expected one of"):
        build_metric(parse_ref("clip_score[preset=torchmetrics]"))
