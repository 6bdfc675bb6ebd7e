"""The training loop: budgets, turns, phases, averages, determinism, divergence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, Loss, Phase, Player, SelfTraining
from genbench.core.spec import TimingEffort
from genbench.harness.train import DivergedError, lr_share, train

EFFORT = TimingEffort(warmup_steps=1, min_block_seconds=0.001, latency_requests=0)
SPEC = DataSpec(shape=(1, 2, 2), levels=4)


class Duel(GenerativeModel):
    """Two players with a parameter each; the log of turns is the oracle."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        ema_decay: float | None = None
        lr: float = 0.1

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        self.config = config
        self.a = nn.Linear(1, 1, bias=False)
        self.b = nn.Linear(1, 1, bias=False)
        self.turns: list[str] = []
        self.batches: list[torch.Tensor] = []
        self.weights: list[float] = []
        self.prepared = 0

    def prepare(self, batch: Batch) -> None:
        self.prepared += 1

    def phases(self):
        a = Player(name="a", modules=(self.a,), lr=self.config.lr, turns=3, ema_decay=self.config.ema_decay)
        b = Player(name="b", modules=(self.b,), lr=self.config.lr)
        both = Phase(name="both", share=0.75, players=(a, b), batch_size=4)
        return (both, Phase(name="alone", share=0.25, players=(b,), batch_size=8))

    def loss(self, batch: Batch, player: str) -> Loss:
        self.turns.append(player)
        self.batches.append(batch.x)
        assert self.a.weight.requires_grad == (player == "a")
        assert self.b.weight.requires_grad == (player == "b")
        self.weights.append(self.a.weight.item())
        own = self.a if player == "a" else self.b
        return Loss((own.weight**2).sum())

    def sample(self, num_samples: int, *, generator: torch.Generator) -> torch.Tensor:
        return torch.randint(4, (num_samples, 1, 2, 2), generator=generator).to(torch.uint8)


def _data(count: int = 64) -> Batch:
    return Batch(torch.arange(count, dtype=torch.uint8).remainder(4).reshape(count, 1, 1, 1).expand(-1, 1, 2, 2))


