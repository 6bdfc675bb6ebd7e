"""Time to quality: looks change nothing, the clock stands, and the target is met twice in a row."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SampleError, SettingError
from genbench.core.model import MODELS, GenerativeModel, Loss, Phase, Player, build_model
from genbench.core.record import Look
from genbench.core.spec import Target, TimingEffort, parse_ref
from genbench.evaluation.networks import Networks, Roles
from genbench.harness.building import training_set
from genbench.harness.looks import Looks
from genbench.harness.quality import QualityWatch, first_reached
from genbench.harness.sample import draw_untimed
from genbench.harness.train import train
from genbench.plan import Selection, load_suite, make_plan

EFFORT = TimingEffort(warmup_steps=1, min_block_seconds=0.001, latency_requests=0)
SPEC = DataSpec(shape=(1, 2, 2), levels=4)
CPU = torch.device("cpu")


class Noted(GenerativeModel):
    """A weight that every step halves and an average of it; sampling disturbs all it can reach."""

    def __init__(self, num_phases: int = 1) -> None:
        super().__init__(SPEC)
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("count", torch.zeros(()))
        self.drop = nn.Dropout(0.5)
        self.num_phases = num_phases

    def phases(self):
        player = Player(name="all", modules=(self,), lr=0.01, ema_decay=0.9)
        names = [f"phase {i}" for i in range(self.num_phases)]
        return tuple(Phase(name=n, share=1 / self.num_phases, players=(player,), batch_size=8) for n in names)

    def loss(self, batch, player):
        self.count += torch.rand(())
        return Loss(self.drop(self.weight.expand(64)).square().sum())

    def sample(self, num_samples, *, generator):
        self.count.fill_(-1.0)
        torch.rand(3)
        return torch.randint(4, (num_samples, 1, 2, 2), generator=generator).to(torch.uint8)


def _data(count: int = 64) -> Batch:
    return Batch(torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1).expand(count, 1, 2, 2) % 4)


def _trained(looks=None, *, num_phases=1, samples_seen=640):
    torch.manual_seed(0)
    model = Noted(num_phases)
    found = train(model, _data(), samples_seen=samples_seen, seed=0, effort=EFFORT, looks=looks)
    return model, found


def _draws(model) -> None:
    draw_untimed(model, 4, seed=0)


def test_looks_come_at_fixed_numbers_of_examples_and_at_the_end():
    seen = []
    _trained(Looks(every=100, look=lambda samples, seconds: seen.append((samples, seconds))))
    assert [samples for samples, _ in seen] == [104, 200, 304, 400, 504, 600, 640]
    assert [seconds for _, seconds in seen] == sorted(seconds for _, seconds in seen)


def test_looks_that_are_closer_than_a_step_come_after_every_step_and_the_last_only_once():
    seen = []
    _trained(Looks(every=1, look=lambda samples, seconds: seen.append(samples)), num_phases=2, samples_seen=64)
    assert seen == [8, 16, 24, 32, 40, 48, 56, 64]


def test_a_training_that_is_looked_at_ends_in_the_same_weights():
    plain, _ = _trained()
    looks = Looks(every=50, look=lambda samples, seconds: _draws(model))
    torch.manual_seed(0)
    model = Noted()
    train(model, _data(), samples_seen=640, seed=0, effort=EFFORT, looks=looks)
    assert torch.equal(plain.weight, model.weight)
    assert torch.equal(plain.count, model.count)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "vqvae", "ddpm", "wgan_gp", "ebm", "realnvp"])
def test_looks_leave_the_training_of_reference_models_alone(name):
    dataset = build_dataset(parse_ref("shapes[resolution=8]"))
    data = dataset.load("train", torch.arange(256).numpy())

    def weights(looked_at: bool):
        torch.manual_seed(0)
        model = build_model(MODELS.get(name), dataset.spec, preset="smoke", settings={}, owner=name)
        looks = Looks(every=200, look=lambda samples, seconds: _draws(model))
        train(model, data, samples_seen=768, seed=0, effort=EFFORT, looks=looks if looked_at else None)
        return model.state_dict()

    plain, looked_at = weights(False), weights(True)
    assert all(torch.equal(plain[key], looked_at[key]) for key in plain)


def test_the_model_is_looked_at_as_it_would_be_used():
    seen = []

    def look(samples, seconds):
        seen.append((model.training, model.weight.item()))

    torch.manual_seed(0)
    model = Noted()
    train(model, _data(), samples_seen=80, seed=0, effort=EFFORT, looks=Looks(every=80, look=look))
    assert seen == [(False, model.weight.item())]  # the end: the average itself

    weights = []
    torch.manual_seed(0)
    model = Noted()
    train(model, _data(), samples_seen=160, seed=0, effort=EFFORT, looks=Looks(every=80, look=look))
    weights.append(seen[1][1])
    torch.manual_seed(0)
    short = Noted()
    found = train(short, _data(), samples_seen=80, seed=0, effort=EFFORT)
    assert found.samples_seen == 80
    assert weights == [short.weight.item()]  # in the middle: what a training that ended there would have kept


def test_the_clock_of_the_training_stands_during_looks():
    times = []

    def look(samples, seconds):
        times.append(seconds)
        time.sleep(0.2)

    _, found = _trained(Looks(every=160, look=look))
    assert len(times) == 4
    assert found.seconds < 0.4
    assert times[-1] == found.seconds


@pytest.mark.parametrize(
    ("values", "reached"),
    [
        ([5.0, 3.0, 2.0, 1.0], 2),
        ([5.0, 3.0, 4.5, 3.0, 3.0], 4),
        ([3.0], None),
        ([5.0, 3.0, None, 3.0], None),
        ([3.0, 3.0], 1),
        ([5.0, 5.0, 3.0], None),
    ],
)
def test_a_target_is_reached_at_the_second_of_two_looks_in_a_row(values, reached):
    looks = [Look(samples_seen=i, seconds=float(i), value=value) for i, value in enumerate(values)]
    found = first_reached(looks, 3.0, "lower")
    assert (None if found is None else found.samples_seen) == reached
    flipped = [look.model_copy(update={"value": None if look.value is None else -look.value}) for look in looks]
    found = first_reached(flipped, -3.0, "higher")
    assert (None if found is None else found.samples_seen) == reached


def _watch(tiny_suite, model_class=None, **target):
    suite = load_suite(str(tiny_suite))
    (cell,) = [c for c in make_plan(suite, Selection(models=("vae",)), version="0").cells if c.role == "model"]
    dataset = build_dataset(cell.dataset)
    given = {"metric": "frechet_distance", "value": 1e9, "every": 64, "num_samples": 32, **target}
    torch.manual_seed(0)
    model = build_model(MODELS.get("vae"), dataset.spec, preset="smoke", settings={}, owner="vae")
    networks = Networks(Roles(features=cell.features), CPU)
    watch = QualityWatch(Target.model_validate(given), cell, dataset, networks, model)
    train(model, training_set(cell, dataset), samples_seen=256, seed=0, effort=EFFORT, looks=watch.looks)
    return watch, model, cell, dataset, networks


def test_the_curve_holds_what_the_metric_says_of_the_same_samples(tiny_suite):
    watch, model, cell, dataset, networks = _watch(tiny_suite)
    found = watch.found()
    assert [look.samples_seen for look in found.looks] == [64, 128, 192, 256]
    assert (found.score, found.better, found.num_samples) == ("fd_shapes_net", "lower", 32)
    assert found.seconds == found.looks[1].seconds
    assert found.samples_seen == 128
    assert found.budget_samples == 256
    again = QualityWatch(
        Target(metric="frechet_distance", value=0, every=1, num_samples=32), *(cell, dataset, networks, model)
    )
    again.looks.look(0, 0.0)
    assert again.found().looks[0].value == pytest.approx(found.looks[-1].value, rel=1e-9)


def test_a_target_that_is_never_met_is_a_miss_with_its_budget(tiny_suite):
    watch, *_ = _watch(tiny_suite, value=0.0)
    found = watch.found()
    assert found.seconds is None
    assert found.samples_seen is None
    assert found.budget_seconds == found.looks[-1].seconds > 0


def test_a_likelihood_can_be_a_target_and_a_score_can_be_named(tiny_suite):
    watch, *_ = _watch(tiny_suite, metric="bits_per_dim", value=100.0)
    assert watch.found().score == "bits_per_dim"
    watch, *_ = _watch(tiny_suite, metric="precision_recall", score="recall", value=0.0)
    assert watch.found().score == "recall"
    with pytest.raises(SettingError, match="gives no score `f1`"):
        _watch(tiny_suite, metric="precision_recall", score="f1", value=0.0)


def test_samples_that_break_down_in_the_middle_are_a_look_without_a_value(tiny_suite, monkeypatch):
    from genbench.harness import quality

    calls = []

    def sometimes(model, num_samples, *, seed):
        calls.append(seed)
        if len(calls) == 2:
            raise SampleError("not finite")
        return draw_untimed(model, num_samples, seed=seed)

    monkeypatch.setattr(quality, "draw_untimed", sometimes)
    watch, *_ = _watch(tiny_suite)
    found = watch.found()
    assert [look.value is None for look in found.looks] == [False, True, False, False]
    assert found.samples_seen == 256
    assert len(set(calls)) == 1
