import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, Likelihood, build_model
from genbench.data.toy2d import Toy2D, means_of
from genbench.models.diffusion.ncsn import NCSN, NOISE_SCALE
from genbench.prob.pixels import to_signed

TINY = NCSN.Config(width=8, patch=1, vector_width=16, vector_blocks=1, num_levels=8, sigma_max=5.0, sigma_min=0.05)
OUTPUTS = pytest.mark.parametrize("output", ["noise", "velocity"])


def tiny(*, shape: tuple[int, ...] = (1, 4, 4), levels: int | None = 256, **changes: object) -> NCSN:
    """A small model whose zero layers are moved a little, so that the network has a say."""
    torch.manual_seed(0)
    spec = DataSpec(kind="image" if len(shape) == 3 else "vector", shape=shape, levels=levels)
    model = NCSN(spec, dataclasses.replace(TINY, **changes)).eval()
    nn.init.normal_(model.net.out.weight, std=0.1)
    return with_sampling(model, steps_per_level=2)


def with_sampling(model: NCSN, **changes: object) -> NCSN:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


class Exact(nn.Module):
    """The network whose eps_hat is E[z | x] for a mixture of Gaussians of equal weights on vectors."""

    def __init__(self, config: NCSN.Config, means: Tensor, std: float) -> None:
        super().__init__()
        self.output, self.S, self.means, self.std = config.output, config.data_std, means.double(), std

    def forward(self, v: Tensor, time: Tensor) -> Tensor:
        sigma = (time.double() / NOISE_SCALE).exp()[:, None]
        norm = (sigma.square() + self.S**2).sqrt()
        x = v.double().flatten(1) * norm
        gap, variance = x[:, None] - self.means, self.std**2 + sigma.square()
        share = torch.softmax(-0.5 * gap.square().sum(2) / variance, dim=1)
        eps = sigma * (share[:, :, None] * gap).sum(1) / variance
        out = eps if self.output == "noise" else (sigma * x / norm - norm * eps) / self.S
        return out.view(v.shape).to(v.dtype)


def exact(*, means: Tensor, std: float, shape: tuple[int, ...] | None = None, **changes: object) -> NCSN:
    shape = (means.shape[1],) if shape is None else shape
    spec = DataSpec(kind="image" if len(shape) == 3 else "vector", shape=shape, levels=256 if len(shape) == 3 else None)
    model = NCSN(spec, dataclasses.replace(TINY, **changes))
    model.net = Exact(model.config, means, std)
    return model


def test_the_paper_preset_has_the_authors_levels_chains_and_training() -> None:
    """L = 10 levels from 1 to 0.01 on pixels in [0, 1], epsilon = 2e-5, T = 100."""
    config, sampling = NCSN.presets["paper"], NCSN.sampling_presets["paper"]
    assert (config.num_levels, config.sigma_max, config.sigma_min) == (10, 2 * 1.0, 2 * 0.01)
    assert (sampling.steps_per_level, sampling.step_size) == (100, pytest.approx(2e-5 / 0.01**2))
    (phase,) = NCSN(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8, num_blocks=1)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.warmup_steps, player.ema_decay) == (128, 1e-3, 0, None)


@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
def test_levels_are_geometric_and_end_at_the_data(preset: str) -> None:
    config = dataclasses.replace(NCSN.presets[preset], width=8, num_blocks=1)
    model = NCSN(DataSpec(shape=(1, 8, 8)), config)
    levels = model.noise_levels()
    ratios = levels.sigma[1:-1] / levels.sigma[:-2]
    torch.testing.assert_close(ratios, ratios[:1].expand(config.num_levels - 1))
    assert levels.sigma[[0, -2, -1]].tolist() == pytest.approx([config.sigma_max, config.sigma_min, 0.0])
    torch.testing.assert_close(model.sigmas.double(), levels.t, rtol=1e-6, atol=0.0)
    assert levels.alpha.tolist() == [1.0] * (config.num_levels + 1)


@pytest.mark.parametrize("preset", ["smoke", "small", "paper"])
def test_chains_have_little_more_noise_than_their_level_says(preset: str) -> None:
    """Song and Ermon 2020, Technique 4: of one picture, the variance w of a chain in units of its level's.

    K steps take w gamma^2 to (1 - step / 2)^2K (w gamma^2 - v) + v with v = 1 / (1 - step / 4), down to a fixed point.
    """
    config, sampling = NCSN.presets[preset], NCSN.sampling_presets[preset]
    gamma = (config.sigma_max / config.sigma_min) ** (1 / (config.num_levels - 1))
    kept = (1 - sampling.step_size / 2) ** (2 * sampling.steps_per_level)
    assert kept * gamma**2 < 1
    w = (1 - kept) / (1 - sampling.step_size / 4) / (1 - kept * gamma**2)
    assert 1 < w < 1.2


