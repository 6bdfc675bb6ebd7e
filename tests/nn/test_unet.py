import pytest
import torch
from torch import nn

from genbench.nn.unet import UNet


def unet(**changes: object) -> UNet:
    settings = {
        "resolution": 8, "width": 8, "multipliers": (1, 2), "num_blocks": 1, "attention_resolution": 4,
    }  # fmt: skip
    torch.manual_seed(0)
    return UNet(3, 3, **{**settings, **changes})


def awake(network: UNet) -> UNet:
    """The network with its zero layers moved, so that every path shows."""
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def num_attentions(network: UNet) -> int:
    return sum(type(module).__name__ == "SpatialAttention" for module in network.modules())


def test_the_network_of_the_paper_has_its_35_7_million_parameters() -> None:
    with torch.device("meta"):
        network = UNet(
            3, 3, resolution=32, width=128, multipliers=(1, 2, 2, 2), num_blocks=2, attention_resolution=16, dropout=0.1
        )
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307
    assert num_attentions(network) == 2 + 1 + 3  # 16 px down, bottom, 16 px up


@pytest.mark.parametrize("size", [1, 5, 7, 8, 14, 16])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
def test_any_size_comes_back_as_it_went_in(size: int, multipliers: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, size, size)
    assert unet(resolution=size, multipliers=multipliers)(x, torch.tensor([1, 9])).shape == x.shape


@pytest.mark.parametrize("size", [8, 28])
def test_patches_are_unstacked_again(size: int) -> None:
    x = torch.randn(2, 3, size, size)
    assert unet(resolution=size, patch=2)(x, torch.tensor([1, 9])).shape == x.shape


def test_patches_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="do not tile 9 px"):
        unet(resolution=9, patch=2)


def test_a_new_network_answers_zero() -> None:
    assert not unet()(torch.randn(2, 3, 8, 8), torch.tensor([1, 9])).any()


def test_time_and_condition_change_the_answer() -> None:
    network, x, t = awake(unet()), torch.randn(2, 3, 8, 8), torch.tensor([5, 5])
    answer = network(x, t)
    assert (answer - network(x, torch.tensor([500, 500]))).abs().max() > 1e-3
    condition = torch.randn(2, network.embedding_dim)
    assert (answer - network(x, t, condition)).abs().max() > 1e-3
    torch.testing.assert_close(network(x, t, torch.zeros_like(condition)), answer)


def test_an_image_does_not_see_its_neighbours_in_the_batch() -> None:
    network, x, t = awake(unet(dropout=0.1)).eval(), torch.randn(3, 3, 8, 8), torch.tensor([5, 50, 500])
    torch.testing.assert_close(network(x[1:2], t[1:2]), network(x, t)[1:2], rtol=1e-4, atol=1e-5)


def test_every_parameter_learns() -> None:
    network = awake(unet())
    network(torch.randn(2, 3, 8, 8), torch.tensor([5, 50])).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_no_heads_leave_attention_out() -> None:
    assert num_attentions(unet(num_heads=0)) == 0
    assert num_attentions(unet()) == 1 + 1 + 2


@pytest.mark.parametrize(("resolution", "level"), [(32, 1), (28, 1), (16, 0), (64, 2)])
def test_the_first_level_small_enough_attends(resolution: int, level: int) -> None:
    network = unet(resolution=resolution, multipliers=(1, 1, 1), attention_resolution=16)
    attending = [not isinstance(stage.blocks[0].attention, nn.Identity) for stage in network.down]
    assert attending == [index == level for index in range(3)]


def test_dropout_acts_in_training_alone() -> None:
    network, x, t = awake(unet(dropout=0.5)), torch.randn(2, 3, 8, 8), torch.tensor([5, 50])
    assert not torch.equal(network(x, t), network(x, t))
    network.eval()
    assert torch.equal(network(x, t), network(x, t))


@pytest.mark.parametrize(("width", "groups"), [(128, 32), (48, 4), (32, 8), (6, 1)])
def test_groups_fit_the_width(width: int, groups: int) -> None:
    assert unet(width=width, num_heads=0).norm.num_groups == groups
