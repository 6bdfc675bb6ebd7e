import dataclasses
import math

import pytest
import torch

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.optimal_transport.neural_ot import NeuralOT

SPEC = DataSpec(shape=(3, 8, 8), num_classes=4)
VECTORS = DataSpec(kind="vector", shape=(2,), levels=None, num_classes=2)


def model_of(spec=SPEC, preset="smoke", **changes):
    torch.manual_seed(0)
    return NeuralOT(spec, dataclasses.replace(NeuralOT.presets[preset], **changes))


def batch_of(spec=SPEC, num=16):
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(0, spec.num_classes, (num,), generator=generator)
    if spec.levels is None:
        return Batch(torch.randn(num, *spec.shape, generator=generator), y)
    return Batch(torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8), y)


@pytest.mark.parametrize(("spec", "source"), [(SPEC, "classes"), (VECTORS, "classes"), (VECTORS, "noise")])
def test_the_map_starts_as_the_identity(spec, source):
    model = model_of(spec, "smoke" if spec is SPEC else "vector", source=source)
    x = torch.randn(3, *spec.shape)
    torch.testing.assert_close(model.map(x), x)


def quadratic_potential(model, slopes, offset):
    """f(y) = sum_i a_i y_i^2 / 2 + b y in place of the network's."""

    class Quadratic(torch.nn.Module):
        def forward(self, y):
            return (0.5 * slopes * y.square() + offset * y).sum(1)

    model.potential = Quadratic()


def linear_map(model, factor, shift):
    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor, self.add = torch.nn.Parameter(factor), torch.nn.Parameter(shift)

        def forward(self, x):
            return self.factor * x + self.add

    model.mover = Linear()


def test_the_map_of_gaussians_is_least_at_the_saddle_and_its_value_is_their_distance():
    # From N(0, I) to N(m, diag s^2), T(x) = m + s x and, with c = |x - y|^2 / (2 D), D grad f(y) = y - (y - m) / s.
    m, s = torch.tensor([1.0, -0.5]), torch.tensor([0.5, 2.0])
    model = model_of(VECTORS, "vector")
    quadratic_potential(model, (1.0 - 1.0 / s) / 2, m / s / 2)
    linear_map(model, s.clone(), m.clone())
    data = m + s * torch.randn(200_000, 2)
    loss = model.loss(Batch(data), "map")
    slopes = torch.autograd.grad(loss.total, list(model.mover.parameters()))
    assert all(slope.abs().max() < 1e-5 for slope in slopes)  # least for every x, whatever the draws
    gap = model.loss(Batch(data), "potential").total
    assert gap.abs() < 0.02  # the map reaches the data: their prices agree
    saddle = loss.parts["cost"].item()
    distance = (m.square() + (s - 1.0).square()).sum().item() / 4  # W_2^2 / (2 D)
    assert saddle == pytest.approx(distance, rel=0.02)


@pytest.mark.parametrize(("player", "other"), [("map", "potential"), ("potential", "map")])
@pytest.mark.parametrize("source", ["noise", "classes"])
def test_only_the_named_player_receives_gradient(player, other, source):
    model = model_of(source=source)
    for parameter in model.mover.parameters():
        parameter.data.add_(0.01 * torch.randn_like(parameter))  # the last layer of a shift starts at zero
    model.loss(batch_of(), player).total.backward()
    networks = {"map": model.mover, "potential": model.potential}
    assert any(p.grad is not None and p.grad.any() for p in networks[player].parameters())
    assert all(p.grad is None for p in networks[other].parameters())


def test_classes_are_transported_from_the_first_half_to_the_second():
    model, batch = model_of(VECTORS, "vector", source="classes"), batch_of(VECTORS)
    found = model.loss(batch, "potential").total
    first = batch.y == 0
    by_hand = model.potential(batch.x[first]).mean() - model.potential(batch.x[~first]).mean()  # the map moves nothing
    torch.testing.assert_close(found, by_hand)
    assert int(model.filled) == int(first.sum())
    kept = model.pool[: int(model.filled)]
    torch.testing.assert_close(kept, batch.x[first])
    drawn = model.eval().sample(50, generator=torch.Generator().manual_seed(0))
    assert (torch.cdist(drawn, kept).min(1).values < 1e-6).all()


