"""One timed round: what is timed, what is not, and what a round says when it breaks."""

from __future__ import annotations

import sys

import pytest
import safetensors.torch
import torch
from bench_cells import SAMPLER, ModelClock, cells_of, job_of, model_file

from genbench.core.dataset import build_dataset
from genbench.harness.building import build, training_set
from genbench.harness.timed_audit import scores_agree
from genbench.harness.timed_round import measure
from genbench.harness.timed_training import Stage, chained
from genbench.harness.train import begin, train

TURNS_ITS_CLOCK = """\
import torch
NOW, SEEDS = [0.0], []
def sample(n, seed, device):
    NOW[0] += 0.010 + 0.001 * n
    SEEDS.append(seed)
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
def train_step(batch):
    NOW[0] += 0.064
    return 1.0
"""
TWO_STAGES = """\
import torch
from torch import nn
from genbench.core.model import GenerativeModel, Loss, Phase, Player
NOW = [0.0]
SECONDS = {"a": 0.1, "b": 0.2, "c": 0.1}
class Model(GenerativeModel):
    def __init__(self, spec):
        super().__init__(spec)
        self.first, self.second = nn.Linear(192, 4, bias=False), nn.Linear(192, 2, bias=False)
    def phases(self):
        a = Player(name="a", modules=(self.first,), lr=RATE)
        b = Player(name="b", modules=(self.first,), lr=RATE, turns=2)
        c = Player(name="c", modules=(self.second,), lr=RATE)
        one = Phase(name="one", share=0.25, players=(a, b), batch_size=10)
        return (one, Phase(name="two", share=0.75, players=(c,), batch_size=20))
    def loss(self, batch, player):
        NOW[0] += SECONDS[player]
        network = self.second if player == "c" else self.first
        return Loss(network(batch.x.flatten(1).float() / 255).square().mean() * SCALE)
    def sample(self, num_samples, *, generator):
        NOW[0] += 0.01
        return torch.randint(0, 256, (num_samples, 3, 8, 8), generator=generator).to(torch.uint8)
"""


def _two_stages(folder, suite, name, *, rate=0.1, scale="1.0"):
    return cells_of(suite, model_file(folder, name, TWO_STAGES.replace("RATE", str(rate)).replace("SCALE", scale)))[0]


def test_the_rates_of_a_model_of_known_cost_are_exact(tmp_path, tiny_suite):
    name = "turns_its_clock"
    cell = cells_of(tiny_suite, model_file(tmp_path, name, TURNS_ITS_CLOCK))[0]
    latency = measure(job_of(cell, "latency"), clock=ModelClock(name))
    assert latency.values["latency_seconds"] == pytest.approx([0.011] * 3)
    throughput = measure(job_of(cell, "throughput", batch_size=8), clock=ModelClock(name))
    assert throughput.values["sample_images_per_second"] == pytest.approx([8 / 0.018] * 3)
    training = measure(job_of(cell, "train"), clock=ModelClock(name))
    assert training.batch_size == 64
    assert training.values["train_images_per_second"] == pytest.approx([64 / 0.064] * 3)
    assert training.values["train_compute_images_per_second"] == pytest.approx([64 / 0.064] * 3)
    assert training.cold is not None
    assert training.cold.first_call_seconds == pytest.approx(0.064)
    assert training.flags == ()


def test_stages_and_turns_are_chained_into_the_rate_of_the_whole(tmp_path, tiny_suite):
    # stage one: 3 turns of 10 images in 0.1 + 2 * 0.2 s = 60 img/s; stage two: 20 images in 0.1 s = 200 img/s
    cell = _two_stages(tmp_path, tiny_suite, "chained_stages")
    done = measure(job_of(cell, "train"), clock=ModelClock("chained_stages"))
    expected = 1 / (0.25 / 60 + 0.75 / 200)
    assert done.error is None
    assert done.values["train_images_per_second"] == pytest.approx([expected] * 3)


def test_a_chain_of_rates_is_their_harmonic_mean_by_share():
    assert chained([1.0], [[3.0, 5.0]]) == (3.0, 5.0)
    assert chained([0.5, 0.5], [[100.0, 100.0, 1.0], [300.0, 100.0]]) == pytest.approx((150.0, 100.0))
    assert chained([1, 3], [[100.0], [300.0]]) == pytest.approx((200.0,))  # shares need not sum to one


