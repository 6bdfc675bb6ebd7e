import dataclasses
import math

import pytest
import torch
from torch import Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.models.diffusion.ddpm import DDPM
from genbench.prob.pixels import to_signed

TINY = DDPM.Config(width=8, num_timesteps=12, patch=1)


def tiny(*, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256, **changes: object) -> DDPM:
    """A small model whose zero layers are moved a little, so that the network has a say."""
    torch.manual_seed(0)
    model = DDPM(DataSpec(shape=shape, levels=levels), dataclasses.replace(TINY, **changes)).eval()
    torch.nn.init.normal_(model.unet.out.weight, std=0.1)
    return with_sampling(model, num_steps=5)


def with_sampling(model: DDPM, **changes: object) -> DDPM:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def integers(num: int, *, shape: tuple[int, int, int] = (1, 4, 4), levels: int = 256) -> Tensor:
    return torch.randint(0, levels, (num, *shape), dtype=torch.uint8, generator=seeded(5))


def test_the_paper_preset_has_the_papers_network_steps_and_training() -> None:
    config, sampling = DDPM.presets["paper"], DDPM.sampling_presets["paper"]
    network = (config.width, config.multipliers, config.num_blocks, config.attention_resolution, config.patch)
    assert network == (128, (1, 2, 2, 2), 2, 16, 1)  # tests of the U-Net count its 35.7 million parameters
    assert (config.num_timesteps, config.schedule, config.output, config.dropout) == (1000, "linear", "noise", 0.1)
    assert (sampling.sampler, sampling.num_steps, sampling.likelihood_steps) == ("ddpm", None, None)
    (phase,) = DDPM(DataSpec(shape=(3, 8, 8)), dataclasses.replace(config, width=8)).phases()
    (player,) = phase.players
    assert (phase.batch_size, player.lr, player.ema_decay, player.warmup_steps) == (128, 2e-4, 0.9999, 5000)
    assert (player.final_lr_share, player.clip_norm) == (1.0, 1.0)


@pytest.mark.parametrize("output", ["noise", "velocity"])
def test_the_loss_is_the_mean_squared_error_of_the_noise(output: str) -> None:
    model, x = tiny(output=output), integers(6)
    torch.manual_seed(3)
    loss = model.loss(Batch(x), "unet").total.item()
    torch.manual_seed(3)
    t = torch.randint(1, 13, (6,))
    eps = torch.randn(6, 1, 4, 4)
    bar = model.schedule.alpha_bar[t].float()[:, None, None, None]
    x_t = bar.sqrt() * to_signed(x, 256) + (1 - bar).sqrt() * eps
    guess = model.unet(x_t, t)
    if output == "velocity":
        guess = bar.sqrt() * guess + (1 - bar).sqrt() * x_t
    assert loss == pytest.approx((eps - guess).square().mean().item(), rel=1e-5)


def test_a_new_network_costs_the_variance_of_the_noise() -> None:
    model = DDPM(DataSpec(shape=(3, 8, 8)), dataclasses.replace(TINY, output="noise"))
    assert model.loss(Batch(integers(256, shape=(3, 8, 8))), "unet").total.item() == pytest.approx(1.0, abs=0.03)


def test_training_draws_every_step_from_the_first_to_the_last() -> None:
    model, asked = tiny(), []
    model.unet.register_forward_hook(lambda module, given, result: asked.extend(given[1].tolist()))
    for _ in range(5):
        model.loss(Batch(integers(100)), "unet")
    assert set(asked) == set(range(1, 13))


@pytest.mark.parametrize("output", ["noise", "velocity"])
def test_estimates_of_data_and_noise_add_up_to_what_was_given(output: str) -> None:
    model, t = tiny(output=output), torch.tensor([1, 3, 5, 7, 9, 10])
    torch.nn.init.normal_(model.unet.out.weight, std=1e-4)  # no estimate is clipped then
    x_t = 1e-3 * torch.randn(6, 1, 4, 4, generator=seeded())
    alpha, sigma = (values[t][:, None, None, None] for values in (model.alpha, model.sigma))
    torch.testing.assert_close(alpha * model.denoise(x_t, t) + sigma * model.predict_noise(x_t, t), x_t)


