"""Text encoders of Hugging Face's from a folder, against what `transformers` itself makes of the same captions."""

import json
import time
import warnings

import pytest
import torch

from genbench.core.dataset import Batch
from genbench.core.errors import DataError, SettingError
from genbench.core.model import MODELS, build_model
from genbench.data.shapes import Shapes

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")

from genbench.nn.conditioning import Conditioner
from genbench.nn.frozen_text_encoder import FrozenTextEncoder

DATA = Shapes(resolution=8)
NOBODY = "http://127.0.0.1:9"  # the port `discard`, which nobody listens to
SIZES = {
    "bert": lambda words: transformers.BertConfig(
        vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    ),
    "t5": lambda words: transformers.T5Config(vocab_size=words, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2),
    "clip": lambda words: transformers.CLIPTextConfig(
        vocab_size=words,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=1,
        max_position_embeddings=20,
    ),
}
KINDS = {
    "bert": lambda config: transformers.BertModel(config),
    "t5": lambda config: transformers.T5ForConditionalGeneration(config),  # the decoder is left behind
    "clip": lambda config: transformers.CLIPTextModel(config),
}


def _saved(folder, kind, *, seed=0):
    """A small random encoder and a tokenizer of whole words, as `transformers` saves them."""
    words = ["[PAD]", "[EOS]", "[UNK]", *DATA.spec.vocabulary[1:]]
    inside = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    )
    inside.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inside.post_processor = tokenizers.processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inside, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=20
    )
    torch.manual_seed(seed)
    model = KINDS[kind](SIZES[kind](len(words))).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer, model


@pytest.fixture(scope="module", params=["bert", "t5", "clip"])
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, *_saved(folder, request.param)


def test_states_are_those_of_transformers_whatever_stands_beside(saved):
    folder, tokenizer, model = saved
    encoder = FrozenTextEncoder(str(folder), DATA.spec, 24)
    captions = [DATA.spec.caption(row) for row in DATA.load("test", range(6)).text]
    found = encoder.states([captions[0], *captions, "red"])
    theirs = model.get_encoder() if model.config.is_encoder_decoder else model
    for caption, states in zip([captions[0], *captions, "red"], found, strict=True):
        with torch.no_grad():
            expected = theirs(**tokenizer(caption, return_tensors="pt", return_token_type_ids=False))
        torch.testing.assert_close(states, expected.last_hidden_state[0], rtol=1e-4, atol=1e-5)


