"""CLIP against open_clip and Pillow, on random weights."""

import logging
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from genbench.core.errors import DataError, SettingError
from genbench.core.features import build_features
from genbench.core.spec import Ref
from genbench.features._clip_models import build, recipe_of
from genbench.features._clip_resize import crop_to_square, pillow_bicubic
from genbench.features.clip import CLIP

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    open_clip = pytest.importorskip("open_clip")

TINY = "ViT-S-32-alt"


def _peer(model, *, quick_gelu=False):
    torch.manual_seed(5)
    network = open_clip.create_model(model, pretrained=None, force_quick_gelu=quick_gelu)
    return network.eval().requires_grad_(False)  # attention takes another path, 1e-6 away, with gradients at hand


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random small network in a file, open_clip's, and ours."""
    theirs = _peer(TINY)
    path = tmp_path_factory.mktemp("clip") / "weights.pt"
    torch.save(theirs.state_dict(), path)
    config = {"model": TINY, "pretrained": "none", "weights": str(path)}
    return path, theirs, build_features(Ref(name="clip", config=config))


def _pictures(num, height, width, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, height, width), generator=generator).to(torch.uint8)


def _pillow(images, height, width):
    """Rows first, then columns: two calls, since Pillow 13 changes the order for some pictures."""
    resized = [
        np.asarray(
            Image.fromarray(image.permute(1, 2, 0).numpy())
            .resize((width, image.shape[1]), Image.Resampling.BICUBIC)
            .resize((width, height), Image.Resampling.BICUBIC)
        )
        for image in images
    ]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    "sizes", [(32, 32, 224, 224), (500, 331, 224, 224), (331, 500, 224, 224), (64, 100, 64, 30), (7, 5, 224, 160)]
)
def test_the_resize_is_pillows_to_the_last_bit(sizes):
    images = _pictures(2, *sizes[:2])
    images[0] = images[0] // 128 * 255  # edges overshoot on both sides and are clipped
    assert torch.equal(pillow_bicubic(images, *sizes[2:]), _pillow(images, *sizes[2:]))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 97), (301, 240), (97, 64), (224, 225)])
def test_pictures_are_prepared_bit_by_bit_as_open_clip_prepares_them(tiny, height, width):
    _, _, ours = tiny
    images = _pictures(2, height, width)
    transform = open_clip.image_transform(224, is_train=False)
    expected = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    assert torch.equal(ours.prepared(images), expected)
    assert crop_to_square(images, 224).dtype == torch.uint8


def test_embeddings_of_pictures_and_captions_are_those_of_open_clip(tiny):
    _, theirs, ours = tiny
    images, captions = _pictures(3, 40, 48), ["a red square", "Two dogs, running!", ""]
    with torch.no_grad():
        pictures, texts = theirs.encode_image(ours.prepared(images)), theirs.encode_text(open_clip.tokenize(captions))
        torch.testing.assert_close(ours(images), pictures, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.encode_text(captions), texts, rtol=1e-6, atol=1e-6)
    assert ours(images).dtype == ours.encode_text(captions).dtype == torch.float32
    assert ours(images).shape == (3, ours.num_features)
    with pytest.raises(ValueError, match="uint8"):
        ours(images.float())


@pytest.mark.slow
def test_weights_in_half_precision_are_computed_with_in_full(tiny, tmp_path):
    path, _, _ = tiny
    halves = {name: value.half() for name, value in torch.load(path).items()}
    torch.save(halves, tmp_path / "halves.pt")
    ours = CLIP(CLIP.Config(model=TINY, pretrained="none", weights=str(tmp_path / "halves.pt")))
    assert {value.dtype for value in ours.network.parameters()} == {torch.float32}
    assert ours.encode_text(["a dog"]).dtype == torch.float32
    assert ours.protocol()["dtype"] == "float32"


def test_a_caption_that_is_too_long_is_cut_aloud(tiny, caplog):
    _, _, ours = tiny
    with caplog.at_level(logging.WARNING):
        ours.encode_text(["a short one", "very " * 200])
    assert "1 of 2 captions are cut to 77 tokens" in caplog.text