@pytest.mark.parametrize("output", ["noise", "velocity"])
def test_estimates_of_the_data_are_clipped_to_the_range_of_pixels(output: str) -> None:
    model = tiny(output=output)
    assert model.denoise(9.0 * torch.ones(2, 1, 4, 4), torch.tensor([1, 5])).abs().max() == 1.0


@pytest.mark.parametrize(
    ("sampler", "num_steps"),
    [("ddim", 5), ("ddpm", 5), ("ddpm", None), ("dpm_solver_pp", 5), ("heun", 5), ("predictor_corrector", 5)],
)
def test_samples_are_integers_made_by_the_given_generator_alone(sampler: str, num_steps: int | None) -> None:
    model = with_sampling(tiny(levels=17), sampler=sampler, num_steps=num_steps)
    before = torch.get_rng_state()
    first = model.sample(7, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.shape) == (torch.uint8, (7, 1, 4, 4))
    assert int(first.max()) <= 16
    assert torch.equal(first, model.sample(7, generator=seeded()))
    assert not torch.equal(first, model.sample(7, generator=seeded(1)))


@pytest.mark.parametrize(
    ("sampler", "num_steps", "calls"),
    [
        ("ddim", 5, 5),
        ("ddim", None, 12),
        ("ddpm", 5, 5),
        ("dpm_solver_pp", 5, 5),
        ("heun", 5, 9),
        ("predictor_corrector", 5, 10),
    ],
)
def test_the_network_is_called_as_often_as_a_sampler_says(sampler: str, num_steps: int | None, calls: int) -> None:
    model, counted = with_sampling(tiny(), sampler=sampler, num_steps=num_steps), []
    model.network.register_forward_hook(lambda module, given, result: counted.append(1))
    model.sample(3, generator=seeded())
    assert len(counted) == calls


def test_settings_of_the_sampler_go_to_the_sampler() -> None:
    spec = DataSpec(shape=(1, 8, 8))
    model = build_model(DDPM, spec, preset="smoke", settings={"sampler": "ddpm", "num_steps": 3}, owner="ddpm")
    assert isinstance(model, DDPM)
    assert (model.sampling.sampler, model.sampling.num_steps) == ("ddpm", 3)
    with pytest.raises(SettingError, match="expected one of"):
        build_model(DDPM, spec, preset="smoke", settings={"sampler": "euler"}, owner="ddpm")


def test_a_plan_can_read_every_setting_off_the_file() -> None:
    path = MODELS.path("ddpm")
    assert path is not None
    settings = {"schedule": "linear", "output": "noise", "num_steps": 3, "likelihood_variance": "beta", "eta": 1.0}
    check_settings(declaration(path, "ddpm"), settings, owner="ddpm")
    with pytest.raises(SettingError, match="schedule"):
        check_settings(declaration(path, "ddpm"), {"schedule": "straight"}, owner="ddpm")


def test_more_sampling_steps_than_the_schedule_has_are_refused() -> None:
    with pytest.raises(ValueError, match="no sub-sequence of 13"):
        with_sampling(tiny(), num_steps=13).sample(1, generator=seeded())


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
@pytest.mark.parametrize("likelihood_steps", [None, 3])
@pytest.mark.parametrize("levels", [2, 4, 256])
def test_uniform_noise_never_takes_fewer_bits_than_its_entropy(
    levels: int, likelihood_steps: int | None, variance: str
) -> None:
    model = tiny(levels=levels, num_timesteps=40)
    with_sampling(model, likelihood_steps=likelihood_steps, likelihood_variance=variance)
    log_likelihood = model.log_likelihood(integers(100, levels=levels), generator=seeded())
    assert log_likelihood.shape == (100,)
    assert -log_likelihood.mean().item() / (16 * math.log(2)) > math.log2(levels)


