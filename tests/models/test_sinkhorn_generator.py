import dataclasses

import pytest
import torch

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.optimal_transport.sinkhorn_generator import SinkhornGenerator
from genbench.prob.pixels import to_signed
from genbench.prob.sinkhorn import TOLERANCE, own_potential, potentials, sinkhorn_divergence, squared_costs

SPEC = DataSpec(shape=(3, 8, 8))
VECTORS = DataSpec(kind="vector", shape=(2,), levels=None)


def model_of(spec=SPEC, preset="smoke", **changes):
    torch.manual_seed(0)
    return SinkhornGenerator(spec, dataclasses.replace(SinkhornGenerator.presets[preset], **changes))


def batch_of(spec=SPEC, num=16):
    generator = torch.Generator().manual_seed(1)
    if spec.levels is None:
        return Batch(torch.randn(num, *spec.shape, generator=generator))
    return Batch(torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8))


def test_the_loss_is_the_sinkhorn_divergence_of_the_pixels():
    model, batch = model_of(), batch_of()
    torch.manual_seed(3)
    loss = model.loss(batch, "generator").total
    torch.manual_seed(3)
    y, x = model.generated(16, None), to_signed(batch.x, 256)
    epsilon = 0.05 * (torch.cdist(x.flatten(1), x.flatten(1)) ** 2).mean()
    torch.testing.assert_close(loss, sinkhorn_divergence(y, x, epsilon=epsilon, max_steps=200), rtol=1e-3, atol=1e-3)


def test_a_learned_cost_is_between_features_and_is_clipped():
    model, batch = model_of(cost="learned", clip=0.02), batch_of()
    losses = {}
    for player in ("cost", "generator"):
        torch.manual_seed(3)
        losses[player] = model.loss(batch, player).total
    assert max(p.abs().max().item() for p in model.features.parameters()) <= 0.02
    torch.testing.assert_close(losses["cost"], -losses["generator"])  # two sides of one number
    assert losses["generator"] >= 0


@pytest.mark.parametrize(("player", "other"), [("cost", "generator"), ("generator", "cost")])
def test_only_the_named_player_receives_gradient(player, other):
    model = model_of(cost="learned")
    model.loss(batch_of(), player).total.backward()
    networks = {"cost": model.features, "generator": model.generator}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in networks[player].parameters())
    assert all(p.grad is None for p in networks[other].parameters())


def test_the_euclidean_cost_has_one_player():
    (phase,) = model_of().phases()
    assert [player.name for player in phase.players] == ["generator"]
    (phase,) = model_of(cost="learned", cost_turns=3).phases()
    assert [(player.name, player.turns) for player in phase.players] == [("cost", 3), ("generator", 1)]


@pytest.mark.parametrize("spec", [SPEC, VECTORS], ids=["images", "vectors"])
def test_samples_are_what_the_data_are(spec):
    model = model_of(spec, "smoke" if spec is SPEC else "vector").eval()
    drawn = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, *spec.shape)
    assert drawn.dtype == batch_of(spec).x.dtype


@pytest.mark.parametrize("spread", [0.3, 0.8, 1.0])
def test_transports_of_vectors_settle_in_the_steps_of_the_preset(spread):
    config = SinkhornGenerator.presets["vector"]
    data = build_dataset(parse_ref("toy2d[law=gaussians8]")).load("train", range(2 * config.batch_size)).x
    x, y = data[: config.batch_size], spread * data[config.batch_size :]  # generators near their end, and before
    cost = squared_costs(y, x)
    epsilon = config.epsilon_share * squared_costs(x, x).mean()
    assert potentials(cost, epsilon=epsilon, max_steps=config.sinkhorn_steps).off < TOLERANCE
    own = own_potential(squared_costs(y, y), epsilon=epsilon, max_steps=config.sinkhorn_steps)
    assert own.off < TOLERANCE


@pytest.mark.slow
def test_training_moves_the_law_onto_two_modes():
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(0, 2, (4000,), generator=generator) * 2.0 - 1.0
    x = torch.stack([side, torch.zeros(4000)], 1) + 0.1 * torch.randn(4000, 2, generator=generator)
    model = model_of(VECTORS, "vector", batch_size=128)
    train(model, Batch(x), samples_seen=128 * 400, seed=0)
    drawn = model.sample(1000, generator=torch.Generator().manual_seed(0))
    near = torch.cdist(drawn, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert (near.min(1).values < 0.4).float().mean() > 0.85
    assert 0.35 < (near.argmin(1) == 0).float().mean() < 0.65
