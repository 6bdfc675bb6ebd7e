"""What the harness adds to a training: whole trainings by it and by a loop of one's own, in turns, with equal weights.

The loop is what a user writes by hand for one model: AdamW, schedule, clipping and an average of weights, and nothing
that makes it serve others. Both train a fresh copy of one model from one seed on the same batches, so that their
weights must agree in every bit; then they have done the same work. Run with `make benchmarks`; CPU seconds of the
process, which a busy machine disturbs least.
"""

from __future__ import annotations

import copy
import itertools
import math
import time

import pytest
import torch

from genbench.core.bench import EFFORTS
from genbench.core.dataset import build_dataset
from genbench.core.model import MODELS, build_model
from genbench.core.spec import TimingEffort, parse_ref
from genbench.harness.evidence import subset
from genbench.harness.train import PREPARATION_EXAMPLES, train
from genbench.prob.rounds import paired_log_ratio
from genbench.regression.rule import Rule
from genbench.timing.alternating import alternating_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MOST = 0.02
"""Share of the loop's own time that the harness may add."""
RULE = Rule(tolerance=MOST, max_rounds=45)
NUM_EXAMPLES, SEED = 512, 3
STEPS = {"ddpm": 4, "vae": 10}
"""Of one training: about a second on a core."""
ONE_CALL = EFFORTS["smoke"].model_copy(update={"block_seconds": 1e-3, "min_seconds": 0.0})


class ProcessClock:
    """CPU seconds of this process."""

    def synchronise(self):
        pass

    def now(self):
        return time.process_time()

    def mark(self):
        return None

    def seconds_between(self, first, second):
        raise AssertionError("a clock without marks")

    def hold(self, seconds):
        pass


def _by_hand(model, data, *, num_steps, seed):
    """The training of a model of one player, written out."""
    (phase,) = model.phases()
    (player,) = phase.players
    torch.manual_seed(seed)
    shuffle = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(len(data), generator=shuffle) for _ in range(2 + num_steps)])
    model.train()
    model.prepare(data[order[:PREPARATION_EXAMPLES]])
    batches = order[PREPARATION_EXAMPLES:].split(phase.batch_size)
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
        loss = model.loss(data[batches[step]], player.name).total
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, player.clip_norm, foreach=True)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - min(player.ema_decay, (1 + step) / (10 + step)))
    with torch.no_grad():
        torch._foreach_copy_(parameters, average)
    model.eval()


@pytest.mark.parametrize("name", STEPS)
def test_the_harness_adds_two_per_cent_to_a_training_at_most(benchmark, name):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    dataset = build_dataset(parse_ref("shapes[resolution=32]"))
    data = subset(dataset, "train", NUM_EXAMPLES)
    torch.manual_seed(SEED)
    fresh = build_model(MODELS.get(name), dataset.spec, preset="small", settings={}, owner=name)
    num_steps, (phase,) = STEPS[name], fresh.phases()
    made = {}

    def by_hand():
        made["by hand"] = copy.deepcopy(fresh)
        _by_hand(made["by hand"], data, num_steps=num_steps, seed=SEED)

    def by_harness():
        made["by harness"] = copy.deepcopy(fresh)
        seen = num_steps * phase.batch_size
        train(made["by harness"], data, samples_seen=seen, seed=SEED, effort=TimingEffort(warmup_steps=1))

    pairs = []
    blocks = alternating_blocks(by_hand, by_harness, ProcessClock(), effort=ONE_CALL)
    for look in RULE.looks:
        pairs += itertools.islice(blocks, look - len(pairs))
        first, second = (made[side].state_dict() for side in ("by hand", "by harness"))
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert any(not torch.equal(first[key], value) for key, value in fresh.state_dict().items())
        slower = paired_log_ratio(*zip(*pairs, strict=True), level=RULE.level)
        if slower.high < RULE.log_tolerance or slower.low > RULE.log_tolerance:
            break
    added = [100 * math.expm1(end) for end in (slower.estimate, slower.low, slower.high)]
    benchmark.extra_info.update(pairs=pairs, added_percent=added)
    benchmark.pedantic(by_harness, rounds=1)
    shown = f"the harness adds {added[0]:+.2f} % ({added[1]:+.2f} .. {added[2]:+.2f}) in {len(pairs)} pairs"
    assert slower.high < RULE.log_tolerance, shown