def test_the_stratified_bound_is_unbiased() -> None:
    model = tiny(schedule="linear")
    x = integers(1).expand(2000, -1, -1, -1)
    every = with_sampling(model, likelihood_steps=None).log_likelihood(x, generator=seeded())
    some = with_sampling(model, likelihood_steps=3).log_likelihood(x, generator=seeded(1))
    standard_error = math.sqrt((every.var() + some.var()).item() / 2000)
    assert some.var() > every.var()
    assert abs((some.mean() - every.mean()).item()) < 4 * standard_error
    assert standard_error < 0.02 * abs(every.mean().item())


@pytest.mark.parametrize(("likelihood_steps", "calls"), [(None, 12), (3, 4), (11, 12), (500, 12)])
def test_the_bound_calls_the_network_once_for_each_term(likelihood_steps: int | None, calls: int) -> None:
    model, asked = with_sampling(tiny(), likelihood_steps=likelihood_steps), []
    model.network.register_forward_hook(lambda module, given, result: asked.append(given[1].tolist()))
    model.log_likelihood(integers(2), generator=seeded())
    assert len(asked) == calls
    if calls == 12:
        assert sorted(t for t, _ in asked) == list(range(1, 13))


def test_the_bound_uses_the_given_generator_alone() -> None:
    model, x = tiny(), integers(4)
    before = torch.get_rng_state()
    first = model.log_likelihood(x, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, model.log_likelihood(x, generator=seeded()))


def test_the_bound_is_that_of_equation_5_by_hand() -> None:
    model, x = with_sampling(tiny(schedule="linear"), likelihood_steps=None), integers(1)
    x_0, generator, T = to_signed(x, 256).double(), seeded(), 12
    beta, bar = model.schedule.beta, model.schedule.alpha_bar
    total = 0.5 * (bar[T] * x_0**2 + (1 - bar[T]) - 1 - (1 - bar[T]).log()).sum()
    for t in [*range(2, T + 1), 1]:
        if t > 1:
            torch.randint(t, t + 1, (1,), generator=generator)
        eps = torch.randn(x.shape, generator=generator)
        x_t = (bar[t].sqrt() * x_0 + (1 - bar[t]).sqrt() * eps).float()
        guess = model.denoise(x_t, torch.tensor([t])).detach().double()
        if t > 1:
            mean, model_mean = (
                bar[t - 1].sqrt() * beta[t - 1] / (1 - bar[t]) * data
                + (1 - beta[t - 1]).sqrt() * (1 - bar[t - 1]) / (1 - bar[t]) * x_t
                for data in (x_0, guess)
            )
            ratio = (1 - bar[t - 1]) / (1 - bar[t])
            total += 0.5 * (ratio - 1 - ratio.log() + (mean - model_mean) ** 2 / beta[t - 1]).sum()
    normal = torch.distributions.Normal(guess, beta[0].sqrt())
    upper = torch.where(x == 255, 1.0, normal.cdf(x_0 + 1 / 255))
    lower = torch.where(x == 0, 0.0, normal.cdf(x_0 - 1 / 255))
    total -= (upper - lower).log().sum()
    assert -model.log_likelihood(x, generator=seeded()).item() == pytest.approx(total.item(), rel=1e-5)


def test_training_lowers_the_loss_and_the_bound() -> None:
    model, x = tiny(num_timesteps=100), torch.full((32, 1, 4, 4), 200, dtype=torch.uint8)
    before = model.log_likelihood(x, generator=seeded()).mean()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = model.loss(Batch(x), "unet").total
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert model.log_likelihood(x, generator=seeded()).mean() > before


def test_saved_weights_draw_the_same_samples() -> None:
    model = tiny()
    copy = with_sampling(DDPM(model.spec, model.config).eval(), num_steps=5)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.sample(4, generator=seeded()), model.sample(4, generator=seeded()))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (1, 64, 64)])
