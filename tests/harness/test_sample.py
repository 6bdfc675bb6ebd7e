"""Drawing and checking samples; controls."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from genbench.core.dataset import DataSpec
from genbench.core.errors import SampleError
from genbench.core.model import GenerativeModel, IterativeSampler
from genbench.core.spec import TimingEffort
from genbench.harness.controls import control_samples
from genbench.harness.sample import check_samples, draw, oddities

SPEC = DataSpec(shape=(3, 16, 16))
EFFORT = TimingEffort(warmup_steps=1, min_block_seconds=0.01, latency_requests=2)


class Noise(GenerativeModel, IterativeSampler):
    """Uniform noise after three calls of a network."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.net = nn.Identity()
        self.sizes: list[int] = []

    @property
    def network(self) -> nn.Module:
        return self.net

    def phases(self):
        return ()

    def loss(self, batch, player):
        raise NotImplementedError

    def sample(self, num_samples: int, *, generator: torch.Generator) -> torch.Tensor:
        self.sizes.append(num_samples)
        x = torch.randint(256, (num_samples, *self.spec.shape), generator=generator)
        for _ in range(3):
            x = self.net(x)
        return x.to(torch.uint8)


def test_the_same_seed_draws_the_same_samples_and_another_seed_others():
    first = draw(Noise(SPEC), 40, seed=0, effort=EFFORT).samples
    assert torch.equal(first, draw(Noise(SPEC), 40, seed=0, effort=EFFORT).samples)
    assert not torch.equal(first, draw(Noise(SPEC), 40, seed=1, effort=EFFORT).samples)
    assert len(torch.unique(first.flatten(1), dim=0)) == 40


def test_network_evaluations_are_counted_outside_the_timed_draws():
    model = Noise(SPEC)
    drawing = draw(model, 10, seed=0, effort=EFFORT)
    assert drawing.network_evaluations == 3
    assert model.sizes == [3, 3, 3, 1, 1, 1, 1, 1]  # the draws, a warm-up and two requests, the count
    assert len(drawing.images_per_second.raw) == 3
    assert len(drawing.latency_seconds.raw) == 2


@pytest.mark.parametrize(
    ("spec", "unit"), [(SPEC, "img/s"), (DataSpec(kind="waveform", shape=(1, 64), sample_rate=8000), "sounds/s")]
)
def test_the_speed_of_drawing_is_counted_in_what_the_data_hold(spec, unit):
    assert draw(Noise(spec), 4, seed=0, effort=EFFORT).images_per_second.unit == unit


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(3, 3, 16, 16, dtype=torch.uint8), "drew shape"),
        (torch.zeros(4, 1, 16, 16, dtype=torch.uint8), "drew shape"),
        (torch.zeros(4, 3, 16, 16), "drew torch.float32"),
        (torch.full((4, 3, 16, 16), float("nan")), "not finite"),
        (torch.full((4, 3, 16, 16), 17, dtype=torch.uint8), "drew the value 17"),
    ],
)
def test_samples_that_break_the_contract_are_refused(samples, message):
    with pytest.raises(SampleError, match=message):
        check_samples(samples, 4, DataSpec(shape=(3, 16, 16), levels=17))


@pytest.fixture(scope="module")
def pictures():
    ramp = torch.linspace(0, 255, 16).expand(3, 16, 16)
    scale = torch.linspace(0.2, 1, 24).reshape(-1, 1, 1, 1)
    return (ramp * scale).round().to(torch.uint8)


def _control(name, pictures, spec=SPEC):
    return control_samples(name, pictures[:8], pictures[8:], spec, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["real", "train_copy", "jpeg", "blur", "mean_image", "noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_control_keeps_the_contract(name, channels, pictures):
    spec = DataSpec(shape=(channels, 16, 16))
    samples = _control(name, pictures[:, :channels], spec)
    check_samples(samples, 8, spec)


def test_controls_are_what_they_say(pictures):
    assert torch.equal(_control("real", pictures), pictures[:8])
    copies = _control("train_copy", pictures)
    assert all(any(torch.equal(copy, one) for one in pictures[8:]) for copy in copies)
    mean = _control("mean_image", pictures)
    assert torch.equal(mean[0], pictures[8:].double().mean(0).round().to(torch.uint8))
    assert len(torch.unique(mean.flatten(1), dim=0)) == 1
    noise = _control("noise", pictures).double()
    assert noise.mean().item() == pytest.approx(127.5, abs=3)


def test_blur_keeps_the_mean_and_lowers_the_contrast():
    spots = torch.zeros(8, 3, 16, 16, dtype=torch.uint8)
    spots[:, :, 8, 8] = 255
    blurred = control_samples("blur", spots, spots, SPEC, generator=torch.Generator()).double()
    assert blurred.max() < 100
    assert blurred.sum().item() == pytest.approx(spots.double().sum().item(), rel=0.05)


def test_jpeg_changes_the_picture_a_little(pictures):
    difference = (_control("jpeg", pictures).double() - pictures[:8].double()).abs()
    assert 0 < difference.mean().item() < 20


def test_controls_of_few_levels_stay_within_them():
    few = torch.randint(17, (8, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    spec = DataSpec(shape=(1, 8, 8), levels=17)
    for name in ("jpeg", "blur", "noise", "mean_image"):
        check_samples(control_samples(name, few, few, spec, generator=torch.Generator()), 8, spec)


def test_copies_and_blank_pictures_are_noted_before_any_metric(pictures):
    assert oddities(pictures) == ()
    copies = torch.cat([pictures[:4], pictures[:2], torch.zeros_like(pictures[:2])])
    assert oddities(copies) == (
        "only 5 of 8 samples are distinct",
        "2 of 8 samples are of one value throughout",
    )
