import dataclasses
import math
from itertools import pairwise

import pytest
import scipy.integrate
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.declared import check_settings, declaration
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.data.toy2d import Toy2D
from genbench.harness.train import train
from genbench.models.diffusion.vdm import VDM
from genbench.nn.monotone_schedule import MonotoneSchedule
from genbench.prob.pixels import to_signed

TINY = VDM.Config(width=8, patch=1, schedule_units=8)
STD = 0.6  # of the Gaussian data that `Linear` denoises
LEVELS = 3
EVERY = torch.cartesian_prod(torch.arange(LEVELS), torch.arange(LEVELS)).to(torch.uint8).view(9, 1, 2, 1)
LAW = torch.tensor([0.3, 0.02, 0.05, 0.1, 0.2, 0.03, 0.05, 0.05, 0.2], dtype=torch.float64)  # of those nine pictures


def tiny(*, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256, **changes: object) -> VDM:
    """A small model whose zero layers and schedule are moved a little, so that they have a say."""
    torch.manual_seed(0)
    model = VDM(DataSpec(shape=shape, levels=levels), dataclasses.replace(TINY, **changes)).eval()
    torch.nn.init.normal_(model.net.out.weight, std=0.1)
    if model.schedule.units:
        crook(model.schedule)
    return with_sampling(model, num_steps=5)


def crook(schedule: MonotoneSchedule) -> MonotoneSchedule:
    with torch.no_grad():
        schedule.a.add_(2.0 * torch.randn_like(schedule.a))
        schedule.c.add_(3.0 + torch.randn_like(schedule.c))
    return schedule


def with_sampling(model: VDM, **changes: object) -> VDM:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


class Linear(nn.Module):
    """eps_hat - z of the best denoiser of N(0, STD^2): eps_hat = sigma z / (alpha^2 STD^2 + sigma^2)."""

    def __init__(self, gamma_0: float, gamma_1: float) -> None:
        super().__init__()
        self.gamma_0, self.gap = gamma_0, gamma_1 - gamma_0

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        gamma = (self.gamma_0 + self.gap * time / 1000.0)[:, None, None, None]
        variance = torch.sigmoid(gamma)
        return z * (variance.sqrt() / ((1 - variance) * STD**2 + variance) - 1.0)


class Enumerated(Linear):
    """eps_hat - z of the best denoiser of `LAW`, by enumeration of its pictures."""

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        gamma = (self.gamma_0 + self.gap * time / 1000.0)[:, None, None, None]
        alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
        places = to_signed(EVERY, LEVELS).flatten(1)  # (9, 2)
        apart = (z.flatten(1)[:, None] - alpha.view(-1, 1, 1) * places) / sigma.view(-1, 1, 1)  # (B, 9, 2)
        weight = (LAW.log().float() - 0.5 * apart.square().sum(2)).softmax(1)  # (B, 9)
        mean = (weight @ places).view_as(z)
        return (z - alpha * mean) / sigma - z


def exact(kind: type[Linear], *, gamma_0: float = -13.3, gamma_1: float = 5.0, **changes: object) -> VDM:
    enumerated = kind is Enumerated
    spec = DataSpec(shape=(1, 2, 1) if enumerated else (1, 4, 4), levels=LEVELS if enumerated else 256)
    model = VDM(spec, dataclasses.replace(TINY, output="noise", gamma_0=gamma_0, gamma_1=gamma_1, **changes)).eval()
    model.net = kind(gamma_0, gamma_1)  # type: ignore[assignment]
    return model


def linear_error(gamma: float, dims: int) -> float:
    """E |eps - eps_hat|^2 of `Linear` at data of squared length dims STD^2."""
    variance = 1.0 / (1.0 + math.exp(-gamma))
    total = (1 - variance) * STD**2 + variance
    return dims * ((1 - variance / total) ** 2 + (1 - variance) * variance * STD**2 / total**2)


