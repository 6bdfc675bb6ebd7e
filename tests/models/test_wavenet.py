"""WaveNet: sees what it should and nothing later, exact probabilities, the same draws by queues, a loss that falls."""

import itertools
import math

import pytest
import torch

from genbench.conformance import check_model
from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.data.tones import Tones
from genbench.harness.train import train
from genbench.models._level_heads import LogisticHead, SoftmaxHead
from genbench.models.autoregressive.wavenet import DilatedStack, WaveNet

OUTPUTS = ("softmax", "logistic")
SMALL = {"width": 6, "skip_width": 8, "layers_per_cycle": 3, "num_mixtures": 3}


def sound(length, levels, **more):
    return DataSpec(kind="waveform", shape=(1, length), levels=levels, sample_rate=8000, **more)


def built(spec, **settings):
    torch.manual_seed(0)
    return build_model(WaveNet, spec, preset="smoke", settings=settings, owner="wavenet")


def roughened(model):
    """Off its starting point: no bias is zero, and the law is far from uniform."""
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def squares(number, length):
    """Square waves with a period of 8 samples and any of its 8 phases, between levels 60 and 200."""
    phase = torch.randint(8, (number, 1), generator=torch.Generator().manual_seed(0))
    high = (torch.arange(length) + phase) % 8 < 4
    return torch.where(high, 200, 60).to(torch.uint8)[:, None]


def fit(model, batch, *, steps, lr=8e-3, size=32):
    model.prepare(batch)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        part = batch[torch.arange(size * step, size * step + size) % len(batch)]
        loss = model.loss(part, "model").total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def stack_of(num_levels, dilations, kernel_size):
    return DilatedStack(
        num_levels=num_levels, width=6, skip_width=8, dilations=dilations, kernel_size=kernel_size, told_dim=None
    )


def test_the_name_is_registered_and_every_preset_fits_its_config():
    assert MODELS.get("wavenet") is WaveNet
    assert set(WaveNet.presets) == {"smoke", "small", "paper"}
    assert WaveNet.likelihood_kind == "exact"


@pytest.mark.parametrize(
    ("dilations", "kernel_size", "expected"),
    [(tuple(2**i for i in range(8)), 2, 256), (tuple(2**i for i in range(10)) * 3, 2, 3070), ((1, 2, 4), 3, 15)],
)
def test_the_receptive_field_is_one_and_the_sum_of_the_dilations(dilations, kernel_size, expected):
    assert stack_of(4, dilations, kernel_size).receptive_field == expected


@pytest.mark.parametrize(("dilations", "kernel_size"), [((1, 2, 4), 2), ((1, 2, 1, 2), 2), ((1, 2), 3), ((3,), 2)])
def test_a_step_depends_on_the_samples_before_it_in_reach_and_on_nothing_else(dilations, kernel_size):
    """By the Jacobian: every place has a level of its own, and with it a row of the table of its own."""
    length = 30
    seen = torch.zeros(length, length, dtype=torch.bool)  # (answering place, place that is looked at)
    for seed in range(4):  # where one leaves a ReLU off another turns it on
        torch.manual_seed(seed)
        stack = roughened(stack_of(length, dilations, kernel_size)).double()
        h = stack(torch.arange(length)[None], None)[0]
        for t in range(length):
            (slope,) = torch.autograd.grad(h[t].sum(), stack.embedding, retain_graph=True)
            seen[t] |= slope.abs().sum(1) > 0
    reached = {1 + sum(way) for way in itertools.product(*(range(0, kernel_size * d, d) for d in dilations))}
    assert max(reached) == stack.receptive_field
    expected = [[t - place in reached for place in range(length)] for t in range(length)]
    assert seen.tolist() == expected


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    "spec", [sound(3, 5), DataSpec(shape=(3, 1, 1), levels=4), DataSpec(shape=(1, 2, 2), levels=3)]
)
def test_probabilities_of_everything_there_is_sum_to_one(spec, output):
    model = roughened(built(spec, output=output, **SMALL)).double()
    every = torch.tensor(list(itertools.product(range(spec.levels), repeat=spec.num_dims))).to(torch.uint8)
    log_likelihood = model.log_likelihood(every.view(-1, *spec.shape), generator=torch.Generator())
    assert log_likelihood.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert log_likelihood.max() > log_likelihood.mean() + 0.5  # not the uniform law


@pytest.mark.parametrize("output", OUTPUTS)
def test_likelihood_is_that_of_the_loss_and_does_not_depend_on_the_batch(output, monkeypatch):
    model = roughened(built(sound(24, 256), output=output, **SMALL))
    x = torch.randint(256, (9, 1, 24)).to(torch.uint8)
    together = model.log_likelihood(x, generator=torch.Generator())
    assert model.loss(Batch(x), "model").total.item() == pytest.approx(-together.mean().item() / 24, rel=1e-5)
    monkeypatch.setattr("genbench.models.autoregressive.wavenet.POSITIONS_AT_ONCE", 50)
    torch.testing.assert_close(model.log_likelihood(x, generator=torch.Generator()), together)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (sound(64, 256), {"layers_per_cycle": 4, "num_cycles": 2}),
        (sound(40, 7), {"kernel_size": 3}),
        (sound(1, 256), {}),
        (DataSpec(shape=(3, 4, 4), levels=256), {}),
    ],
)
def test_queues_draw_bit_for_bit_what_a_pass_over_everything_draws(spec, settings, output):
    model = roughened(built(spec, **SMALL | settings, output=output))
    fast = model.sample(5, generator=torch.Generator().manual_seed(1))
    naive = model.sample_naive(5, None, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fast, naive)
    assert len(fast.unique()) > 2 or spec.num_dims == 1


