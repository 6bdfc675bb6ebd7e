"""What the harness adds to training steps: its own and those of a loop written by hand, in turns, with equal weights.

The loop is what a user writes for one model: AdamW, schedule, clipping and an average of weights, and nothing that
makes it serve others. Both train a copy of one model from one seed on the same batches, a few steps each in turn, so
that their weights must agree in every bit; then they have done the same work. Run with `make benchmarks`; CPU seconds
of the process, which a busy machine disturbs least.
"""

from __future__ import annotations

import copy
import math
import time

import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.evidence import subset
from genbench.harness.train import Turns, begin
from genbench.prob.rounds import quantile_interval

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MOST = 0.02
"""Share of the loop's own time that the harness may add."""
NUM_EXAMPLES, SEED = 512, 3
STEPS_AND_PAIRS = {"ddpm": (1, 60), "vae": (2, 150)}
"""Steps of one turn, and how many pairs of turns."""


def _by_hand(model, data, *, num_steps, seed):
    """The training of a model of one player, written out: one step for each `next`, the average in place at the end."""
    (phase,) = model.phases()
    (player,) = phase.players
    batches = _batches(model, data, seed=seed)
    parameters = [parameter for module in player.modules for parameter in module.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, lr=player.lr, betas=player.betas, weight_decay=player.weight_decay, fused=True
    )

    def share(step):
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / num_steps)))
        warmup = min(1.0, (step + 1) / (player.warmup_steps + 1))
        return warmup * (player.final_lr_share + (1 - player.final_lr_share) * cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    average = [parameter.detach().clone() for parameter in parameters]
    for step in range(num_steps):
        loss = model.loss(data[next(batches)], player.name).total
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, player.clip_norm, foreach=True)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(player.ema_decay, (1 + step) / (10 + step)))
        yield
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)


def _batches(model, data, *, seed):
    """Shuffled epochs cut into batches, after the examples with which the model has prepared itself."""
    (phase,) = model.phases()
    shuffle = torch.Generator().manual_seed(seed)
    model.train()
    waiting = torch.randperm(len(data), generator=shuffle)
    model.prepare(data[waiting[:256]])
    waiting = waiting[256:]
    while True:
        if len(waiting) < phase.batch_size:
            waiting = torch.cat([waiting, torch.randperm(len(data), generator=shuffle)])
        yield waiting[: phase.batch_size]
        waiting = waiting[phase.batch_size :]


def _by_harness(model, data, *, num_steps, seed):
    """The same by the harness's own parts."""
    (phase,) = model.phases()
    batches = begin(model, data, seed=seed)(phase.batch_size)
    turns = Turns(
        model,
        phase,
        batch_size=phase.batch_size,
        samples_total=num_steps * phase.batch_size,
        precision="float32",
    )
    for _ in range(num_steps):
        turns.play(lambda: data[next(batches)])
        yield
    turns.end()


class Side:
    """One of two trainings, with a random stream of its own."""

    def __init__(self, training, model, data, *, num_steps):
        self.model = copy.deepcopy(model)
        torch.manual_seed(SEED)
        self._training = training(self.model, data, num_steps=num_steps, seed=SEED)
        self._stream = torch.get_rng_state()

    def steps(self, count):
        """Take some steps; CPU seconds."""
        torch.set_rng_state(self._stream)
        before = time.process_time()
        for _ in range(count):
            next(self._training)
        seconds = time.process_time() - before
        self._stream = torch.get_rng_state()
        return seconds

    def end(self):
        """What comes after the last step."""
        assert next(self._training, "ended") == "ended"


@pytest.mark.parametrize("name", STEPS_AND_PAIRS)
def test_the_harness_adds_two_per_cent_to_a_step_at_most(benchmark, name):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    dataset = build_dataset(parse_ref("shapes[resolution=32]"))
    data = subset(dataset, "train", NUM_EXAMPLES)
    torch.manual_seed(SEED)
    fresh = build_model(MODELS.get(name), dataset.spec, preset="small", settings={}, owner=name)
    count, num_pairs = STEPS_AND_PAIRS[name]
    num_steps = count * (num_pairs + 1)
    hand, harness = (Side(training, fresh, data, num_steps=num_steps) for training in (_by_hand, _by_harness))
    hand.steps(count), harness.steps(count)  # warm
    ratios = []
    for pair in range(num_pairs):
        first, second = (hand, harness) if pair % 2 else (harness, hand)
        seconds = {side: side.steps(count) for side in (first, second)}
        ratios.append(seconds[harness] / seconds[hand])
    hand.end(), harness.end()
    weights, other = hand.model.state_dict(), harness.model.state_dict()
    assert all(torch.equal(weights[key], other[key]) for key in weights)
    assert any(not torch.equal(weights[key], value) for key, value in fresh.state_dict().items())
    middle, low, high = quantile_interval(ratios, 0.5)
    added = [100 * (value - 1) for value in (middle, low, high)]
    benchmark.extra_info.update(ratios=ratios, added_percent=added)
    benchmark.pedantic(lambda: None, rounds=1)
    shown = f"the harness adds {added[0]:+.2f} % ({added[1]:+.2f} .. {added[2]:+.2f}) in {num_pairs} pairs"
    print(shown)  # noqa: T201 - what was measured is the point of this test
    assert high < 1 + MOST, shown