def test_presets_fit_every_size(shape: tuple[int, int, int]) -> None:
    for preset in ("smoke", "small"):
        model = DDPM(DataSpec(shape=shape), DDPM.presets[preset])
        assert model.loss(Batch(integers(2, shape=shape)), "unet").total.isfinite()


def share_forced(model: DDPM, share: float) -> DDPM:
    """A model with learned variances whose shares are all the same, and its data estimate as it was."""
    last = model.unet.out
    half = last.weight.shape[0] // 2
    last.weight.data[half:] = 0.0
    last.bias.data[half:] = 2.0 * share - 1.0
    return model


def fixed_twin(model: DDPM, **sampling: object) -> DDPM:
    """The model of fixed variances with the same weights."""
    twin = tiny(
        **{f.name: getattr(model.config, f.name) for f in dataclasses.fields(TINY)} | {"learned_variance": False}
    )
    weights, half = model.state_dict(), model.spec.shape[0]
    twin.load_state_dict(weights | {name: weights[name][:half] for name in ("unet.out.weight", "unet.out.bias")})
    return with_sampling(twin, **sampling)


@pytest.mark.parametrize(("share", "variance"), [(1.0, "beta"), (0.0, "beta_tilde")])
def test_learned_variances_at_their_bounds_are_the_fixed_ones(share: float, variance: str) -> None:
    model = share_forced(with_sampling(tiny(learned_variance=True, schedule="linear"), sampler="ddpm"), share)
    twin = fixed_twin(model, sampler="ddpm", variance=variance, num_steps=5)
    assert torch.equal(model.sample(4, generator=seeded()), twin.sample(4, generator=seeded()))
    if share == 1.0:  # the decoder's variance is beta_1 in both
        x = integers(3)
        for likelihood_steps in (None, 4):
            found = with_sampling(model, likelihood_steps=likelihood_steps).log_likelihood(x, generator=seeded())
            given = with_sampling(twin, likelihood_steps=likelihood_steps).log_likelihood(x, generator=seeded())
            torch.testing.assert_close(found, given, rtol=1e-5, atol=1e-3)


def test_the_hybrid_loss_is_the_simple_one_and_a_thousandth_of_the_bound() -> None:
    model, x = share_forced(tiny(learned_variance=True, schedule="linear"), 1.0), integers(400)
    torch.manual_seed(3)
    loss, twin = model.loss(Batch(x), "unet"), fixed_twin(model)
    torch.manual_seed(3)
    simple = twin.loss(Batch(x), "unet").total
    torch.testing.assert_close(loss.parts["l_simple"], simple.detach())
    torch.testing.assert_close(loss.total, simple + 0.001 * loss.parts["l_vlb"])


def test_the_bound_trains_the_shares_alone_and_no_gradient_is_lost() -> None:
    model, x = tiny(learned_variance=True), torch.tensor([0, 255, 7, 128]).to(torch.uint8)[:, None, None, None]
    batch = Batch(x.expand(4, 1, 4, 4))
    torch.manual_seed(1)
    model.loss(batch, "unet").total.backward()
    found = model.unet.out.weight.grad
    assert bool(torch.isfinite(found).all())
    assert found[1:].abs().max() > 0
    twin = fixed_twin(model)
    torch.manual_seed(1)
    twin.loss(batch, "unet").total.backward()
    torch.testing.assert_close(found[:1], twin.unet.out.weight.grad)


@pytest.mark.parametrize("output", ["noise", "data", "velocity"])
def test_losses_of_noise_data_and_velocity_are_one_error_with_the_weights_of_its_level(output: str) -> None:
    x = integers(1)
    found = {}
    for target in ("noise", "data", "velocity"):
        model = tiny(output=output, target=target)
        torch.manual_seed(3)
        found[target] = model.loss(Batch(x), "unet").total.item()
    torch.manual_seed(3)
    t = torch.randint(1, 13, (1,))
    alpha, sigma = (float(v[t]) for v in (model.alpha, model.sigma))
    assert found["noise"] == pytest.approx((alpha / sigma) ** 2 * found["data"], rel=1e-3)
    assert found["velocity"] == pytest.approx(found["data"] / sigma**2, rel=1e-3)


