"""The transformer within a transformer is a normalised law, sees the past alone, and draws itself."""

import itertools

import pytest
import torch

from genbench.nn._categorical_head import draw
from genbench.nn.patch_transformer import PatchTransformer


def _made(num_levels=3, num_patches=2, patch_size=2, **settings):
    """A network off its starting point, whose softmax is far from uniform."""
    torch.manual_seed(0)
    sizes = {"width": 12, "num_layers": 2, "num_heads": 3, "inner_width": 8, "inner_layers": 1, "inner_heads": 2}
    model = PatchTransformer(
        num_levels=num_levels, num_patches=num_patches, patch_size=patch_size, **(sizes | settings)
    )
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _every(num_levels, num_patches, patch_size):
    every = torch.tensor(list(itertools.product(range(num_levels), repeat=num_patches * patch_size)))
    return every.view(-1, num_patches, patch_size)


@pytest.mark.parametrize(("num_levels", "num_patches", "patch_size"), [(3, 2, 2), (2, 4, 1), (4, 1, 3), (2, 2, 3)])
@pytest.mark.parametrize("inner_layers", [0, 1])
def test_probabilities_of_all_images_sum_to_one(num_levels, num_patches, patch_size, inner_layers):
    model = _made(num_levels, num_patches, patch_size, inner_layers=inner_layers).double()
    told = torch.randn(1, 12, dtype=torch.float64)
    for condition in (None, told):
        log_probs = model.log_prob(_every(num_levels, num_patches, patch_size), condition)
        assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
        assert log_probs.std() > 0.1


def test_a_change_of_one_level_moves_all_logits_after_it_and_no_others():
    model = _made(5, 3, 2).double()
    codes = torch.randint(5, (1, 3, 2), generator=_generator())
    with torch.no_grad():
        before = model(codes).flatten(1, 2)
        for changed in range(6):
            other = codes.clone()
            other.view(-1)[changed] = (other.view(-1)[changed] + 1) % 5
            moved = (model(other).flatten(1, 2) - before)[0].abs().amax(1) > 1e-9
            assert moved.tolist() == [place > changed for place in range(6)]


def test_the_mean_is_that_of_the_log_probabilities():
    model = _made(5, 3, 2)
    codes, told = torch.randint(5, (4, 3, 2), generator=_generator()), torch.randn(4, 12)
    torch.testing.assert_close(model.mean_nll(codes, told), -model.log_prob(codes, told).mean() / 6)


@pytest.mark.parametrize("cache", ["growing", "fixed"])
@pytest.mark.parametrize("conditional", [False, True])
def test_samples_with_caches_equal_those_of_whole_passes(cache, conditional):
    model, count = _made(6, 4, 3), 16
    told = torch.randn(count, 12) if conditional else None
    found = model.sample(count, generator=_generator(3), told=told, cache=cache)
    uniforms = torch.rand(count, 4, 3, generator=_generator(3))
    codes = torch.zeros(count, 4, 3, dtype=torch.int64)
    with torch.no_grad():
        for t, m in itertools.product(range(4), range(3)):
            codes[:, t, m] = draw(model(codes, told)[:, t, m], uniforms[:, t, m])
    assert torch.equal(found, codes)
    assert len(found.flatten(1).unique(dim=0)) > 8


def test_samples_follow_the_probabilities():
    model, count = _made(3, 2, 2), 20_000
    every = _every(3, 2, 2)
    expected = model.log_prob(every).exp().detach()
    draws = model.sample(count, generator=_generator()).flatten(1) @ torch.tensor([27, 9, 3, 1])
    found = torch.bincount(draws, minlength=81) / count
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread + 1e-9).all())


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="a width of 10 does not split into 3 heads"):
        _made(width=10)