def test_flops_of_an_image_are_shared_out_over_stages_as_training_is(tmp_path, tiny_suite):
    cell = _two_stages(tmp_path, tiny_suite, "counted_stages")
    done = measure(job_of(cell, "counters"), clock=ModelClock("counted_stages"))
    one, two = 2 * 2 * 192 * 4, 2 * 2 * 192 * 2  # a product of matrices forward and one backward, for the weights alone
    assert done.flops_per_image == pytest.approx(0.25 * one + 0.75 * two)
    assert done.counters["train"].flops == 30 * one + 20 * two
    assert done.counters["train"].parameters == 192 * 6
    assert done.counters["sample"].flops == 0


def test_counters_are_the_same_in_every_run(tiny_suite):
    cell = cells_of(tiny_suite, "vqvae")[0]
    first, second = (measure(job_of(cell, "counters")) for _ in range(2))
    assert first.error is None
    assert first.counters == second.counters
    assert first.flops_per_image == second.flops_per_image


def test_network_evaluations_are_the_steps_of_the_sampler(tiny_suite):
    cell = cells_of(tiny_suite, "ddpm[sampler=ddim,num_steps=3]")[0]
    done = measure(job_of(cell, "counters"))
    assert done.counters["sample"].network_evaluations == 3


def test_a_timed_stage_trains_the_weights_of_a_cell(tiny_suite):
    cell = cells_of(tiny_suite, "vae")[0]
    dataset = build_dataset(cell.dataset)
    data = training_set(cell, dataset)
    models = []
    for _ in range(2):
        torch.manual_seed(cell.seed)
        models.append(build(cell, dataset))
    train(models[0], data, samples_seen=cell.samples_seen, seed=cell.seed)
    order = begin(models[1], data, seed=cell.seed)
    stage = Stage(models[1], models[1].phases()[0], data, order, cell, None)
    for _ in range(cell.samples_seen // stage.images_per_round):
        stage.from_loader()
    stage.end()
    assert stage.images == cell.samples_seen
    for one, other in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_no_two_requests_of_any_rounds_have_one_seed(tmp_path, tiny_suite):
    name = "remembers_seeds"
    cell = cells_of(tiny_suite, model_file(tmp_path, name, TURNS_ITS_CLOCK))[0]
    asked = []
    for index in range(3):
        measure(job_of(cell, "latency", index=index), clock=ModelClock(name))
        asked += sys.modules[name].SEEDS
    assert len(asked) > 9
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        ("raise torch.OutOfMemoryError('no memory left')", "OutOfMemoryError"),
        ("raise MemoryError", "MemoryError"),
        ("raise RuntimeError('out of ideas')", "RuntimeError"),
        ("return torch.rand(n, 3, 9, 9)", "SampleError"),
        ("return torch.full((n, 3, 8, 8), float('nan'))", "SampleError"),
    ],
)
def test_what_breaks_a_round_stands_in_it_with_phase_and_batch_size(problem, kind, tmp_path, tiny_suite, capsys):
    text = f"import torch\ndef sample(n, seed, device):\n    {problem}\n"
    cell = cells_of(tiny_suite, model_file(tmp_path, "breaks", text))[0]
    done = measure(job_of(cell, "throughput", batch_size=16))
    assert done.error is not None
    assert (done.error.phase, done.error.type) == ("throughput", kind)
    assert "batch size 16" in done.error.message
    assert done.batch_size == 16
    assert done.environment is not None
    assert not done.values
    assert kind in capsys.readouterr().err


def test_a_model_that_cannot_be_built_breaks_in_build(tmp_path, tiny_suite):
    cell = cells_of(tiny_suite, model_file(tmp_path, "unloadable", "raise ValueError('not today')"))[0]
    done = measure(job_of(cell, "latency"))
    assert done.error is not None
    assert done.error.phase == "build"
    assert "not today" in done.error.message


def test_a_file_without_training_has_no_training_round_and_every_other(tmp_path, tiny_suite):
    cell = cells_of(tiny_suite, model_file(tmp_path, "only_samples", SAMPLER))[0]
    done = measure(job_of(cell, "train"))
    assert done.error is not None
    assert done.error.type == "NotApplicable"
    assert set(measure(job_of(cell, "memory")).peaks) == {"sample"}
    assert set(measure(job_of(cell, "counters")).counters) == {"sample"}


