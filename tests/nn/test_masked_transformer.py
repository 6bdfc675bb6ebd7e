"""Hidden codes are alike, shown ones have influence on all places, and logits are products with the vectors."""

import pytest
import torch

from genbench.nn.masked_transformer import MaskedTransformer


def _made(num_levels=5, length=6, **settings):
    torch.manual_seed(0)
    sizes = {"width": 12, "num_layers": 2, "num_heads": 3} | settings
    model = MaskedTransformer(num_levels=num_levels, length=length, **sizes)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def test_a_change_of_one_shown_code_moves_the_logits_of_every_place():
    model, codes = _made(), torch.tensor([[0, 1, 5, 3, 5, 2]])
    with torch.no_grad():
        before = model(codes)
        for changed in (0, 1, 3, 5):
            other = codes.clone()
            other[0, changed] = (other[0, changed] + 1) % 5
            assert ((model(other) - before)[0].abs().amax(1) > 1e-4).all()


def test_places_and_the_condition_count_and_are_told_apart():
    model, codes = _made(), torch.full((2, 6), 5)
    with torch.no_grad():
        alone = model(codes)
        assert torch.cdist(alone[0], alone[0]).fill_diagonal_(1.0).min() > 1e-3
        told = model(codes, torch.randn(2, 12))
    assert alone.shape == told.shape == (2, 6, 5)
    torch.testing.assert_close(alone[0], alone[1])
    assert ((told[0] - told[1]).abs().amax(1) > 1e-4).all()


def test_a_level_whose_vector_is_moved_has_other_logits_and_the_others_keep_theirs():
    model, codes = _made(), torch.full((1, 6), 5)
    with torch.no_grad():
        before = model(codes)
        model.embedding.weight[2] += 1.0
        moved = (model(codes) - before).abs().amax((0, 1)) > 1e-5
    assert moved.tolist() == [False, False, True, False, False]


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="a width of 10 does not split into 3 heads"):
        _made(width=10)