def test_vectors_are_means_of_tokens_and_padding_changes_nothing(saved):
    encoder = FrozenTextEncoder(str(saved[0]), DATA.spec, 24)
    text = DATA.load("test", range(8)).text
    tokens, vectors = encoder.tokens(text), encoder(text)
    assert vectors.shape == (8, 24)
    for row in range(8):
        alone = encoder.tokens(text[[row]])[0]
        torch.testing.assert_close(tokens[row, : len(alone)], alone)
        assert not tokens[row, len(alone) :].any()
        torch.testing.assert_close(vectors[row], alone.mean(0))
    wider = torch.cat([text, torch.zeros(8, 5, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(encoder(wider), vectors)


def test_only_the_two_maps_are_trained_and_kept(saved):
    encoder = FrozenTextEncoder(str(saved[0]), DATA.spec, 24)
    assert set(encoder.state_dict()) == {"digest", "norm.weight", "norm.bias", "project.weight", "project.bias"}
    encoder(DATA.load("test", range(3)).text).square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_states_remembered_while_sampling_can_be_learnt_from(saved):
    encoder, text = FrozenTextEncoder(str(saved[0]), DATA.spec, 24), DATA.load("test", range(3)).text
    with torch.inference_mode():
        drawn = encoder(text)
    trained = encoder(text)
    trained.sum().backward()
    assert torch.equal(trained, drawn)


def test_weights_trained_with_another_encoder_are_refused(tmp_path):
    for seed in (0, 1):
        _saved(tmp_path / str(seed), "bert", seed=seed)
    one, other = (FrozenTextEncoder(str(tmp_path / str(seed)), DATA.spec, 8) for seed in (0, 1))
    other.load_state_dict(one.state_dict())
    with pytest.raises(DataError, match="not those that this model was trained with"):
        other(DATA.load("test", range(1)).text)


@pytest.mark.parametrize("name", ["ddpm", "edm", "flow_matching", "latent_diffusion"])
def test_models_draw_for_captions_that_a_frozen_encoder_reads(name, tmp_path):
    _saved(tmp_path, "bert")
    settings = {"condition": "text", "text_encoder": str(tmp_path), "num_steps": 3}
    model = build_model(MODELS.get(name), DATA.spec, preset="smoke", settings=settings, owner=name)
    batch = DATA.load("train", range(8))
    model.prepare(batch)
    player = model.phases()[-1].players[0]
    loss = model.loss(batch, player.name)
    loss.total.backward()
    assert loss.total.isfinite()
    assert model.eval().sample_given(batch.text[:2], generator=torch.Generator().manual_seed(0)).shape == (2, 3, 8, 8)
    with pytest.raises(SettingError, match="told no text"):
        build_model(MODELS.get(name), DATA.spec, preset="smoke", settings={"text_encoder": str(tmp_path)}, owner=name)


def test_what_is_no_encoder_says_what_is_wanted(tmp_path):
    for text, message in ((None, "no `config.json` in this folder"), ("{}", "cannot be loaded")):
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            FrozenTextEncoder(str(tmp_path), DATA.spec, 8)
        assert "config.json" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_an_encoder_without_its_tokenizer_is_refused(kind, tmp_path):
    """`transformers` puts an empty one in its place, to which all words are the same."""
    _saved(tmp_path, kind)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(DataError, match="no two words of the captions apart") as caught:
        FrozenTextEncoder(str(tmp_path), DATA.spec, 8)
    assert "the tokenizer's files" in str(caught.value.hint)


def test_an_encoder_in_the_cache_needs_no_network(tmp_path, monkeypatch):
    """The hub keeps files as `models--OWNER--NAME/snapshots/REVISION`."""
    from huggingface_hub import constants

    kept = tmp_path / "models--someone--small"
    _saved(kept / "snapshots" / "1", "bert")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    begun = time.monotonic()
    encoder = FrozenTextEncoder("someone/small", DATA.spec, 24)
    assert time.monotonic() - begun < 10.0  # a network that is tried takes more than 20 s
    assert len(encoder.states(["red"])) == 1


def test_a_cache_that_lacks_files_is_told_at_once_where_nothing_answers(tmp_path, monkeypatch):
    """One of two files of weights, as a download leaves them that ended early."""
    from huggingface_hub import constants

    kept = tmp_path / "models--someone--small"
    _, model = _saved(kept / "snapshots" / "1", "bert")
    first = (kept / "snapshots" / "1" / "model.safetensors").rename(
        kept / "snapshots" / "1" / "model-00001-of-00002.safetensors"
    )
    places = dict.fromkeys(model.state_dict(), first.name) | {"pooler.dense.bias": "model-00002-of-00002.safetensors"}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (kept / "snapshots" / "1" / "model.safetensors.index.json").write_text(json.dumps(index))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    begun = time.monotonic()
    with pytest.raises(DataError, match="`someone/small`: cannot be loaded") as caught:
        FrozenTextEncoder("someone/small", DATA.spec, 24)
    assert time.monotonic() - begun < 10.0
    assert "hf download someone/small --local-dir FOLDER" in str(caught.value.hint)


def test_conditions_are_left_out_as_with_an_encoder_of_ones_own(tmp_path):
    _saved(tmp_path, "t5")
    made = Conditioner(DATA.spec, "text", 12, drop_share=1.0, owner="ddpm", tokens=True, text_encoder=str(tmp_path))
    batch = Batch(torch.zeros(4, 1), text=DATA.load("train", range(4)).text)
    assert torch.equal(made.trained(batch), made.nothing.expand_as(made.trained(batch)))
