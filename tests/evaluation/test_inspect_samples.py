import pytest
import torch

from genbench.core.errors import SampleError
from genbench.evaluation.inspect_samples import Inspection

MANY = torch.randint(0, 256, (201, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
PICTURES = torch.randint(0, 256, (8, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def _inspected(*chunks):
    inspection = Inspection()
    for chunk in chunks:
        inspection.add(chunk)
    inspection.finish()
    return inspection.warnings()


def test_sound_pictures_pass_without_a_word():
    assert _inspected(MANY[:5], MANY[5:]) == ()


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "there are no samples"),
        ([(PICTURES > 99).to(torch.uint8)], "no sample has a value above 1(.|\n)*multiply by 255"),
        ([PICTURES % 3], "no sample has a value above 2"),
        ([torch.full_like(PICTURES, 7)], "of one value throughout"),
        ([PICTURES[:1].expand(6, -1, -1, -1)], "all 6 samples are the same picture"),
    ],
    ids=["none", "0 .. 1 stored as whole numbers", "0 .. 2 stored as whole numbers", "blank", "collapsed"],
)
def test_what_cannot_be_meant_is_refused(chunks, message):
    with pytest.raises(SampleError, match=message):
        _inspected(*chunks)


def test_every_refusal_says_what_to_do():
    for chunks in ([], [PICTURES % 2], [torch.zeros_like(PICTURES)], [PICTURES[:1].expand(6, -1, -1, -1)]):
        with pytest.raises(SampleError) as caught:
            _inspected(*chunks)
        assert caught.value.hint


def test_pictures_of_black_and_white_pass():
    assert _inspected(torch.where(MANY > 99, 255, 0).to(torch.uint8)) == ()


def test_blank_dark_and_repeated_pictures_are_named():
    blank = torch.cat([MANY, torch.zeros_like(MANY[:2])])
    assert _inspected(blank) == (
        "2 of 203 samples are of one value throughout",
        "only 202 of 203 samples are distinct",
    )
    assert "is the range right" in _inspected(MANY // 16)[0]


def test_repeats_in_different_chunks_are_found():
    assert _inspected(MANY, MANY[:3]) == ("only 201 of 204 samples are distinct",)


def test_few_samples_are_named_with_what_they_can_tell():
    (warning,) = _inspected(MANY[:51])
    assert warning == "only 51 samples: even a variance is known to 20 % at best"


def test_pictures_that_were_saved_as_jpeg_are_named():
    inspection = Inspection()
    inspection.add(MANY)
    inspection.add_names(["a/0.JPG", "a/1.jpeg", "a/2.png", "00000003"])
    assert inspection.warnings() == ("2 of 4 samples were saved as JPEG: compression moves every distance",)


def test_a_single_picture_is_no_error():
    assert _inspected(PICTURES[:1]) == ()


def test_counts_bring_the_same_warnings_to_an_inspection_that_saw_nothing():
    first, second = Inspection(), Inspection()
    for chunk in (torch.cat([MANY, torch.zeros_like(MANY[:2])]) // 16, MANY[:3] // 16):
        first.add(chunk)
    second.recall(first.counts())
    assert second.warnings() == first.warnings()
    assert len(second.warnings()) == 3
    second.finish()