def test_queues_hear_the_condition_as_a_pass_over_everything_does():
    model = roughened(built(sound(40, 256, num_classes=3), condition="class", **SMALL))
    labels = torch.tensor([0, 1, 2, 2])
    fast = model.sample_given(labels, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fast, model.sample_naive(4, labels, generator=torch.Generator().manual_seed(1)))
    other = model.sample_given(labels.flip(0), generator=torch.Generator().manual_seed(1))
    assert not torch.equal(fast, other)


def test_images_are_drawn_row_after_row_and_red_before_green_before_blue():
    model = built(DataSpec(shape=(3, 2, 2), levels=256), **SMALL)
    codes = model._codes(torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2))
    assert codes.tolist() == [[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]]
    assert torch.equal(model._data(codes), torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2))


@pytest.mark.parametrize("head", [SoftmaxHead(5, 4), LogisticHead(5, 4, 3)], ids=OUTPUTS)
def test_levels_are_drawn_as_often_as_they_are_probable(head):
    roughened(head).requires_grad_(False)
    h, number = torch.randn(4), 40_000
    p = head.log_prob(h.expand(5, -1), torch.arange(5)).exp()
    uniforms = torch.rand(number, head.num_uniforms, generator=torch.Generator().manual_seed(0))
    share = head.draw(h.expand(number, -1), uniforms).bincount(minlength=5) / number
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    assert ((share - p).abs() < 5.0 * (p * (1 - p) / number).sqrt() + 1e-4).all()


def test_the_mixture_sums_to_one_over_256_levels_and_has_the_gradient_of_its_value():
    head = roughened(LogisticHead(256, 4, 3)).double()
    h = torch.randn(6, 4).double().requires_grad_()
    every = torch.stack([head.log_prob(h, torch.full((6,), level)) for level in range(256)])
    torch.testing.assert_close(every.exp().sum(0), torch.ones(6).double(), rtol=0, atol=1e-10)
    codes = torch.tensor([0, 1, 100, 128, 254, 255])
    assert torch.autograd.gradcheck(lambda x: head.log_prob(x, codes), (h,))


@pytest.mark.parametrize("output", OUTPUTS)
def test_preparation_starts_at_the_histogram(output):
    x = squares(64, 32)
    model = built(sound(32, 256), output=output)
    before = model.loss(Batch(x), "model").total.item()
    model.prepare(Batch(x))
    after = model.loss(Batch(x), "model").total.item()
    assert before > math.log(2) + 2
    assert after < before - 1


@pytest.mark.slow
@pytest.mark.parametrize("output", OUTPUTS)
def test_training_learns_square_waves_and_draws_them(output):
    x = squares(512, 32)
    model = built(sound(32, 256), output=output, layers_per_cycle=4)
    train(model, Batch(x), samples_seen=6400, seed=0)
    bits = -model.log_likelihood(x, generator=torch.Generator()).mean().item() / (32 * math.log(2))
    shares = x.unique(dim=0, return_counts=True)[1] / len(x)
    phase = -(shares * shares.log2()).sum().item() / 32  # nothing is cheaper
    assert 0.999 * phase <= bits < 0.2
    drawn = model.eval().sample(64, generator=torch.Generator().manual_seed(0))[:, 0].float()
    phases = x.unique(dim=0)[:, 0].float()  # (8, 32)
    nearest = torch.cdist(drawn, phases, p=float("inf")).amin(1)
    assert (nearest < 20).float().mean() > 0.8


@pytest.mark.slow
def test_a_condition_decides_what_is_drawn():
    y = torch.arange(256) % 2
    x = torch.where(y[:, None, None] == 1, 180, 70).expand(-1, 1, 16).to(torch.uint8)
    model = built(sound(16, 256, num_classes=2), condition="class", width=8, skip_width=16, layers_per_cycle=3)
    fit(model.train(), Batch(x, y=y), steps=60)
    asked = torch.tensor([0, 1] * 16)
    drawn = model.eval().sample_given(asked, generator=torch.Generator().manual_seed(0)).float().mean((1, 2))
    assert ((drawn > 125) == (asked == 1)).float().mean() > 0.9
    both = model.sample(64, generator=torch.Generator().manual_seed(0)).float().mean((1, 2)) > 125
    assert 0.2 < both.float().mean() < 0.8


def test_samples_are_uint8_in_range_and_repeat_with_the_generator():
    model = built(sound(32, 17))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again = (model.sample(6, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert first.dtype == torch.uint8
    assert first.shape == (6, 1, 32)
    assert first.max() < 17
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())


def test_data_without_levels_or_without_order_are_refused():
    for spec in (DataSpec(kind="vector", shape=(2,), levels=None), sound(32, None)):
        with pytest.raises(SettingError, match="whole numbers"):
            built(spec)
    with pytest.raises(SettingError, match="kernel_size"):
        built(sound(32, 256), kernel_size=1)
    with pytest.raises(ValueError, match="two taps"):
        stack_of(4, (1, 2), 1)


@pytest.mark.slow
def test_the_contract_is_kept_on_waveforms_too():
    findings = check_model(WaveNet, Tones(length=512))
    broken = [f"{finding.name}: {finding.message}" for finding in findings if not finding.passed]
    assert not broken, "\n".join(broken)