def test_the_paper_preset_has_the_authors_network_and_training() -> None:
    config, sampling = VDM.presets["paper"], VDM.sampling_presets["paper"]
    network = (config.width, config.multipliers, config.num_blocks, config.dropout, config.fourier, config.output)
    assert network == (128, (1,), 32, 0.1, (7, 8), "noise")
    assert (config.gamma_0, config.gamma_1, config.schedule, config.num_timesteps) == (-13.3, 5.0, "ends", None)
    assert (sampling.eta, sampling.clipped, sampling.bound_steps) == (1.0, False, None)
    model = VDM(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8, num_blocks=1))
    (phase,) = model.phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.betas, player.weight_decay) == (128, 2e-4, (0.9, 0.99), 0.01)
    assert (player.ema_decay, player.warmup_steps) == (0.9999, 100)
    assert model.net.stem.in_channels == 15  # 3 channels with 2 waves at each of 2 frequencies beside them


@pytest.mark.parametrize(("kind", "names"), [("fixed", 0), ("ends", 2), ("bound", 5), ("variance", 5)])
def test_the_setting_says_what_of_the_schedule_is_learned(kind: str, names: int) -> None:
    assert len(list(tiny(schedule=kind).schedule.parameters())) == names


@pytest.mark.parametrize("output", ["noise", "velocity"])
def test_the_loss_is_the_bound_in_bits_by_hand(output: str) -> None:
    """One example in eight stands for all in the reconstruction term."""
    model, x = tiny(output=output), integers(10)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "vdm")
    torch.manual_seed(3)
    x_0, t = to_signed(x, 256), (torch.rand(()) + torch.arange(10) / 10) % 1.0
    gamma, slope = model.schedule(t), 18.3 * model.schedule.shape(t)[1]
    alpha, sigma = (torch.sigmoid(g).sqrt()[:, None, None, None] for g in (-gamma, gamma))
    eps, eps_0 = torch.randn(x.shape), torch.randn(2, 1, 4, 4)
    z = alpha * x_0 + sigma * eps
    raw = model.net(z, 1000 * (gamma + 13.3) / 18.3)
    eps_hat = z + raw if output == "noise" else alpha * raw + sigma * z
    diffusion = 0.5 * slope * (eps - eps_hat).square().sum((1, 2, 3))
    end = 1 / (1 + math.exp(-5.0))
    prior = 0.5 * ((1 - end) * x_0**2 + end - 1 - math.log(end)).sum((1, 2, 3))
    z_0 = x_0[[0, 8]] + math.exp(-13.3 / 2) * eps_0
    places = to_signed(torch.arange(256), 256)
    scores = torch.distributions.Normal(places, math.exp(-13.3 / 2)).log_prob(z_0[..., None]).log_softmax(-1)
    reconstruction = -scores.gather(-1, x[[0, 8]].long()[..., None]).sum((1, 2, 3, 4))
    bits = 16 * math.log(2)
    expected = {"diffusion": diffusion, "prior": prior, "reconstruction": reconstruction}
    for name, term in expected.items():
        assert loss.parts[name].item() == pytest.approx(term.mean().item() / bits, rel=1e-4, abs=1e-5), name
    assert loss.total.item() == pytest.approx(sum(loss.parts.values()).item(), rel=1e-6)  # type: ignore[union-attr]


