import pytest
import torch

from genbench.evaluation.sound_damage import KINDS, damaged_sounds


def test_damage_keeps_shape_and_type_and_half_the_sounds():
    codes = torch.randint(256, (100, 1, 64), dtype=torch.uint8)
    found = damaged_sounds(codes, generator=torch.Generator().manual_seed(0))
    assert found.codes.shape == codes.shape
    assert found.codes.dtype == torch.uint8
    assert torch.equal(found.codes[:50], codes[:50])
    assert (found.grade[:50] == 0).all()
    assert found.legible[:50].all()
    assert not (found.legible & found.meaningless).any()
    assert sum(kind.share for kind in KINDS) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.damage.__name__)
@pytest.mark.parametrize("length", [64, 512])
def test_every_kind_of_damage_gives_one_grade_per_sound_and_the_same_for_the_same_seed(kind, length):
    sounds = 0.5 * torch.randn(7, 1, length)
    first, grade = kind.damage(sounds.clone(), torch.Generator().manual_seed(3))
    again, _ = kind.damage(sounds.clone(), torch.Generator().manual_seed(3))
    assert first.shape == sounds.shape
    assert grade.shape == (7,)
    assert torch.equal(first, again)
    assert (kind.damage.__name__ == "untouched") == torch.equal(first, sounds)