# The loss


@OUTPUTS
def test_the_loss_is_half_the_weighted_error_of_the_score(output: str) -> None:
    """Eq. 5 and 6: 1/2 sigma^2 |score + (x - y) / sigma^2|^2."""
    model, pixels = tiny(output=output), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(pixels), "network").total.item()
    torch.manual_seed(3)
    sigma = model.sigmas[torch.randint(0, 8, (6,))]
    z, y = torch.randn(6, 1, 4, 4), to_signed(pixels, 256)
    at = sigma[:, None, None, None]
    x = y + at * z
    expected = 0.5 * (at**2 * (model.score(x, sigma) + (x - y) / at**2).square()).mean()
    assert loss == pytest.approx(expected.item(), rel=1e-4)


def test_the_loss_of_the_exact_score_is_the_error_that_no_score_escapes() -> None:
    """Of Gaussian data Var[z | x] = std^2 / (std^2 + sigma^2), a mean over the levels."""
    y = -0.1 + 0.25 * torch.randn(100_000, 2, generator=seeded(1))
    model = exact(means=torch.full((1, 2), -0.1), std=0.25)
    torch.manual_seed(0)
    expected = 0.5 * (0.25**2 / (0.25**2 + model.sigmas.square())).mean().item()
    assert model.loss(Batch(y), "network").total.item() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("right", [True, False])
def test_the_loss_is_stationary_at_the_score_of_a_mixture_and_at_no_other(right: bool) -> None:
    """E (z - E[z | x]) h(x) = 0 for any h: moving the exact network along h changes the loss by its square alone."""
    num, delta = 50_000, 0.1
    means = torch.tensor([[-1.0], [0.2], [0.9]])
    y = means[torch.randint(0, 3, (num,), generator=seeded(1))] + 0.2 * torch.randn(num, 1, generator=seeded(2))
    model = exact(means=means if right else means + 0.3, std=0.2)
    best, slopes = model.noise_in, []
    for h in (torch.ones_like, lambda x: x / (1 + x.abs()), lambda x: torch.sin(3 * x)):
        losses = []
        for sign in (-1.0, 1.0):
            model.noise_in = lambda x, sigma, h=h, sign=sign: best(x, sigma) + sign * delta * h(x)
            torch.manual_seed(4)
            losses.append(model.loss(Batch(y), "network").total.item())
        slopes.append(abs(losses[1] - losses[0]) / (2 * delta))  # E (eps_hat - z) h, of terms below 1 in the square
    assert (max(slopes) < 4 / math.sqrt(num)) == right
    assert right or max(slopes) > 20 / math.sqrt(num)


def test_the_mean_of_the_target_is_the_score_of_the_noised_mixture() -> None:
    """Vincent 2011: among points that were noised to nearly the same place, -z / sigma has the score for its mean."""
    num, sigma, std = 2_000_000, 0.5, 0.3
    means = torch.tensor([[-1.0], [0.8]])
    model = exact(means=means, std=std)
    y = means[torch.randint(0, 2, (num,), generator=seeded(1))] + std * torch.randn(num, 1, generator=seeded(2))
    z = torch.randn(num, 1, generator=seeded(3))
    x = y + sigma * z
    for place in (-1.2, -0.3, 0.5, 1.1):
        near = ((x - place).abs() < 0.02).squeeze(1)
        gap = -z[near] / sigma - model.score(x[near], torch.full((int(near.sum()),), sigma))
        assert abs(gap.mean().item()) < 4 * gap.std().item() / math.sqrt(int(near.sum()))


# The network and its scale


@OUTPUTS
def test_noise_score_and_denoised_data_say_the_same(output: str) -> None:
    model = tiny(output=output).double()
    sigma = torch.tensor([0.05, 0.4, 5.0], dtype=torch.float64)
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=seeded())
    at, y = sigma[:, None, None, None], model.denoise(x, sigma)
    torch.testing.assert_close(model.score(x, sigma), -model.noise_in(x, sigma) / at)
    torch.testing.assert_close(model.score(x, sigma), (y - x) / at**2, rtol=1e-7, atol=1e-7)