def test_times_of_a_batch_are_spread_evenly() -> None:
    model, told = tiny(schedule="fixed"), []
    model.net.register_forward_hook(lambda module, given, result: told.append(given[1] / 1000))
    model.loss(Batch(integers(64)), "vdm")
    gaps = told[0].sort().values.diff()
    torch.testing.assert_close(gaps, torch.full((63,), 1 / 64), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("units", ["fixed", "variance"])
def test_the_diffusion_term_is_the_integral_of_the_error_whatever_the_schedule(units: str) -> None:
    model = exact(Linear, gamma_0=-8.0, schedule=units)
    if model.schedule.units:
        crook(model.schedule)
    x_0 = STD * torch.ones(4000, 1, 4, 4)
    with_sampling(model, likelihood_evaluations=4)
    found = model._diffusion_term(x_0, seeded()).double()
    integral, _ = scipy.integrate.quad(lambda gamma: 0.5 * linear_error(gamma, 16), -8.0, 5.0)
    assert abs(found.mean().item() - integral) < 4 * found.std().item() / math.sqrt(4000)
    assert found.std().item() / math.sqrt(4000) < 0.005 * integral


def test_more_steps_of_discrete_time_lower_the_bound_to_that_of_continuous_time() -> None:
    model, x_0 = exact(Linear, gamma_0=-8.0, schedule="fixed"), STD * torch.ones(3000, 1, 4, 4)
    found = []
    for T in (4, 16, 64):
        with_sampling(model, bound_steps=T, likelihood_evaluations=64)
        terms = model._diffusion_term(x_0, seeded()).double()
        gammas = [-8.0 + 13.0 * i / T for i in range(T + 1)]
        expected = sum(0.5 * math.expm1(after - before) * linear_error(after, 16) for before, after in pairwise(gammas))
        assert abs(terms.mean().item() - expected) < 4 * terms.std().item() / math.sqrt(3000)
        found.append(terms.mean().item())
    integral, _ = scipy.integrate.quad(lambda gamma: 0.5 * linear_error(gamma, 16), -8.0, 5.0)
    assert found[0] > found[1] > found[2] > integral
    assert found[2] < 1.1 * integral


def test_some_terms_of_discrete_time_stand_for_all_without_bias() -> None:
    model, x_0 = exact(Linear, gamma_0=-8.0, schedule="fixed"), STD * torch.ones(4000, 1, 4, 4)
    every = with_sampling(model, bound_steps=32, likelihood_evaluations=32)._diffusion_term(x_0, seeded())
    some = with_sampling(model, bound_steps=32, likelihood_evaluations=5)._diffusion_term(x_0, seeded(1))
    error = math.sqrt((every.var() + some.var()).item() / 4000)
    assert abs((every.mean() - some.mean()).item()) < 4 * error
    assert error < 0.02 * every.mean().item()


@pytest.mark.parametrize("bound_steps", [None, 8])
def test_the_bound_of_the_best_denoiser_is_above_the_entropy_and_in_continuous_time_close(
    bound_steps: int | None,
) -> None:
    """The negative log-likelihood of no model is below the entropy; the law is enumerated."""
    model = with_sampling(exact(Enumerated), bound_steps=bound_steps, likelihood_evaluations=16)
    bounds = -model.log_likelihood(EVERY.repeat(3000, 1, 1, 1), generator=seeded()).double().view(3000, 9)
    mean = (bounds.mean(0) * LAW).sum().item()
    error = math.sqrt((bounds.var(0) / 3000 * LAW**2).sum().item())
    entropy = -(LAW * LAW.log()).sum().item()
    if bound_steps is None:
        assert -4 * error < mean - entropy < 4 * error + 0.02
        assert error < 0.02
    else:
        assert mean > entropy + 0.2


@pytest.mark.parametrize("bound_steps", [None, 4])
def test_all_pictures_together_have_at_most_the_probability_one(bound_steps: int | None) -> None:
    model = with_sampling(tiny(shape=(1, 2, 1), levels=LEVELS), bound_steps=bound_steps, likelihood_evaluations=8)
    mean = model.log_likelihood(EVERY.repeat(50, 1, 1, 1), generator=seeded()).view(50, 9).mean(0)
    assert 0.0 < mean.double().exp().sum().item() < 1.0


@pytest.mark.parametrize("levels", [2, 256])
def test_uniform_noise_never_takes_fewer_bits_than_its_entropy(levels: int) -> None:
    model = with_sampling(tiny(levels=levels), likelihood_evaluations=4)
    log_likelihood = model.log_likelihood(integers(50, levels=levels), generator=seeded())
    assert log_likelihood.shape == (50,)
    assert -log_likelihood.mean().item() / (16 * math.log(2)) > math.log2(levels)


def test_the_shape_of_the_schedule_follows_the_square_of_the_loss_and_all_else_the_loss() -> None:
    """One backward pass gives what two would: the gradient of the mean of squares, and that of the mean."""
    x, bits = integers(8), 1.0 / (16 * math.log(2))
    one = tiny(schedule="variance")
    torch.manual_seed(3)
    one.loss(Batch(x), "vdm").total.backward()
    two = tiny(schedule="bound")
    two.load_state_dict(one.state_dict())
    torch.manual_seed(3)
    two.loss(Batch(x), "vdm").total.backward(inputs=[*two.net.parameters(), two.schedule.first, two.schedule.gap])
    torch.manual_seed(3)
    t = (torch.rand(()) + torch.arange(8) / 8) % 1.0
    term = bits * two._continuous_term(to_signed(x, 256), t, None)
    shape = [two.schedule.a, two.schedule.b, two.schedule.c]
    of_square = torch.autograd.grad(term.square().mean(), shape)
    for ours, theirs in zip([one.schedule.a, one.schedule.b, one.schedule.c], of_square, strict=True):
        assert float(theirs.abs().max()) > 0.0
        torch.testing.assert_close(ours.grad, theirs, rtol=2e-3, atol=1e-6)
    for name in ("first", "gap"):
        torch.testing.assert_close(
            getattr(one.schedule, name).grad, getattr(two.schedule, name).grad, rtol=1e-3, atol=0
        )
    torch.testing.assert_close(one.net.out.weight.grad, two.net.out.weight.grad, rtol=1e-3, atol=1e-5)


def test_learning_the_shape_lowers_the_variance_of_the_loss_and_not_its_mean() -> None:
    model, x_0 = exact(Linear, gamma_0=-12.0), STD * torch.ones(512, 1, 4, 4)

    def moments() -> tuple[float, float]:
        terms = model._continuous_term(x_0.repeat(20, 1, 1, 1), torch.rand(10_240, generator=seeded()), seeded(1))
        return terms.mean().item(), terms.std().item()

    mean_before, std_before = moments()
    optimiser = torch.optim.Adam([model.schedule.a, model.schedule.b, model.schedule.c], lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        t = (torch.rand(()) + torch.arange(512) / 512) % 1.0
        model._continuous_term(x_0, t, None, scaled_by=0.05).mean().backward()
        optimiser.step()
    mean_after, std_after = moments()
    assert std_after < 0.7 * std_before
    assert mean_after == pytest.approx(mean_before, abs=5 * std_before / math.sqrt(10_240))


def test_the_ends_move_to_lower_the_bound() -> None:
    """Data in two levels need little of the signal that 256 levels need: gamma_0 rises."""
    model = tiny(levels=2, schedule="ends", gamma_0=-8.0)
    optimiser = torch.optim.Adam(model.schedule.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        model.loss(Batch(integers(32, levels=2)), "vdm").total.backward()
        optimiser.step()
    assert model.schedule.first.item() > -7.5


def test_samples_of_the_best_denoiser_follow_the_law() -> None:
    model = with_sampling(exact(Enumerated), num_steps=200, clipped=False)
    x = model.sample(5000, generator=seeded()).flatten(1).long()
    shares = torch.bincount(LEVELS * x[:, 0] + x[:, 1], minlength=9) / 5000
    assert (shares - LAW).abs().max().item() < 4 * math.sqrt(0.25 / 5000)


def test_a_step_is_the_ancestral_step_of_the_paper() -> None:
    """z_s = alpha_s / alpha_t (z_t - c sigma_t eps_hat) + sqrt(c) sigma_s eps with c = -expm1(gamma_s - gamma_t)."""
    model = with_sampling(tiny(), num_steps=2, clipped=False)
    generator = seeded()
    z = torch.randn(50, 1, 4, 4, generator=generator)
    gamma = model.schedule(torch.tensor([1.0, 0.5, 0.0])).detach()
    for g_t, g_s in pairwise(gamma):
        alpha_t, sigma_t, alpha_s, sigma_s = (torch.sigmoid(g).sqrt() for g in (-g_t, g_t, -g_s, g_s))
        share = ((g_t + 13.3) / 18.3).expand(50)
        with torch.no_grad():
            eps_hat = model._noise_in(z, share, alpha_t, sigma_t)
        c = -torch.expm1(g_s - g_t)
        noise = torch.randn(z.shape, generator=generator)
        z = alpha_s / alpha_t * (z - c * sigma_t * eps_hat) + c.sqrt() * sigma_s * noise
    by_hand = ((z / alpha_s + 1) * 127.5).round().clamp(0, 255)
    apart = (model.sample(50, generator=seeded()).float() - by_hand).abs()
    assert float(apart.max()) <= 1.0  # a pixel may round the other way
    assert float(apart.mean()) < 0.01


@pytest.mark.parametrize("changes", [{}, {"fourier": (7, 8)}, {"schedule": "bound", "num_timesteps": 10}])
def test_samples_are_integers_made_by_the_given_generator_alone(changes: dict[str, object]) -> None:
    model = tiny(levels=17, **changes)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.shape) == (torch.uint8, (7, 1, 4, 4))
    assert int(first.max()) <= 16
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))


