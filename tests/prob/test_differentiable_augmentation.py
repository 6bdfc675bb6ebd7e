import pytest
import torch

from genbench.prob import differentiable_augmentation as aug
from genbench.prob.differentiable_augmentation import augmented, cut_out, recoloured, translated

EVERYTHING = "color+translation+cutout"


def images(num=64, side=8, **kind):
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(0), **kind)


def test_translation_moves_whole_images_by_at_most_an_eighth_and_brings_in_zeros():
    torch.manual_seed(0)
    x = images(200, 16)
    moved, seen = translated(x), set()
    for before, after in zip(x, moved, strict=True):
        wide = torch.zeros(3, 20, 20)
        wide[:, 2:18, 2:18] = before
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(wide[:, i : i + 16, j : j + 16], after)]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 25


def test_cutout_hides_a_square_of_half_the_side_cut_off_at_the_edges():
    torch.manual_seed(0)
    kept = cut_out(torch.ones(500, 1, 8, 8))[:, 0]
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    hidden = 1 - kept
    rows, columns = hidden.amax(2), hidden.amax(1)
    assert torch.equal(hidden, rows[:, :, None] * columns[:, None, :])
    assert rows.sum(1).max() == columns.sum(1).max() == 4
    assert rows.sum(1).min() == 2
    assert (hidden.mean(0) > 0).all()


def test_colours_change_affinely_within_their_ranges():
    # Of an image that is grey and flat only brightness is seen; the mean over all of it moves by brightness alone.
    torch.manual_seed(0)
    flat = recoloured(torch.full((400, 3, 4, 4), 0.25, dtype=torch.float64)) - 0.25
    assert flat.abs().max() <= aug.BRIGHTNESS
    assert flat.abs().max() > 0.9 * aug.BRIGHTNESS
    torch.testing.assert_close(flat, flat[:, :1, :1, :1].expand_as(flat))
    x = images(400, dtype=torch.float64)
    changed = recoloured(x)
    inner = x - x.mean((1, 2, 3), keepdim=True)
    grey = inner.mean(1, keepdim=True)
    changed = changed - changed.mean((1, 2, 3), keepdim=True)
    contrast = (changed.mean(1, keepdim=True) / grey).flatten(1)
    torch.testing.assert_close(contrast, contrast[:, :1].expand_as(contrast))
    assert 0.5 <= contrast.min() < contrast.max() <= 1.5
    saturation = ((changed - changed.mean(1, keepdim=True)) / (inner - grey)).flatten(1) / contrast[:, :1]
    torch.testing.assert_close(saturation, saturation[:, :1].expand_as(saturation), rtol=1e-6, atol=1e-9)
    assert 0 <= saturation.min() < saturation.max() <= 2


def test_gradients_pass_through_all_of_it_twice():
    torch.manual_seed(0)
    x = images(2, 4, dtype=torch.float64)[:, :, :4, :4].requires_grad_()

    def drawn_alike(x):
        torch.manual_seed(3)
        return augmented(x, EVERYTHING)

    assert torch.autograd.gradcheck(drawn_alike, x)
    assert torch.autograd.gradgradcheck(drawn_alike, x)


@pytest.mark.parametrize("policy", ["color", "translation", "cutout", EVERYTHING])
def test_one_seed_does_the_same_to_real_and_to_generated_images(policy):
    # Every transformation is linear in the image up to brightness, so differences of two tell whether T was the same.
    real, fake = images(), -images().flip(0)

    def drawn_alike(x):
        torch.manual_seed(5)
        return augmented(x, policy)

    nothing = drawn_alike(torch.zeros_like(real))
    torch.testing.assert_close(drawn_alike(real + fake) - nothing, drawn_alike(real) + drawn_alike(fake) - 2 * nothing)
    assert not torch.equal(drawn_alike(real), real)


def test_no_policy_changes_nothing_and_an_unknown_one_is_named():
    x = images()
    assert augmented(x, "") is x
    with pytest.raises(ValueError, match="unknown augmentation 'flip', expected color, translation, cutout"):
        augmented(x, "color+flip")