@pytest.mark.slow
def test_openai_trained_with_another_activation_and_the_recipe_says_so(tiny):
    path, _, _ = tiny
    openai, laion = recipe_of("ViT-B-32", "openai"), recipe_of("ViT-B-32", "laion2b_s34b_b79k")
    assert openai.quick_gelu
    assert not laion.quick_gelu
    assert openai.sha256 == "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
    assert openai.filenames[0] == "ViT-B-32.pt"
    assert laion.url.startswith("https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K/resolve/main/")
    fast = build(TINY, openai, path).eval()  # the activation of the recipe, not of the architecture
    with torch.no_grad():
        x = torch.randn(1, 3, 224, 224)
        torch.testing.assert_close(fast.encode_image(x), _peer(TINY, quick_gelu=True).encode_image(x))
        assert not torch.allclose(fast.encode_image(x), _peer(TINY).encode_image(x))


def test_every_published_tag_has_a_recipe_or_a_reason():
    refused = 0
    for model, tag in open_clip.list_pretrained():
        try:
            recipe = recipe_of(model, tag)
        except SettingError:
            refused += 1
            continue
        assert recipe.url.startswith("https://")
        assert len(recipe.mean) == len(recipe.std) == 3
    assert 0 < refused < len(open_clip.list_pretrained()) / 2


class _Archived(nn.Module):
    """OpenAI's file: the network's tensors, and numbers that describe it."""

    def __init__(self, state):
        super().__init__()
        for name, value in state.items():
            parent = self
            *folders, leaf = name.split(".")
            for folder in folders:
                if folder not in dict(parent.named_children()):
                    parent.add_module(folder, nn.Module())
                parent = dict(parent.named_children())[folder]
            parent.register_buffer(leaf, value)
        self.register_buffer("input_resolution", torch.tensor(224))
        self.register_buffer("vocab_size", torch.tensor(49408))

    def forward(self, x):
        return x


@pytest.mark.slow
def test_an_archive_as_openai_published_it_is_read(tiny, tmp_path):
    path, _, ours = tiny
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_Archived(torch.load(path))).save(str(tmp_path / "ViT.pt"))
    again = CLIP(CLIP.Config(model=TINY, pretrained="none", weights=str(tmp_path / "ViT.pt")))
    assert torch.equal(again.encode_text(["a dog"]), ours.encode_text(["a dog"]))


def test_missing_weights_are_refused_with_address_and_folder(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(DataError) as caught:
        build_features(Ref(name="clip", config={}))
    assert "openaipublic.azureedge.net" in str(caught.value.hint)
    assert str(tmp_path) in str(caught.value.hint)
    assert "--weights FILE" in str(caught.value.hint)
    with pytest.raises(DataError, match="published nowhere"):
        build_features(Ref(name="clip", config={"pretrained": "none"}))


def test_unknown_models_trainings_and_foreign_files_are_refused(tiny):
    path, _, _ = tiny
    with pytest.raises(SettingError, match="no model `ViT-B-33`"):
        CLIP(CLIP.Config(model="ViT-B-33"))
    with pytest.raises(SettingError, match="no weights `openal` of `ViT-B-32`"):
        CLIP(CLIP.Config(pretrained="openal"))
    with pytest.raises(SettingError, match="tokenizer"):
        CLIP(CLIP.Config(model="coca_ViT-B-32", pretrained="laion2b_s13b_b90k"))
    with pytest.raises(DataError, match="not the weights of `clip\\[model=ViT-S-16-alt\\]`"):
        CLIP(CLIP.Config(model="ViT-S-16-alt", pretrained="none", weights=str(path)))


@pytest.mark.slow
def test_two_files_have_two_protocols(tiny, tmp_path):
    path, _, ours = tiny
    state = torch.load(path)
    state["logit_scale"] = state["logit_scale"] + 1
    torch.save(state, tmp_path / "other.pt")
    other = CLIP(CLIP.Config(model=TINY, pretrained="none", weights=str(tmp_path / "other.pt")))
    assert other.protocol()["sha256"] != ours.protocol()["sha256"]
    assert ours.protocol()["resize"] == "Pillow bicubic, 8 bits, short side to 224, centre crop"
