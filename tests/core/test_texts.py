"""What of a text is given, what counts, and where it ends."""

import torch

from genbench.core.texts import asks, counted, ended, num_given, questions_of

WORDS = ("", "?", "what", "red", "it")
TEXTS = torch.tensor([[2, 4, 1, 3, 0, 0], [3, 4, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0]])


def test_a_question_ends_with_its_mark_and_a_caption_has_none():
    assert num_given(TEXTS, WORDS).tolist() == [3, 0, 0, 0]
    assert questions_of(TEXTS, WORDS).tolist() == [[2, 4, 1, 0, 0, 0], [0] * 6, [0] * 6, [0] * 6]
    assert num_given(TEXTS, ("", "a", "b", "c", "d")).tolist() == [0, 0, 0, 0]


def test_a_request_to_describe_is_no_question():
    words = ("", "?", "describe", "red", "it")
    assert asks(TEXTS, WORDS).tolist() == [True, False, False, False]
    assert asks(TEXTS, words).tolist() == [False] * 4


def test_words_and_the_first_padding_after_them_end_a_text_and_a_full_one_has_no_end():
    assert ended(TEXTS).sum(1).tolist() == [5, 3, 6, 1]
    assert ended(torch.tensor([[3, 0, 0]])).tolist() == [[True, True, False]]


def test_a_likelihood_counts_what_follows_the_question():
    assert counted(TEXTS, WORDS).tolist()[0] == [False, False, False, True, True, False]
    assert counted(TEXTS, WORDS).sum(1).tolist() == [2, 3, 6, 1]
