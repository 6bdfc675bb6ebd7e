"""The CLIP score beside torchmetrics' on the same small random CLIP, from pictures and words to the number."""

import warnings

import pytest
import torch

from genbench.metrics.clip_score import clip_score

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    peer = pytest.importorskip("torchmetrics.functional.multimodal.clip_score")

WORDS = ["[PAD]", "[EOS]", "[UNK]", "a", "red", "blue", "square", "circle"]
CAPTIONS = ["a red square", "a blue circle", "a red circle", "blue", "a blue square a"]


def _processor():
    inside = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    inside.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inside.post_processor = tokenizers.processors.TemplateProcessing(single="$A [EOS]", special_tokens=[("[EOS]", 1)])
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inside, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=20
    )
    size = {"shortest_edge": 32}
    pictures = transformers.CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32})
    return transformers.CLIPProcessor(pictures, words)


def _made():
    text = transformers.CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=1,
        max_position_embeddings=20,
    )
    vision = transformers.CLIPVisionConfig(
        image_size=32, patch_size=16, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=3)
    torch.manual_seed(3)
    return _Plain(config).eval()


class _Plain(transformers.CLIPModel):
    """Embeddings as tensors, which some versions wrap and the peer does not expect."""

    def get_image_features(self, *given, **named):
        return _vectors(super().get_image_features(*given, **named))

    def get_text_features(self, *given, **named):
        return _vectors(super().get_text_features(*given, **named))


def _vectors(found):
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def test_the_score_is_that_of_torchmetrics_for_the_same_model():
    try:
        model, processor = _made(), _processor()
    except ImportError as error:
        pytest.skip(f"the peer lacks a library: {error}")
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with torch.no_grad():
        shown = processor(images=list(images), return_tensors="pt")
        words = processor(text=CAPTIONS, return_tensors="pt", padding=True)
        seen = model.get_image_features(shown["pixel_values"])
        spoken = model.get_text_features(words["input_ids"], words["attention_mask"])
        theirs = float(peer.clip_score(list(images), CAPTIONS, model_name_or_path=lambda: (model, processor)))
    cosines = torch.nn.functional.cosine_similarity(seen.double(), spoken.double())
    assert clip_score(seen, spoken).value == pytest.approx(float(cosines.mean()), abs=1e-7)
    assert theirs == pytest.approx(100 * max(float(cosines.mean()), 0.0), abs=1e-3)
    assert clip_score(seen, spoken, preset="times100").value == pytest.approx(
        100 * float(cosines.clamp(min=0.0).mean()), abs=1e-4
    )
