import pytest
import torch

from genbench.core.errors import SampleError
from genbench.harness.inspect_samples import Inspection

PICTURES = torch.randint(0, 256, (8, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def _inspected(*chunks):
    inspection = Inspection()
    for chunk in chunks:
        inspection.add(chunk)
    inspection.finish()
    return inspection.warnings()


def test_sound_pictures_pass_without_a_word():
    assert _inspected(PICTURES[:5], PICTURES[5:]) == ()


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "there are no samples"),
        ([(PICTURES > 99).to(torch.uint8)], "multiply by 255|no sample has a value above 1"),
        ([torch.full_like(PICTURES, 7)], "of one value throughout"),
        ([PICTURES[:1].expand(6, -1, -1, -1)], "all 6 samples are the same picture"),
    ],
    ids=["none", "0 .. 1 stored as whole numbers", "blank", "collapsed"],
)
def test_what_cannot_be_meant_is_refused(chunks, message):
    with pytest.raises(SampleError, match=message):
        _inspected(*chunks)


def test_blank_dark_and_repeated_pictures_are_named():
    blank = torch.cat([PICTURES, torch.zeros_like(PICTURES[:2])])
    assert _inspected(blank) == (
        "2 of 10 samples are of one value throughout",
        "only 9 of 10 samples are distinct",
    )
    assert "is the range right" in _inspected(PICTURES // 16)[0]
