import numpy as np
import torch

from genbench.core.dataset import build_dataset
from genbench.core.spec import parse_ref
from genbench.evaluation.picture_evidence import asked_factors
from genbench.evaluation.pictures import HeldImages, every_picture

SHAPES = build_dataset(parse_ref("shapes[resolution=8]"))


def test_the_factors_of_every_sentence_are_read_back_whichever_split_it_is_of():
    for split in SHAPES.splits:
        batch = SHAPES.load(split, range(30_000, 30_040))
        captions = [SHAPES.spec.caption(tokens).upper() + " " for tokens in batch.text]
        assert torch.equal(asked_factors(SHAPES, captions), batch.factors)


def test_other_words_and_other_sentences_ask_for_nothing_known():
    assert (
        asked_factors(SHAPES, ["a small red circle at the top left on a grey background", "a photo of a dog"]) is None
    )
    assert asked_factors(SHAPES, ["red a circle small"]) is None


def test_data_without_factors_know_no_sentence():
    assert asked_factors(HeldImages(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)), ["a"]) is None


def test_pictures_at_places_come_in_the_order_of_the_places_with_repeats():
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    places = np.array([7, 0, 19, 7])
    assert every_picture(HeldImages(images)).at(places)[:, 0, 0, 0].tolist() == places.tolist()