def test_a_diverged_training_has_no_speed(tmp_path, tiny_suite):
    cell = _two_stages(tmp_path, tiny_suite, "diverged", scale="float('inf')")
    done = measure(job_of(cell, "train"), clock=ModelClock("diverged"))
    assert done.error is not None
    assert done.error.type == "DivergedError"


@pytest.mark.parametrize("phase", ["train", "throughput", "memory"])
def test_memory_and_cold_start_stand_where_they_belong(phase, tiny_suite):
    done = measure(job_of(cells_of(tiny_suite, "vae")[0], phase), import_seconds=1.5)
    assert done.error is None
    assert (done.cold is None) == (phase == "memory")
    assert done.cold is None or done.cold.import_seconds == 1.5
    assert (done.memory is None) == (phase != "throughput")
    assert set(done.peaks) == ({"train", "sample"} if phase == "memory" else set())
    assert (done.images is None) == (phase == "memory")


def test_a_round_takes_the_weights_that_it_is_given(tmp_path, tiny_suite):
    cell = cells_of(tiny_suite, "vae")[0]
    model = build(cell, build_dataset(cell.dataset))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    (tmp_path / "model.safetensors").write_bytes(safetensors.torch.save(model.state_dict()))
    hashes = {
        weights: measure(job_of(cell, "latency", weights=weights, audit=True)).samples_sha256
        for weights in (None, tmp_path, tmp_path / "model.safetensors")
    }
    assert hashes[tmp_path] == hashes[tmp_path / "model.safetensors"] != hashes[None]


def test_an_audit_passes_a_model_that_works(tiny_suite):
    cell = cells_of(tiny_suite, "vae")[0]
    training = measure(job_of(cell, "train", audit=True))
    assert training.audit == {"parameters_changed": True, "random_stream_advanced": True}
    assert measure(job_of(cell, "throughput", batch_size=8, audit=True)).audit == {"scores_agree": True}
    first, second = (measure(job_of(cell, "latency", audit=True, index=index)) for index in range(2))
    assert first.audit["seeds_differ"]
    assert first.audit["same_seed_same_sample"]
    assert first.samples_sha256 == second.samples_sha256  # two seeds of the cell's, whatever the round asked for


CHEATS = {
    "remembers": ("NOW[0] += 0.001 if seed in SEEDS else 0.01; SEEDS.add(seed)", "same_seed_not_faster"),
    "ignores": ("NOW[0] += 0.01; seed = 1", "seeds_differ"),
    "wanders": ("NOW[0] += 0.01; CALLS.append(1); seed += len(CALLS)", "same_seed_same_sample"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_an_audit_catches_a_model_that_cheats(name, tmp_path, tiny_suite):
    line, proof = CHEATS[name]
    text = SAMPLER.replace("    return", f"    {line}\n    return") + "NOW, SEEDS, CALLS = [0.0], set(), []\n"
    cell = cells_of(tiny_suite, model_file(tmp_path, name, text))[0]
    done = measure(job_of(cell, "latency", audit=True), clock=ModelClock(name))
    assert not done.audit[proof]
    assert "suspicious_fast" in done.flags


def test_an_audit_catches_a_step_that_changes_nothing(tmp_path, tiny_suite):
    cell = _two_stages(tmp_path, tiny_suite, "idle_steps", rate=0.0)
    done = measure(job_of(cell, "train", audit=True), clock=ModelClock("idle_steps"))
    assert done.audit == {"parameters_changed": False}
    assert "suspicious_fast" in done.flags


def test_samples_of_another_law_do_not_score_alike():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 64, 3, 8, 8), generator=generator).to(torch.uint8)
    assert scores_agree(noise[0], noise[1])
    assert not scores_agree(noise[0], noise[1] // 2)
    assert not scores_agree(noise[0], noise[1] // 4 + 96)  # the mean is kept, the spread is not
    blank = torch.zeros(64, 3, 8, 8, dtype=torch.uint8)
    assert scores_agree(blank, blank)
    assert not scores_agree(blank, noise[0])
