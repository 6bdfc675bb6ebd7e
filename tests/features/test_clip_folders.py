"""CLIP models from folders and repositories, against open_clip, on random weights; and what samplers climb."""

import json
import sys
import warnings

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from genbench.core.errors import DataError, SettingError
from genbench.core.features import SteeringEncoder, build_features
from genbench.core.spec import Ref
from genbench.features.clip import CLIP

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    open_clip = pytest.importorskip("open_clip")

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
MODEL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": TEXT,
}
PICTURES = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic", "resize_mode": "squash"}
CAPTIONS = ["a red square", "Two dogs, running!", ""]


def _written(folder, *, text=None, pictures=PICTURES, weights=True):
    """A folder as open_clip pushes one to the hub."""
    config = {**MODEL, "text_cfg": {**TEXT, **(text or {})}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pictures}))
    torch.manual_seed(0)
    kept = {key: value for key, value in config["text_cfg"].items() if key != "hf_tokenizer_name"}
    network = open_clip.CLIP(**{**config, "text_cfg": kept}).eval().requires_grad_(False)
    if weights:
        save_file(
            {name: value.clone() for name, value in network.state_dict().items()},
            folder / "open_clip_model.safetensors",
        )
    return network


def _random(num=3, side=20):
    return torch.randint(0, 256, (num, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("mine")
    return path, _written(path)


def test_a_folder_gives_the_embeddings_of_open_clip(folder):
    path, network = folder
    ours = build_features(Ref(name="clip", config={"model": str(path)}))
    theirs, transform = open_clip.create_model_from_pretrained(f"local-dir:{path}")
    images = _random()
    shown = torch.stack([transform(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    assert torch.equal(ours.prepared(images), shown)
    tokens = open_clip.get_tokenizer(f"local-dir:{path}")(CAPTIONS)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.eval().encode_image(shown), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.encode_text(CAPTIONS), theirs.encode_text(tokens), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.encode_text(CAPTIONS), network.encode_text(tokens), rtol=1e-5, atol=1e-5)
    assert ours.num_features == 24
    assert (ours.protocol()["model"], ours.protocol()["pretrained"]) == (path.name, "its own")


def test_a_repository_is_fetched_by_the_hubs_own_client_and_read_as_a_folder(folder, monkeypatch):
    path, _ = folder
    asked = []

    def fetched(repository, **_):
        asked.append(repository)
        return str(path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    ours = CLIP(CLIP.Config(model="hf-hub:somebody/something"))
    assert set(asked) == {"somebody/something"}
    assert ours.protocol()["model"] == "hf-hub:somebody/something"
    assert torch.equal(ours(_random()), CLIP(CLIP.Config(model=str(path)))(_random()))

    def refused(repository, **_):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    with pytest.raises(DataError, match="`somebody/something` cannot be fetched: no network"):
        CLIP(CLIP.Config(model="hf-hub:somebody/something"))


def test_folders_that_describe_no_model_are_refused(tmp_path):
    with pytest.raises(DataError, match="no `open_clip_config"):
        CLIP(CLIP.Config(model=str(tmp_path)))
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 3}}')
    with pytest.raises(DataError, match="lacks"):
        CLIP(CLIP.Config(model=str(tmp_path)))
    _written(tmp_path, weights=False)
    with pytest.raises(DataError, match="no weights here"):
        CLIP(CLIP.Config(model=str(tmp_path)))
    _written(tmp_path, pictures={**PICTURES, "interpolation": "bilinear"})
    with pytest.raises(SettingError, match="resized in a way"):
        CLIP(CLIP.Config(model=str(tmp_path)))


def test_a_tokenizer_of_another_library_names_the_extra_where_it_is_missing(tmp_path, monkeypatch):
    _written(tmp_path, text={"hf_tokenizer_name": "somebody/words"})
    monkeypatch.setitem(sys.modules, "transformers", None)  # as if it were not installed
    with pytest.raises(SettingError, match="tokenizer") as caught:
        CLIP(CLIP.Config(model=str(tmp_path)))
    assert "pip install genbench[text]" in str(caught.value.hint)


def test_a_tokenizer_in_the_folder_reads_the_captions(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        tokenizers = pytest.importorskip("tokenizers")
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "a", "red", "square"])}
    inside = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    inside.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=inside, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        tmp_path
    )
    network = _written(tmp_path, text={"hf_tokenizer_name": "somebody/words"})
    ours = CLIP(CLIP.Config(model=str(tmp_path)))
    expected = torch.zeros(2, 16, dtype=torch.int64)
    expected[0, :3], expected[1, :2] = torch.tensor([2, 3, 4]), torch.tensor([3, 1])
    torch.testing.assert_close(
        ours.encode_text(["a red square", "red dog"]), network.encode_text(expected), rtol=1e-5, atol=1e-5
    )


def test_float_pictures_are_embedded_as_whole_numbers_are_and_with_the_gradient_of_finite_differences(folder):
    ours = CLIP(CLIP.Config(model=str(folder[0])))
    assert isinstance(ours, SteeringEncoder)
    images = _random(2, side=32)  # of the network's own size, where nothing is resized
    signed = images.float() / 127.5 - 1.0
    torch.testing.assert_close(ours.embed_signed(signed), ours(images), rtol=1e-4, atol=1e-4)
    assert ours.sharpness == pytest.approx(1 / 0.07, rel=1e-5)
    x = (0.5 * signed).double().requires_grad_()
    ours = ours.double()
    (slope,) = torch.autograd.grad(ours.embed_signed(x).sum(), x)
    along, h = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64), 1e-5
    with torch.no_grad():
        measured = (ours.embed_signed(x + h * along).sum() - ours.embed_signed(x - h * along).sum()) / (2 * h)
    torch.testing.assert_close((slope * along).sum(), measured, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="square"):
        ours.embed_signed(torch.zeros(1, 3, 8, 9))