def test_the_network_sees_waves_of_every_pixel_beside_it() -> None:
    seen: list[Tensor] = []
    model = tiny(fourier=(2,))
    model.net.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    model.loss(Batch(integers(3)), "vdm")
    z = seen[0][:, :1]
    torch.testing.assert_close(seen[0], torch.cat([z, (4 * math.pi * z).sin(), (4 * math.pi * z).cos()], 1))


@pytest.mark.parametrize(
    ("changes", "name", "calls"),
    [
        ({"likelihood_evaluations": 7}, "variational bound in continuous time, 7 evaluations", 7),
        ({"bound_steps": 12, "likelihood_evaluations": 7}, "variational bound, 7 of 12 terms", 7),
        ({"bound_steps": 12, "likelihood_evaluations": 90}, "variational bound, 12 of 12 terms", 12),
    ],
)
def test_the_bound_says_how_it_is_made_and_calls_the_network_as_often(
    changes: dict[str, object], name: str, calls: int
) -> None:
    model, counted = with_sampling(tiny(), **changes), []
    model.network.register_forward_hook(lambda module, given, result: counted.append(1))
    before = torch.get_rng_state()
    model.log_likelihood(integers(2), generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (model.likelihood_estimator, len(counted)) == (name, calls)


def test_a_schedule_of_discrete_time_cannot_be_learned_by_variance() -> None:
    with pytest.raises(ValueError, match="learn it by `bound`"):
        VDM.Config(schedule="variance", num_timesteps=100)
    with pytest.raises(ValueError, match="gamma rises"):
        VDM.Config(gamma_0=6.0)


def test_a_plan_can_read_every_setting_off_the_file() -> None:
    path = MODELS.path("vdm")
    assert path is not None
    settings = {"schedule": "ends", "output": "noise", "num_steps": 3, "bound_steps": 100, "num_timesteps": 50}
    check_settings(declaration(path, "vdm"), settings, owner="vdm")


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small"):
        model = VDM(DataSpec(shape=shape), VDM.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "vdm").total.isfinite()


def test_the_bound_of_vectors_is_close_to_their_density_and_above() -> None:
    """The best denoiser of N(0, STD^2): all of the gap is what z_0 and z_1 leave, far below the estimate's noise."""
    torch.manual_seed(0)
    spec, num = DataSpec(kind="vector", shape=(2,), levels=None), 20_000
    model = VDM(spec, dataclasses.replace(VDM.presets["smoke"], schedule="fixed", gamma_0=-9.0, output="noise")).eval()
    model.net = LinearVectors(-9.0, 5.0)  # type: ignore[assignment]
    with_sampling(model, likelihood_evaluations=40, num_steps=1000)
    x = STD * torch.randn(num, 2, generator=seeded(2))
    gap = torch.distributions.Normal(0.0, STD).log_prob(x).sum(1) - model.log_likelihood(x, generator=seeded())
    error = gap.std().item() / math.sqrt(num)
    assert error < 0.02
    assert -4 * error < gap.mean().item() < 4 * error + 0.01
    drawn = model.sample(num, generator=seeded())
    assert drawn.dtype == torch.float32
    assert drawn.std().item() == pytest.approx(STD, rel=4 / math.sqrt(4 * num) + 0.01)


class LinearVectors(Linear):
    """The same for vectors."""

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        return super().forward(z[..., None, None], time)[..., 0, 0]


@pytest.mark.slow
def test_vectors_are_learned_to_within_a_fraction_of_a_nat() -> None:
    dataset = build_dataset(parse_ref("toy2d[law=gaussians8]"))
    assert isinstance(dataset, Toy2D)
    settings = {"batch_size": 128, "likelihood_evaluations": 40, "vector_width": 64, "vector_blocks": 2}
    model = build_model(VDM, dataset.spec, preset="smoke", settings=settings, owner="vdm")
    assert isinstance(model, VDM)
    train(model, dataset.load("train", range(20_000)), samples_seen=128 * 600, seed=0)
    held_out = dataset.load("test", range(4000)).x
    excess = dataset.log_density(held_out) - model.log_likelihood(held_out, generator=seeded())
    error = excess.std().item() / math.sqrt(4000)
    assert -4 * error < excess.mean().item() < 1.5  # a normal law has 2.5
    assert error < 0.06
