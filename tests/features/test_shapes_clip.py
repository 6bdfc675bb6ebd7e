import itertools
import json
import shutil

import pytest
import torch
from torch.nn import functional as F

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError
from genbench.core.features import TextEncoder, build_features, extract
from genbench.core.spec import Ref, parse_ref
from genbench.data.shapes import FACTORS
from genbench.data.shapes import captions as captions_of
from genbench.evaluation.damage import blurred
from genbench.features.shapes_clip import SHIPPED, ShapesClip
from genbench.harness.shapes_clip_training import every_caption

FIRST = 5_000_000
"""Index of pictures that the encoder was not trained on."""


@pytest.fixture(scope="module")
def encoder():
    return build_features(Ref(name="shapes_clip"))


def _dataset(resolution):
    return build_dataset(parse_ref(f"shapes[resolution={resolution}]"))


def _sentences(tokens):
    spec = _dataset(8).spec
    return [spec.caption(row) for row in tokens]


def _unit(embeddings):
    return F.normalize(embeddings.double(), dim=1)


def _pairs(encoder, resolution, num=400, split="test"):
    batch = _dataset(resolution).load(split, range(FIRST, FIRST + num))
    return batch, _unit(encoder.encode_text(_sentences(batch.text)))


def _matched(encoder, pictures, texts):
    """Mean cosine of float pictures and their captions."""
    images = _unit(extract(encoder, pictures.round().clamp(0, 255).to(torch.uint8)))
    return float((images * texts).sum(dim=1).mean())


def _one_factor_away(factors):
    """Each row of (N, 5) with one factor at another value, in every way: (N, 16, 5)."""
    changed = []
    for place, factor in enumerate(FACTORS):
        for shift in range(1, len(factor.values)):
            other = factors.clone()
            other[:, place] = (other[:, place] + shift) % len(factor.values)
            changed.append(other)
    return torch.stack(changed, dim=1)


def test_pictures_of_any_size_and_captions_land_in_one_space(encoder):
    assert isinstance(encoder, TextEncoder)
    texts = encoder.encode_text(["a small red circle at the top left on a black background", "cross"])
    assert texts.shape == (2, encoder.num_features) == (2, 64)
    for side in (8, 16, 28, 32, 64):
        images = encoder(torch.randint(256, (3, 3, side, side), dtype=torch.uint8))
        assert images.shape == (3, 64)
        assert images.dtype == texts.dtype == torch.float32
        assert images.isfinite().all()
    assert texts.isfinite().all()


def test_no_captions_give_no_embeddings(encoder):
    assert encoder.encode_text([]).shape == (0, 64)


def test_embeddings_do_not_depend_on_the_batch_they_are_made_in(encoder):
    batch = _dataset(16).load("test", range(40))
    torch.testing.assert_close(extract(encoder, batch.x, batch_size=40), extract(encoder, batch.x, batch_size=7))
    captions = _sentences(batch.text)
    alone = torch.cat([encoder.encode_text([caption]) for caption in captions])
    torch.testing.assert_close(encoder.encode_text(captions), alone)


def test_its_protocol_names_the_weights_that_ship(encoder):
    described = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert encoder.protocol()["sha256"] == described["sha256"][:16]
    assert encoder.protocol()["extractor"] == "shapes_clip"
    assert SHIPPED.stat().st_size < 600_000
    assert described["vocabulary"] == list(_dataset(8).spec.vocabulary)


@pytest.mark.parametrize("split", ["test", "novel"])
@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_it_finds_the_caption_of_unseen_pictures_among_all_960(encoder, resolution, split):
    batch, _ = _pairs(encoder, resolution, split=split)
    every = every_caption(FACTORS)
    assert len(every.unique(dim=0)) == len(every) == 960
    found = every[(_unit(encoder(batch.x)) @ _unit(encoder.encode_text(_sentences(every))).T).argmax(dim=1)]
    assert (found == batch.text).all(dim=1).double().mean() >= 0.98


