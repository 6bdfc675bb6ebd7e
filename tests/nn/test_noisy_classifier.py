import pytest
import torch
from torch.nn import functional as F

from genbench.nn.noisy_classifier import AttentionPool, NoisyClassifier, class_slope


def classifier(**changes: object) -> NoisyClassifier:
    settings = {
        "resolution": 8, "width": 8, "multipliers": (1, 2), "num_blocks": 1, "attention_resolution": 4,
    }  # fmt: skip
    torch.manual_seed(0)
    return NoisyClassifier(3, 5, **{**settings, **changes})


def awake(network: NoisyClassifier) -> NoisyClassifier:
    """The network with its zero layers moved, so that every path shows."""
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("size", [1, 5, 7, 8, 14, 16])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
def test_images_of_any_size_have_one_logit_for_each_class(size: int, multipliers: tuple[int, ...]) -> None:
    network = classifier(resolution=size, multipliers=multipliers)
    assert network(torch.randn(2, 3, size, size), torch.tensor([1, 9])).shape == (2, 5)


def test_patches_are_stacked_and_must_tile() -> None:
    assert classifier(patch=2)(torch.randn(2, 3, 8, 8), torch.tensor([1, 9])).shape == (2, 5)
    with pytest.raises(ValueError, match="do not tile 9 px"):
        classifier(resolution=9, patch=2)


def test_the_time_changes_the_answer() -> None:
    network, x = awake(classifier()), torch.randn(2, 3, 8, 8)
    low, high = (network(x, torch.tensor([t, t])) for t in (5, 500))
    assert (low - high).abs().max() > 1e-3


def test_an_image_does_not_see_its_neighbours_in_the_batch() -> None:
    network, x, t = awake(classifier(dropout=0.1)).eval(), torch.randn(3, 3, 8, 8), torch.tensor([5, 50, 500])
    torch.testing.assert_close(network(x[1:2], t[1:2]), network(x, t)[1:2], rtol=1e-4, atol=1e-5)


def test_every_parameter_learns() -> None:
    network = awake(classifier())
    F.cross_entropy(network(torch.randn(4, 3, 8, 8), torch.tensor([5, 50, 7, 9])), torch.arange(4)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_the_slope_is_the_difference_quotient_of_the_log_probability() -> None:
    network = awake(classifier()).double().eval()
    x, t, y = torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([5, 50, 500]), torch.tensor([4, 0, 2])
    along, width = torch.randn_like(x), 1e-5

    def log_p(at: torch.Tensor) -> torch.Tensor:
        return network(at, t).log_softmax(1)[torch.arange(3), y]

    quotient = (log_p(x + width * along) - log_p(x - width * along)) / (2 * width)
    with torch.no_grad():
        found = class_slope(network, x, t, y)
    torch.testing.assert_close((found * along).flatten(1).sum(1), quotient.detach(), rtol=1e-6, atol=1e-8)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_pooling_attends_from_the_mean_to_the_mean_and_all_places() -> None:
    torch.manual_seed(0)
    pool, x = AttentionPool(8, 3, 4, num_heads=2).double(), torch.randn(2, 8, 3, 3, dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1) + pool.places
    k, v = pool.key_value(tokens).chunk(2, dim=2)
    q = pool.query(tokens[:, 0])
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        share = torch.einsum("bd,bld->bl", q[:, head], k[:, :, head]).div(4**0.5).softmax(1)
        heads.append(torch.einsum("bl,bld->bd", share, v[:, :, head]))
    torch.testing.assert_close(pool(x), pool.out(torch.cat(heads, dim=1)))
    with pytest.raises(ValueError, match="do not split into 3 heads"):
        AttentionPool(8, 3, 4, num_heads=3)
