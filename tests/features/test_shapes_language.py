"""The shipped language model: small, verified, better after more texts, and blind to what comes after."""

import json
import shutil

import numpy as np
import pytest
import torch

from genbench.core.errors import DataError
from genbench.core.features import build_features
from genbench.core.spec import Ref, parse_ref
from genbench.data.captioned_shapes import CaptionedShapes, episodes
from genbench.features.shapes_language import SHIPPED
from genbench.harness.shapes_language_training import held_out_nats
from genbench.nn.transformer import causal


@pytest.fixture(scope="module")
def language():
    return build_features(parse_ref("shapes_language"))


def _logits(language, tokens):
    x = language.embed(tokens)
    for number in range(language.num_layers):
        x = language.layer(number, x, causal)
    return language.logits(x)


def test_the_file_is_small_and_speaks_the_words_of_the_data(language):
    assert SHIPPED.stat().st_size < 1_000_000
    spec = CaptionedShapes().spec
    assert language.vocabulary == spec.vocabulary
    assert (language.num_items, language.length) == spec.shape


def test_words_are_likelier_the_more_texts_stand_before(language):
    described = json.loads(SHIPPED.with_suffix(".json").read_text())["held_out_nats_per_word"]
    values = list(described.values())
    assert values[0] - values[1] > 0.1
    assert values[1] > values[4] > values[8]


@pytest.mark.slow
def test_the_description_gives_the_nats_that_the_file_has(language):
    described = json.loads(SHIPPED.with_suffix(".json").read_text())["held_out_nats_per_word"]
    assert held_out_nats(language.network) == pytest.approx(described, abs=1e-3)


def test_no_logit_depends_on_later_words_and_parts_of_rows_know_their_places(language):
    tokens = torch.randint(0, len(language.vocabulary) + 1, (2, 45))
    logits = _logits(language, tokens)
    changed = tokens.clone()
    changed[:, 20:] = 3
    torch.testing.assert_close(_logits(language, changed)[:, :20], logits[:, :20])
    torch.testing.assert_close(language.embed(tokens)[:, 17:], language.embed(tokens[:, 17:], first=17))


def test_the_features_are_states_of_episodes(language):
    texts = episodes("test", np.arange(5))[0]
    features = language(texts)
    assert features.shape == (5, language.num_features)
    assert not torch.allclose(features[0], features[1])


def test_a_damaged_file_is_refused(tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path / f"language{suffix}")
    with (tmp_path / "language.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="SHA-256"):
        build_features(Ref(name="shapes_language", config={"weights": str(tmp_path / "language.safetensors")}))