def test_a_budget_is_shared_over_phases_and_every_turn_counts():
    model = Duel(SPEC, Duel.Config())
    training = train(model, _data(), samples_seen=640, seed=0, effort=EFFORT)
    rounds = 640 * 3 // 4 // 16  # four turns of four
    assert model.turns == ["a", "a", "a", "b"] * rounds + ["b"] * (160 // 8)
    assert training.samples_seen == 640
    assert model.prepared == 1


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    def order(seed: int) -> torch.Tensor:
        model = Duel(SPEC, Duel.Config())
        train(
            model,
            Batch(torch.arange(64, dtype=torch.uint8).reshape(64, 1, 1, 1)),
            samples_seen=320,
            seed=seed,
            effort=EFFORT,
        )
        return torch.cat([batch.flatten() for batch in model.batches])

    assert torch.equal(order(0), order(0))
    assert not torch.equal(order(0), order(1))


def test_an_epoch_shows_every_example_once():
    model = Duel(SPEC, Duel.Config())
    data = Batch(torch.arange(60, dtype=torch.uint8).reshape(60, 1, 1, 1))
    train(model, data, samples_seen=16 * 40, seed=0, effort=EFFORT)
    shown = torch.cat([batch.flatten() for batch in model.batches])
    rest = shown[: len(shown) // 60 * 60].reshape(-1, 60)
    # preparation takes the first 60 of the stream, so epochs stay aligned
    assert all(sorted(epoch.tolist()) == list(range(60)) for epoch in rest)


def test_the_average_of_the_weights_is_what_is_kept():
    torch.manual_seed(0)
    model = Duel(SPEC, Duel.Config(ema_decay=0.5, lr=0.01))
    train(model, _data(), samples_seen=64, seed=0, effort=EFFORT)
    # weights seen at the start of turn t are those after step t-1; replay the average by hand
    turns_of_a = [i for i, player in enumerate(model.turns) if player == "a"]
    values = [model.weights[i] for i in turns_of_a]
    after = [model.weights[i + 1] for i in turns_of_a]
    average = values[0]
    for step, value in enumerate(after):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert model.a.weight.item() == pytest.approx(average, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_training_and_says_when():
    class Diverging(Duel):
        def loss(self, batch: Batch, player: str) -> Loss:
            return Loss(super().loss(batch, player).total * (float("nan") if len(self.turns) > 20 else 1.0))

    with pytest.raises(DivergedError, match="the loss of phase `both` is nan"):
        train(Diverging(SPEC, Duel.Config()), _data(), samples_seen=640, seed=0, effort=EFFORT)


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine():
    player = Player(name="p", modules=(), lr=1.0, warmup_steps=4, final_lr_share=0.1)
    shares = [lr_share(player, step, 100) for step in range(101)]
    assert shares[:4] == pytest.approx([0.2 * (i + 1) for i in range(4)], rel=1e-2)
    assert shares[50] == pytest.approx(0.55)
    assert shares[100] == pytest.approx(0.1)
    flat = Player(name="p", modules=(), lr=1.0)
    assert {lr_share(flat, step, 10) for step in range(11)} == {1.0}


def test_a_model_with_its_own_optimiser_is_stepped_by_the_same_loop():
    class Own(Duel, SelfTraining):
        def phases(self):
            return (Phase(name="own", share=1.0, players=(Player(name="own", modules=(), lr=0.0),), batch_size=8),)

        def train_step(self, batch: Batch) -> torch.Tensor:
            self.turns.append("own")
            return torch.zeros(())

    model = Own(SPEC, Duel.Config())
    assert train(model, _data(), samples_seen=80, seed=0, effort=EFFORT).samples_seen == 80
    assert model.turns == ["own"] * 10


def test_rates_come_from_blocks_after_warm_up():
    sounds = dataclasses.replace(SPEC, kind="waveform")
    training = train(Duel(sounds, Duel.Config()), _data(), samples_seen=3200, seed=0, effort=EFFORT)
    rate = training.images_per_second
    assert rate is not None
    assert len(rate.raw) >= 2
    assert rate.unit == "sounds/s"
    assert 0 < rate.p10 <= rate.median <= rate.p90
    assert all(point.samples_total == 3200 for point in training.curve)


class Spiky(GenerativeModel):
    """A weight whose gradient is 1, but for the second step, in which it is `spike`."""

    def __init__(self, spike: float, **limits: float | None) -> None:
        super().__init__(DataSpec(shape=(1, 1, 1), levels=2))
        self.linear = nn.Linear(1, 1, bias=False)
        self.linear.weight.data.zero_()
        self.spike, self.limits = spike, limits
        self.seen: list[float] = []

    def phases(self):
        player = Player(name="all", modules=(self.linear,), lr=0.1, **self.limits)
        return (Phase(name="fit", share=1.0, players=(player,), batch_size=2),)

    def loss(self, batch: Batch, player: str) -> Loss:
        self.seen.append(self.linear.weight.item())
        size = self.spike if len(self.seen) == 2 else 1.0
        return Loss(torch.ones(()) + (size * self.linear.weight - (size * self.linear.weight).detach()).sum())

    def sample(self, num_samples: int, *, generator: torch.Generator) -> torch.Tensor:
        raise NotImplementedError


def _spiked(spike: float, **limits: float | None) -> list[float]:
    model = Spiky(spike, **limits)
    train(model, Batch(torch.zeros(4, 1, 1, 1, dtype=torch.uint8)), samples_seen=8, seed=0)
    return model.seen


@pytest.mark.parametrize("clip_norm", [None, 5.0])
@pytest.mark.parametrize("spike", [10.0, 1e6, float("inf")])
def test_a_step_whose_gradient_is_too_large_leaves_weights_and_optimiser_as_they_were(spike, clip_norm):
    first, second, third, fourth = _spiked(spike, skip_norm=10.0, clip_norm=clip_norm)
    assert (first, second) == (0.0, pytest.approx(-0.1))
    assert third == second
    assert fourth == pytest.approx(-0.2)


def test_a_gradient_below_the_limit_is_followed():
    seen = _spiked(9.99, skip_norm=10.0)
    assert seen[2] < seen[1] - 0.05
