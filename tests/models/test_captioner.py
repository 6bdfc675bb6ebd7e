"""The captioner: probabilities that sum to one over all texts, words given those before, one picture at a time."""

import itertools

import torch

from genbench.core.dataset import DataSpec
from genbench.core.model import MODELS, build_model

TINY = DataSpec(kind="text", shape=(2, 3), levels=4, vocabulary=("", "?", "a", "b"), picture_shape=(3, 8, 8))


def _model(spec=TINY):
    torch.manual_seed(0)
    model = build_model(MODELS.get("captioner"), spec, preset="smoke", settings={}, owner="captioner").eval()
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))  # far from uniform
    return model


def _texts():
    """All texts of at most three of the words, padded."""
    texts = [list(words) for n in range(4) for words in itertools.product((1, 2, 3), repeat=n)]
    return torch.tensor([text + [0] * (3 - len(text)) for text in texts], dtype=torch.uint8)


def _pictures(count):
    return torch.randint(0, 256, (count, 1, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_probabilities_sum_to_one_over_all_texts_of_a_picture():
    captions = DataSpec(kind="text", shape=(2, 3), levels=4, vocabulary=("", "c", "a", "b"), picture_shape=(3, 8, 8))
    model, texts = _model(captions), _texts()  # no word ends a question, so that nothing is given
    for picture in _pictures(3):
        found = model.text_log_likelihood(picture[None].expand(len(texts), -1, -1, -1, -1), texts[:, None])
        torch.testing.assert_close(found.exp().sum().item(), 1.0, atol=1e-6, rtol=0.0)


def test_probabilities_of_answers_to_one_question_sum_to_one():
    model, texts = _model(), _texts()
    answers = texts[(texts[:, 0] == 2) & (texts[:, 1] == 1)]  # "a ?" and at most one word
    assert len(answers) == 4
    pictures = _pictures(1).expand(len(answers), -1, -1, -1, -1)
    found = model.text_log_likelihood(pictures, answers[:, None])
    torch.testing.assert_close(found.exp().sum().item(), 1.0, atol=1e-6, rtol=0.0)


def test_words_depend_on_those_before_and_on_the_picture():
    model, texts = _model(), torch.tensor([[2, 3, 2]], dtype=torch.uint8)
    one, other = _pictures(2)
    logits = model(one, texts)
    changed = torch.tensor([[2, 2, 2]], dtype=torch.uint8)
    torch.testing.assert_close(model(one, changed)[:, :2], logits[:, :2])
    assert not torch.allclose(model(one, changed)[:, 2], logits[:, 2], atol=1e-4)
    assert not torch.allclose(model(other, texts), logits, atol=1e-4)


def test_shots_play_no_part():
    model = _model()
    pictures = torch.cat([_pictures(4), _pictures(4).flip(0)], dim=1)
    texts = torch.randint(1, 4, (4, 2, 3), dtype=torch.uint8)
    alone = model.text_log_likelihood(pictures[:, 1:], texts[:, 1:])
    assert torch.equal(model.text_log_likelihood(pictures, texts), alone)


def test_texts_written_with_kept_keys_are_those_written_without():
    model, pictures = _model(), _pictures(8)
    naive = torch.zeros(8, 3, dtype=torch.uint8)
    for place in range(3):
        chosen = model(pictures[:, 0], naive)[:, place].argmax(1).to(torch.uint8)
        naive[:, place] = chosen if place == 0 else torch.where(naive[:, place - 1] == 0, 0, chosen)
    said = model.describe(pictures, torch.zeros(8, 1, 3, dtype=torch.uint8), generator=None)
    assert torch.equal(said, naive)


def test_drawn_texts_have_the_frequencies_of_their_probabilities():
    captions = DataSpec(kind="text", shape=(1, 2), levels=3, vocabulary=("", "a", "b"), picture_shape=(3, 8, 8))
    model, count = _model(captions), 20_000
    picture = _pictures(1)
    empty = torch.zeros(count, 1, 2, dtype=torch.uint8)
    drawn = model.describe(picture.expand(count, -1, -1, -1, -1), empty, generator=torch.Generator().manual_seed(0))
    texts = torch.tensor([[0, 0], [1, 0], [2, 0], [1, 1], [1, 2], [2, 1], [2, 2]], dtype=torch.uint8)
    expected = model.text_log_likelihood(picture.expand(7, -1, -1, -1, -1), texts[:, None]).exp()
    seen = torch.stack([(drawn == text).all(1).double().mean() for text in texts])
    assert ((seen - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt() + 1e-4).all()