@pytest.mark.parametrize("resolution", [8, 32])
def test_the_right_caption_beats_every_caption_that_differs_in_one_factor(encoder, resolution):
    batch, texts = _pairs(encoder, resolution)
    images = _unit(encoder(batch.x))
    away = _one_factor_away(batch.factors)  # (N, 16, 5)
    assert (away != batch.factors[:, None]).sum(dim=2).eq(1).all()
    sentences = _sentences(torch.from_numpy(captions_of(away.flatten(0, 1).numpy())))
    wrong = _unit(encoder.encode_text(sentences)).view(len(batch), -1, 64)
    beaten = (images * texts).sum(dim=1)[:, None] > (images[:, None] * wrong).sum(dim=2)
    assert beaten.all(dim=1).double().mean() >= 0.97


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_pictures_are_near_their_captions_and_far_from_others(encoder, resolution):
    batch, texts = _pairs(encoder, resolution)
    cosines = _unit(encoder(batch.x)) @ texts.T
    same = (batch.text[:, None] == batch.text).all(dim=2)
    assert cosines[same].mean() > 0.9
    assert cosines[~same].mean().abs() < 0.05
    assert cosines[same].quantile(0.01) > cosines[~same].quantile(0.99) + 0.1


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_the_more_blur_the_farther_from_the_caption(encoder, resolution):
    batch, texts = _pairs(encoder, resolution, num=100)
    x = batch.x.float()
    shares = (0.08, 0.12, 0.2, 0.3)  # less than 5 % of the width is how pictures of the next lower resolution look
    found = [_matched(encoder, x, texts), *(_matched(encoder, blurred(x, share), texts) for share in shares)]
    assert all(less > more + 0.01 for less, more in itertools.pairwise(found)), found


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_the_more_noise_the_farther_from_the_caption(encoder, resolution):
    batch, texts = _pairs(encoder, resolution, num=100)
    x = batch.x.float()
    grain = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = [_matched(encoder, x + sigma * grain, texts) for sigma in (0, 20, 40, 60, 80, 120, 200)]
    assert all(less > more for less, more in itertools.pairwise(found)), found
    assert found[-1] < 0.3


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_no_caption_fits_noise_or_plain_colour_as_well_as_its_own_fits_a_picture(encoder, resolution):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (200, 3, resolution, resolution), generator=generator, dtype=torch.uint8)
    plain = torch.randint(256, (200, 3, 1, 1), generator=generator, dtype=torch.uint8).expand_as(noise)
    every = _unit(encoder.encode_text(_sentences(every_caption(FACTORS))))
    batch, texts = _pairs(encoder, resolution)
    matched = (_unit(encoder(batch.x)) * texts).sum(dim=1).quantile(0.01)
    assert (_unit(encoder(noise)) @ every.T).max() < matched - 0.3
    assert (_unit(encoder(plain)) @ every.T).max() < matched - 0.1


def test_the_order_of_the_words_matters(encoder):
    caption = "a small red circle at the top left on a black background"
    swapped = "a small black circle at the top left on a red background"
    first, second = encoder.encode_text([caption, swapped])
    assert not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("a small purple circle", "unknown word `purple`, the vocabulary is a, small, large, red"),
        ("a small Red circle", "unknown word `Red`"),
        ("", "has 0 words, expected 1 to 12"),
        ("a " * 13, "has 13 words, expected 1 to 12"),
    ],
)
def test_captions_that_it_cannot_read_are_refused(encoder, caption, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode_text(["a red circle", caption])


def test_weights_that_do_not_match_their_description_are_refused(tmp_path):
    path = tmp_path / "shapes_clip.safetensors"
    shutil.copy(SHIPPED.with_suffix(".json"), path.with_suffix(".json"))
    path.write_bytes(SHIPPED.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DataError, match="SHA-256"):
        ShapesClip(ShapesClip.Config(weights=str(path)))


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match="genbench features train shapes_clip"):
        ShapesClip(ShapesClip.Config(weights=str(tmp_path / "shapes_clip.safetensors")))


def test_a_copy_of_the_weights_gives_the_same_embeddings(encoder, tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path / f"copy{suffix}")
    copy = build_features(Ref(name="shapes_clip", config={"weights": str(tmp_path / "copy.safetensors")}))
    images = _dataset(8).load("test", range(5)).x
    assert torch.equal(copy(images), encoder(images))


@pytest.mark.parametrize("resolution", [8, 32])
def test_a_picture_is_found_among_100_of_other_captions_and_a_caption_among_their_pictures(encoder, resolution):
    batch = _dataset(resolution).load("test", range(FIRST, FIRST + 400))
    distinct, which = batch.text.unique(dim=0, return_inverse=True)
    first = torch.stack([(which == row).nonzero()[0, 0] for row in range(len(distinct))])[:100]
    cosines = _unit(encoder(batch.x[first])) @ _unit(encoder.encode_text(_sentences(batch.text[first]))).T
    assert len(first) == 100
    for table in (cosines, cosines.T):
        assert (table.argmax(dim=1) == torch.arange(100)).double().mean() > 0.95
