"""Episodes: one style and one set of words each, texts that are true of their pictures, splits that share none."""

import numpy as np
import torch

from genbench.core.dataset import PAD
from genbench.core.texts import asks
from genbench.data._wordings import PAIRS, QUESTIONS, STYLES, VOCABULARY
from genbench.data.captioned_shapes import EPISODE, CaptionedShapes, episodes
from genbench.data.shapes import Shapes

DATA = CaptionedShapes(resolution=8)


def test_texts_name_factors_of_their_own_picture_and_no_other_value():
    batch = DATA.load("train", range(400))
    named = DATA.named_factors(batch.x.flatten(0, 1)).view(400, EPISODE, 5)
    assert ((named == -1) | (named == batch.factors)).all()
    assert (named >= 0).any(2).all()


def test_an_episode_uses_one_of_the_two_words_for_each_value():
    texts = episodes("train", np.arange(300))[0]
    for first, second in PAIRS:
        used = [(texts == VOCABULARY.index(word)).flatten(1).any(1) for word in (first, second)]
        assert not (used[0] & used[1]).any()
        assert used[0].any()
        assert used[1].any()


def test_an_episode_names_the_same_factors_in_every_text():
    batch = DATA.load("train", range(300))
    named = DATA.named_factors(batch.x.flatten(0, 1)).view(300, EPISODE, 5) >= 0
    assert (named == named[:, :1]).all()
    asks = batch.y > 0
    assert (named[asks].sum(2) == 1).all()
    assert (named[~asks].sum(2) > 1).all()


def test_every_style_every_question_and_every_task_occurs():
    batch = DATA.load("train", range(400))
    assert batch.y.unique().tolist() == [0, 1, 2]
    assert (asks(batch.x, VOCABULARY) == (batch.y > 0)[:, None]).all()
    said = {DATA.spec.caption(text) for text in batch.x[:, 0]}
    assert all(any(text.startswith(question) for text in said) for question in QUESTIONS)
    named = DATA.named_factors(batch.x[batch.y == 0][:, 0]) >= 0
    assert len({tuple(row.tolist()) for row in named}) == len(STYLES)


def test_a_picture_is_that_of_shapes_with_the_same_factors():
    batch, pictures = DATA.load("test", [3]), Shapes(resolution=8).load("test", range(27, 36))
    assert torch.equal(batch.pictures[0], pictures.x)
    assert torch.equal(batch.factors[0], pictures.factors)


def test_splits_share_no_picture_and_no_wording_stream():
    train, test = DATA.load("train", range(50)), DATA.load("test", range(50))
    assert not torch.equal(train.x, test.x)
    own = {bytes(picture.numpy().tobytes()) for picture in train.pictures.flatten(0, 1)}
    assert not own & {bytes(picture.numpy().tobytes()) for picture in test.pictures.flatten(0, 1)}


def test_an_episode_is_the_same_whatever_it_is_loaded_with_and_at_any_resolution():
    alone, among = DATA.load("novel", [7]), DATA.load("novel", [2, 7, 5])
    assert torch.equal(alone.x[0], among.x[1])
    assert torch.equal(alone.pictures[0], among.pictures[1])
    assert torch.equal(alone.x, CaptionedShapes(resolution=16).load("novel", [7]).x)


def test_either_word_names_a_value_and_two_values_name_none():
    rows = [["a", "scarlet", "disc"], ["red", "upper", "left", "box"], ["red", "blue"], ["left"]]
    texts = torch.full((4, 12), PAD)
    for i, words in enumerate(rows):
        texts[i, : len(words)] = torch.tensor([VOCABULARY.index(word) for word in words])
    shape, colour, _, position, _ = DATA.named_factors(texts).T.tolist()
    assert shape == [0, 1, -1, -1]
    assert colour == [0, 0, -1, -1]
    assert position == [-1, 0, -1, -1]