@pytest.mark.parametrize("spec", [SPEC, VECTORS], ids=["images", "vectors"])
def test_samples_are_what_the_data_are(spec):
    model = model_of(spec, "smoke" if spec is SPEC else "vector").eval()
    drawn = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, *spec.shape)
    assert drawn.dtype == batch_of(spec).x.dtype


@pytest.mark.parametrize("spec", [SPEC, VECTORS], ids=["images", "vectors"])
def test_examples_are_transported_as_they_are_stored(spec):
    model, batch = model_of(spec, "smoke" if spec is SPEC else "vector", source="classes").eval(), batch_of(spec)
    assert torch.equal(model.transport(batch.x), batch.x)  # the map is the identity yet


def test_coarse_noise_costs_its_distance_enlarged_and_is_moved_by_the_generator():
    model = model_of(noise_side=2)
    x = torch.randn(5, 3, 2, 2)
    large = model.placed(x)
    assert large.shape == (5, *SPEC.shape)
    torch.testing.assert_close(model.placed(torch.ones(1, 3, 2, 2)), torch.ones(1, *SPEC.shape))
    torch.manual_seed(3)
    loss = model.loss(batch_of(), "map")
    torch.manual_seed(3)
    x = torch.randn(16, 3, 2, 2)
    cost = 0.5 * (model.placed(x) - model.map(x)).square().mean()
    torch.testing.assert_close(loss.parts["cost"], cost.detach())


@pytest.mark.slow
def test_training_finds_the_map_between_gaussians():
    # Of all maps m + root R x, R a rotation, which have the same law, only R = 1 is optimal.
    m, turn = torch.tensor([1.0, -0.5]), torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    root = turn @ torch.diag(torch.tensor([0.5, 1.5])) @ turn.T
    model = model_of(VECTORS, "vector")
    train(model, Batch(m + torch.randn(20_000, 2) @ root), samples_seen=256 * 4 * 400, seed=0)
    x = torch.randn(20_000, 2)
    moved = model.transport(x)
    off = (moved - (m + x @ root)).square().sum(1).mean() / root.square().sum()
    assert off < 0.02  # the share of the variance that is missed, as papers report it
    distance = m.square().sum() + (root - torch.eye(2)).square().sum()  # W_2^2
    assert (moved - x).square().sum(1).mean().item() == pytest.approx(distance.item(), rel=0.1)


@pytest.mark.slow
def test_training_moves_noise_onto_every_mode():
    data = build_dataset(parse_ref("toy2d[law=gaussians8]")).load("train", range(20_000))
    means = torch.stack([data.x[data.y == k].mean(0) for k in range(8)])
    model = model_of(VECTORS, "vector")
    train(model, data, samples_seen=256 * 4 * 700, seed=0)
    drawn = model.sample(4000, generator=torch.Generator().manual_seed(0))
    near = torch.cdist(drawn, means).min(1)
    assert (near.values < 0.4).float().mean() > 0.88
    shares = torch.bincount(near.indices, minlength=8) / len(drawn)
    assert (shares - 1 / 8).abs().max() < 0.03


def test_what_has_no_classes_is_refused_between_classes():
    with pytest.raises(SettingError, match="between classes"):
        model_of(DataSpec(shape=(3, 8, 8)), source="classes")
    model = model_of(source="classes")
    with pytest.raises(SettingError, match="no class to transport"):
        model.loss(Batch(batch_of().x), "map")
    with pytest.raises(RuntimeError, match="never trained"):
        model.sample(2, generator=torch.Generator().manual_seed(0))