def test_the_network_sees_unit_variance_and_the_logarithm_of_the_noise() -> None:
    model, seen = tiny(data_std=0.5, shape=(1, 8, 8)), []
    model.net.register_forward_hook(lambda module, given, result: seen.append(given))
    for sigma in (0.05, 0.5, 5.0):
        x = 0.5 * torch.randn(200, 1, 8, 8) + sigma * torch.randn(200, 1, 8, 8)
        model.denoise(x, torch.full((200,), sigma))
        assert seen[-1][0].std().item() == pytest.approx(1.0, abs=0.03)
        assert float(seen[-1][1][0]) == pytest.approx(NOISE_SCALE * math.log(sigma), rel=1e-5)


def test_training_asks_for_every_level_alike() -> None:
    model, told = tiny(shape=(2,), levels=None), []
    model.net.register_forward_hook(lambda module, given, result: told.append((given[1] / NOISE_SCALE).exp()))
    model.loss(Batch(torch.zeros(8000, 2)), "network")
    counts = torch.stack([torch.isclose(told[0], sigma, rtol=1e-3).sum() for sigma in model.sigmas])
    assert int(counts.sum()) == 8000
    assert (counts - 1000).abs().max().item() < 4 * math.sqrt(8000 * 0.125 * 0.875)


# Samples


def test_samples_are_integers_made_by_the_given_generator_alone() -> None:
    model = tiny(levels=17)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.shape) == (torch.uint8, (7, 1, 4, 4))
    assert int(first.max()) <= 16
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))


def test_the_network_is_called_at_every_step_of_the_chain_and_once_more() -> None:
    model, counted = tiny(), []
    model.network.register_forward_hook(lambda module, given, result: counted.append(1))
    model.sample(3, generator=seeded())
    assert len(counted) == 8 * 2 + 1


@OUTPUTS
def test_with_the_exact_score_samples_have_the_moments_of_the_data(output: str) -> None:
    means = torch.full((1, 2500), -0.1)
    model = exact(means=means, std=0.25, shape=(1, 50, 50), output=output, num_levels=60)
    x = to_signed(with_sampling(model, steps_per_level=20, step_size=0.1).sample(8, generator=seeded()), 256)
    assert x.mean().item() == pytest.approx(-0.1, abs=4 * 0.25 / math.sqrt(20_000) + 5e-3)
    assert x.std().item() == pytest.approx(0.25, rel=4 / math.sqrt(40_000) + 0.03)


@pytest.mark.slow
def test_a_trained_model_draws_eight_modes_in_about_equal_numbers() -> None:
    torch.manual_seed(0)
    law = Toy2D(law="gaussians8")
    config = dataclasses.replace(TINY, vector_width=64, vector_blocks=2, data_std=1.0, num_levels=25, sigma_max=8.0)
    model = NCSN(law.spec, config)
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1000)
    x = law.load("train", range(30_000)).x
    for step in range(1000):
        loss = model.loss(Batch(x[step % 60 :: 60]), "network").total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    drawn = with_sampling(model, steps_per_level=10, step_size=0.2).sample(2000, generator=seeded())
    distance, nearest = torch.cdist(drawn.double(), torch.from_numpy(means_of("gaussians8"))).min(1)
    counts = torch.bincount(nearest, minlength=8)
    assert int(counts.min()) > 125
    assert int(counts.max()) < 375
    assert distance.square().mean().sqrt().item() < 0.3  # sqrt(2) 0.1 of the law itself


# Settings


def test_it_claims_no_likelihood() -> None:
    assert not isinstance(tiny(), Likelihood)


def test_settings_can_be_read_off_the_file_and_are_checked() -> None:
    path = MODELS.path("ncsn")
    assert path is not None
    check_settings(declaration(path, "ncsn"), {"num_levels": 5, "step_size": 0.1}, owner="ncsn")
    settings = {"steps_per_level": 1, "num_levels": 5}
    model = build_model(NCSN, DataSpec(shape=(1, 8, 8)), preset="smoke", settings=settings, owner="ncsn")
    assert isinstance(model, NCSN)
    assert (model.sampling.steps_per_level, len(model.sigmas)) == (1, 5)
    with pytest.raises(SettingError, match="`num_levels` is 1, expected a whole number of at least 2"):
        build_model(NCSN, DataSpec(shape=(1, 8, 8)), preset="smoke", settings={"num_levels": 1}, owner="ncsn")


@pytest.mark.parametrize(("kind", "levels"), [("waveform", None), ("image", None), ("vector", 256)])
def test_other_data_are_refused(kind: str, levels: int | None) -> None:
    shape = (2,) if kind == "vector" else (1, 8, 8)
    with pytest.raises(ValueError, match="images of integers and vectors of floats"):
        NCSN(DataSpec(kind=kind, shape=shape, levels=levels), TINY)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small"):
        model = NCSN(DataSpec(shape=shape), NCSN.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "network").total.isfinite()
