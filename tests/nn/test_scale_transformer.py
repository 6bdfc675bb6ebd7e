"""Who sees whom by the Jacobian, one scale after another as all at once, and refusals."""

import pytest
import torch

from genbench.nn.scale_transformer import ScaleTransformer

SIDES = (1, 2, 3)
SCALES = torch.tensor([0] + [1] * 4 + [2] * 9)


def _made(**settings):
    torch.manual_seed(0)
    sizes = {"width": 12, "num_layers": 2, "num_heads": 3, "sides": SIDES} | settings
    model = ScaleTransformer(num_levels=5, input_dim=4, **sizes)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def test_an_element_depends_on_the_inputs_of_its_own_and_of_earlier_scales_alone():
    model = _made().double()
    inputs = torch.randn(1, 13, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0].square().sum(1), inputs)  # (14, 1, 13, 4)
    depends = jacobian[:, 0].abs().sum(2) > 1e-12
    assert torch.equal(depends, SCALES[:, None] >= SCALES[1:])


@pytest.mark.parametrize("cache", ["growing", "fixed"])
@pytest.mark.parametrize("conditional", [False, True])
def test_scales_one_after_another_equal_a_pass_over_all(cache, conditional):
    model, inputs = _made(), torch.randn(3, 13, 4)
    told = torch.randn(3, 12) if conditional else None
    with torch.no_grad():
        expected, caches, found = model(inputs, told), model.empty_caches(3, cache), []
        for begin, end in ((0, 1), (1, 5), (5, 14)):
            found.append(model(inputs[:, max(0, begin - 1) : end - 1], told, begin=begin, caches=caches))
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_the_condition_reaches_every_element():
    model, inputs = _made(), torch.randn(1, 13, 4).expand(2, -1, -1)
    with torch.no_grad():
        logits = model(inputs, torch.randn(2, 12))
    assert ((logits[0] - logits[1]).abs().amax(1) > 1e-4).all()


def test_a_coarsest_grid_of_several_places_and_heads_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the coarsest grid is one place, found a side of 2"):
        _made(sides=(2, 4))
    with pytest.raises(ValueError, match="a width of 10 does not split into 3 heads"):
        _made(width=10)