CONDITIONAL = DataSpec(shape=(1, 4, 4), num_classes=3, vocabulary=("", "low", "high"))


def conditional(kind: str, **changes: object) -> DDPM:
    torch.manual_seed(0)
    model = DDPM(CONDITIONAL, dataclasses.replace(TINY, condition=kind, **changes))
    torch.nn.init.normal_(model.unet.out.weight, std=0.1)
    return with_sampling(model, num_steps=4)


def told_batch(num: int = 6) -> Batch:
    labels = torch.arange(num) % 3
    return Batch(integers(num), y=labels, text=torch.stack([labels.clamp(max=2), labels * 0], dim=1))


@pytest.mark.parametrize("kind", ["class", "text"])
@pytest.mark.parametrize("learned", [False, True])
def test_a_condition_changes_samples_and_so_does_its_guidance(kind: str, learned: bool) -> None:
    model = conditional(kind, learned_variance=learned)
    assert model.condition_kind == kind
    model.loss(told_batch(), "unet").total.backward()
    assert all(p.grad is not None for p in model.conditioner.parameters())
    model.eval()
    torch.manual_seed(7)
    for parameter in model.parameters():  # away from the start, where residual blocks pass nothing on
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    condition = model.conditioner.of_batch(told_batch())
    one, other = condition[[1]].repeat_interleave(4, 0), condition[[2]].repeat_interleave(4, 0)
    drawn = {}
    for scale in (0.0, 1.0, 3.0):
        with_sampling(model, guidance=scale)
        drawn[scale] = [model.sample_given(told, generator=seeded()) for told in (one, other)]
    assert torch.equal(*drawn[0.0])
    assert not torch.equal(*drawn[1.0])
    assert not torch.equal(drawn[3.0][0], drawn[1.0][0])


def test_samples_that_nobody_asks_for_take_conditions_of_training() -> None:
    model = conditional("class", drop_condition=0.0)
    model.loss(told_batch(), "unet")
    model.eval()
    generator = seeded(1)
    expected = model.sample_given(model.conditioner.drawn(5, generator=generator), generator=generator)
    assert torch.equal(model.sample(5, generator=seeded(1)), expected)


def test_an_unconditional_model_cannot_be_told_anything() -> None:
    model = tiny()
    assert model.condition_kind == "none"
    with pytest.raises(SettingError, match="this model is unconditional"):
        model.sample_given(torch.zeros(2, dtype=torch.int64), generator=seeded())


def test_the_bound_of_a_conditional_model_is_that_without_a_condition() -> None:
    model, x = conditional("class").eval(), integers(3)
    found = with_sampling(model, guidance=4.0).log_likelihood(x, generator=seeded())
    for parameter in model.conditioner.embedding.parameters():
        parameter.data.add_(1.0)
    assert torch.equal(model.log_likelihood(x, generator=seeded()), found)


@pytest.mark.parametrize(
    ("sampler", "off"), [("heun", 0.02), ("dpm_solver_pp", 0.02), ("ddim", 0.1), ("predictor_corrector", 0.1)]
)
def test_samplers_of_a_perfect_denoiser_give_its_data(sampler: str, off: float) -> None:
    """For x_0 ~ N(0, 0.25^2) in every pixel, on the cosine schedule, whose last steps leave no data at all."""
    model = tiny(shape=(1, 8, 8), num_timesteps=1000, output="data", schedule="cosine")

    def perfect(x_t: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        alpha, sigma = (values[t][:, None, None, None] for values in (model.alpha, model.sigma))
        return alpha * 0.0625 / (alpha.square() * 0.0625 + sigma.square()) * x_t

    model.unet.forward = perfect
    with_sampling(model, sampler=sampler, num_steps=40, spacing="karras")
    std = to_signed(model.sample(100, generator=seeded()), 256).std().item()
    assert std == pytest.approx(0.25, rel=off)  # of order two, or of order one
