"""What a classifier adds to the diffusion that `ddpm` is tested for, on a mixture known exactly and on pictures."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.settings import field_names
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.diffusion.guided_diffusion import GuidedDiffusion
from genbench.prob.pixels import to_signed

TINY = GuidedDiffusion.Config(width=8, classifier_width=8, num_timesteps=12, patch=1)
SPEC = DataSpec(shape=(1, 4, 4), num_classes=3)


def tiny(spec: DataSpec = SPEC, **changes: object) -> GuidedDiffusion:
    """A small model whose zero layers are moved a little, so that its networks have a say."""
    torch.manual_seed(0)
    model = GuidedDiffusion(spec, dataclasses.replace(TINY, **changes))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return with_sampling(model.eval(), num_steps=4)


def with_sampling(model: GuidedDiffusion, **changes: object) -> GuidedDiffusion:
    model.sampling = dataclasses.replace(model.sampling, **changes)
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(num: int = 6) -> Batch:
    x = torch.randint(0, 256, (num, 1, 4, 4), dtype=torch.uint8, generator=seeded(5))
    return Batch(x, y=torch.arange(num) % 3)


def test_the_paper_preset_has_the_papers_sizes_and_training() -> None:
    config, sampling = GuidedDiffusion.presets["paper"], GuidedDiffusion.sampling_presets["paper"]
    assert (config.width, config.multipliers, config.num_blocks, config.dropout) == (192, (1, 2, 3, 4), 3, 0.1)
    assert (config.classifier_width, config.classifier_blocks, config.classifier_heads) == (128, 4, 8)
    assert (config.classifier_lr, config.classifier_weight_decay, config.batch_size) == (3e-4, 0.05, 256)
    assert (config.lr, config.final_lr_share, config.ema_decay) == (1e-4, 1.0, 0.9999)
    assert (config.schedule, config.learned_variance, config.condition) == ("cosine", True, "class")
    assert (sampling.sampler, sampling.num_steps, sampling.classifier_scale) == ("ddpm", 250, 1.0)


def test_settings_go_where_they_belong_and_no_name_is_both_the_models_and_the_samplers() -> None:
    path = MODELS.path("guided_diffusion")
    assert path is not None
    assert not set(field_names(GuidedDiffusion.Config)) & set(field_names(GuidedDiffusion.Sampling))
    settings = {"classifier_share": 0.4, "classifier_scale": 3.0, "condition": "class", "sampler": "ddim"}
    check_settings(declaration(path, "guided_diffusion"), settings, owner="guided_diffusion")
    model = build_model(GuidedDiffusion, SPEC, preset="smoke", settings=settings, owner="guided_diffusion")
    assert isinstance(model, GuidedDiffusion)
    assert (model.config.classifier_share, model.config.condition) == (0.4, "class")
    assert (model.sampling.classifier_scale, model.sampling.sampler) == (3.0, "ddim")
    for wrong in ({"condition": "text"}, {"classifier_share": 1.0}):
        with pytest.raises(SettingError):
            build_model(GuidedDiffusion, SPEC, preset="smoke", settings=wrong, owner="guided_diffusion")


# Training


def test_the_classifier_learns_the_classes_of_images_noised_to_all_times() -> None:
    model, given = tiny(), batch(400)
    asked: list[int] = []
    model.classifier.register_forward_hook(lambda module, inputs, result: asked.extend(inputs[1].tolist()))
    torch.manual_seed(3)
    loss = model.loss(given, "classifier")
    torch.manual_seed(3)
    t = torch.randint(1, 13, (400,))
    eps = torch.randn(400, 1, 4, 4)
    bar = model.schedule.alpha_bar[t].float()[:, None, None, None]
    logits = model.classifier(bar.sqrt() * to_signed(given.x, 256) + (1 - bar).sqrt() * eps, t)
    assert set(asked) == set(range(1, 13))
    torch.testing.assert_close(loss.total, F.cross_entropy(logits, given.y))
    assert loss.parts["accuracy"].item() == pytest.approx((logits.argmax(1) == given.y).float().mean().item())


@pytest.mark.parametrize("condition", ["none", "class"])
@pytest.mark.parametrize("learned", [False, True])
def test_every_phase_teaches_its_own_network_and_no_other(condition: str, learned: bool) -> None:
    model = tiny(condition=condition, learned_variance=learned)
    touched = {"network": {"unet", "conditioner"} if condition == "class" else {"unet"}, "classifier": {"classifier"}}
    phases = model.phases()
    assert [phase.name for phase in phases] == ["diffusion", "classifier"]
    assert sum(phase.share for phase in phases) == pytest.approx(1.0)
    for phase in phases:
        (player,) = phase.players
        model.zero_grad(set_to_none=True)
        for _ in range(4):  # some rare class or step may be missing from one batch
            model.loss(batch(60), player.name).total.backward()
        named = dict(model.named_parameters())
        moved = {name for name, parameter in named.items() if parameter.grad is not None and parameter.grad.any()}
        assert {name.partition(".")[0] for name in moved} == touched[player.name]
        own = {id(parameter) for module in player.modules for parameter in module.parameters()}
        assert {id(named[name]) for name in moved} == own


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingError, match="guides to classes: the data have none"):
        GuidedDiffusion(DataSpec(shape=(1, 4, 4)), TINY)
    with pytest.raises(ValueError, match="`guided_diffusion` models images of integers"):
        GuidedDiffusion(DataSpec(kind="vector", shape=(2,), levels=None, num_classes=2), TINY)
    with pytest.raises(SettingError, match="no class to learn from"):
        tiny().loss(Batch(batch().x), "network")


# Samples


@pytest.mark.parametrize("condition", ["none", "class"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver_pp", "heun", "predictor_corrector"])
def test_the_classifier_moves_samples_to_a_class_and_at_scale_0_not_at_all(sampler: str, condition: str) -> None:
    model = with_sampling(tiny(condition=condition), sampler=sampler)
    drawn = {}
    for scale in (0.0, 1.0, 5.0):
        with_sampling(model, classifier_scale=scale)
        drawn[scale] = [model.sample_given(torch.full((4,), y), generator=seeded()) for y in (0, 1)]
    assert torch.equal(*drawn[0.0]) == (condition == "none")
    assert not torch.equal(*drawn[5.0])
    assert not torch.equal(drawn[5.0][0], drawn[0.0][0])
    model.classifier.pool.out.weight.data.zero_()  # nothing depends on the picture any more
    flat = model.sample_given(torch.zeros(4, dtype=torch.int64), generator=seeded())
    assert torch.equal(flat, drawn[0.0][0])


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver_pp", "heun", "predictor_corrector"])
def test_however_steep_a_wrong_classifier_a_small_scale_moves_samples_little(sampler: str) -> None:
    model = with_sampling(tiny(num_timesteps=1000, output="data", schedule="cosine"), sampler=sampler, num_steps=15)
    signs = torch.randn(16, generator=seeded(3)).sign()

    def denoised(x_t: Tensor, t: Tensor) -> Tensor:
        """Of pixels that are N(0, 0.3^2)."""
        alpha, sigma = (values[t][:, None, None, None] for values in (model.alpha, model.sigma))
        return 0.09 * alpha / (0.09 * alpha.square() + sigma.square()) * x_t

    def steep(x_t: Tensor, t: Tensor) -> Tensor:
        return F.pad(100.0 * (x_t.flatten(1) * signs).sum(1, keepdim=True), (0, 2))

    model.unet.forward, model.classifier.forward = denoised, steep
    asked, drawn = torch.zeros(16, dtype=torch.int64), {}
    for scale in (0.0, 0.001, 1.0):
        drawn[scale] = with_sampling(model, classifier_scale=scale).sample_given(asked, generator=seeded()).float()
    assert (drawn[0.001] - drawn[0.0]).abs().max() <= 15 * 0.001 * 255.0 + 1.0  # of each step, and of rounding
    assert (drawn[1.0] - drawn[0.0]).abs().mean() > 2.0


@pytest.mark.parametrize("learned", [False, True])
def test_samples_are_made_by_the_given_generator_alone_in_inference_mode_too(learned: bool) -> None:
    model, labels = tiny(learned_variance=learned), torch.tensor([0, 1, 2])
    before = torch.get_rng_state()
    first = model.sample_given(labels, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.dtype, first.shape, first.requires_grad) == (torch.uint8, (3, 1, 4, 4), False)
    assert not torch.equal(first, model.sample_given(labels, generator=seeded(1)))
    with torch.inference_mode():
        assert torch.equal(model.sample_given(labels.clone(), generator=seeded()), first)


@pytest.mark.parametrize(("sampler", "calls", "judged"), [("ddpm", 4, 3), ("ddim", 4, 4), ("heun", 7, 7)])
def test_the_classifier_is_asked_once_for_each_evaluation_of_the_network(sampler: str, calls: int, judged: int) -> None:
    model, rows = with_sampling(tiny(condition="class"), sampler=sampler), {"unet": [], "classifier": []}
    for name, found in rows.items():
        module = getattr(model, name)
        module.register_forward_pre_hook(lambda module, given, found=found: found.append(len(given[0])))
    assert model.network is model.unet
    for guidance, factor in ((1.0, 1), (3.0, 2)):
        for found in rows.values():
            found.clear()
        with_sampling(model, guidance=guidance).sample_given(torch.tensor([0, 1]), generator=seeded())
        assert rows == {"unet": [2 * factor] * calls, "classifier": [2] * judged}


def test_samples_that_nobody_asks_for_take_classes_in_the_shares_of_training() -> None:
    model = tiny().train()
    with pytest.raises(RuntimeError, match="never trained"):
        model.sample(2, generator=seeded())
    labels = torch.tensor([0, 0, 0, 2])
    given = Batch(batch(4).x, y=labels)
    model.prepare(given)
    assert model.sample(2, generator=seeded()).shape == (2, 1, 4, 4)
    for player in ("network", "classifier"):
        model.loss(given, player)
    copy = with_sampling(GuidedDiffusion(SPEC, TINY).eval(), num_steps=4)
    copy.load_state_dict(model.eval().state_dict())
    drawn = copy.drawn_conditions(4000, generator=seeded()).bincount(minlength=3) / 4000
    torch.testing.assert_close(drawn, torch.tensor([0.75, 0.0, 0.25]), rtol=0.0, atol=0.03)
    generator = seeded(1)
    expected = copy.sample_given(copy.drawn_conditions(5, generator=generator), generator=generator)
    assert torch.equal(model.sample(5, generator=seeded(1)), expected)
    counted = model.label_counts.clone()
    model.loss(given, "classifier")
    assert torch.equal(model.label_counts, counted)  # not in evaluation


def test_the_bound_knows_no_classifier_and_no_class() -> None:
    model, x = tiny(condition="class"), batch().x
    found = with_sampling(model, classifier_scale=5.0, guidance=3.0).log_likelihood(x, generator=seeded())
    for module in (model.classifier, model.conditioner.embedding):
        for parameter in module.parameters():
            parameter.data.add_(1.0)
    assert torch.equal(model.log_likelihood(x, generator=seeded()), found)


# A mixture of two Gaussians in every one of four pixels, with exact networks

MEANS, STDS = torch.tensor([-0.25, 0.15]).double(), torch.tensor([0.1, 0.2]).double()
SHARES = torch.tensor([0.4, 0.6]).double()


def exact(**sampling: object) -> GuidedDiffusion:
    spec = DataSpec(shape=(1, 2, 2), num_classes=2)
    model = with_sampling(tiny(spec, num_timesteps=1000, output="data", schedule="linear"), **sampling)

    def parts(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the joint probabilities (B, 2), and E[x_0 | x_t, y] (B, 2, 4)."""
        alpha, sigma = (values[t][:, None, None] for values in (model.schedule.alpha, model.schedule.sigma))
        mean, std = MEANS[:, None], STDS[:, None]
        variance, gap = (alpha * std).square() + sigma.square(), x_t.double().flatten(1)[:, None] - alpha * mean
        log_joint = SHARES.log() - 0.5 * (gap.square() / variance + variance.log()).sum(2)
        return log_joint, mean + alpha * std.square() / variance * gap

    def denoised(x_t: Tensor, t: Tensor) -> Tensor:
        log_joint, each = parts(x_t, t)
        return (log_joint.softmax(1)[:, :, None] * each).sum(1).view(x_t.shape).float()

    model.unet.forward = denoised
    model.classifier.forward = lambda x_t, t: parts(x_t, t)[0].float()
    return model


def of_class(y: int, **sampling: object) -> GuidedDiffusion:
    """Without a classifier, around the exact network of one class."""
    model = exact(classifier_scale=0.0, **sampling)

    def denoised(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (values[t][:, None, None, None] for values in (model.schedule.alpha, model.schedule.sigma))
        share = alpha * STDS[y].square() / ((alpha * STDS[y]).square() + sigma.square())
        return (MEANS[y] + share * (x_t.double() - alpha * MEANS[y])).float()

    model.unet.forward = denoised
    return model


@pytest.mark.parametrize(
    "sampling",
    [
        {"sampler": "ddim", "num_steps": 100},
        {"sampler": "dpm_solver_pp", "num_steps": 40, "spacing": "karras"},
        {"sampler": "heun", "num_steps": 30},
    ],
    ids=str,
)
@pytest.mark.parametrize("y", [0, 1])
def test_exact_networks_at_scale_1_draw_what_the_network_of_the_class_would(
    sampling: dict[str, object], y: int
) -> None:
    asked = torch.full((256,), y)
    guided, told = (
        model.sample_given(asked, generator=seeded()) for model in (exact(**sampling), of_class(y, **sampling))
    )
    assert (guided.int() - told.int()).abs().max() <= 1  # a level, where single precision rounds to either side
    every = exact(**sampling, classifier_scale=0.0).sample_given(asked, generator=seeded())
    assert (guided.int() - every.int()).abs().max() > 20


@pytest.mark.parametrize("variance", ["beta", "beta_tilde"])
@pytest.mark.parametrize("y", [0, 1])
def test_shifted_means_draw_nearly_the_law_of_the_class(variance: str, y: int) -> None:
    sampling, asked = {"sampler": "ddpm", "num_steps": 250, "variance": variance}, torch.full((2000,), y)
    guided, told = (
        to_signed(model.sample_given(asked, generator=seeded()), 256).double()
        for model in (exact(**sampling), of_class(y, **sampling))
    )
    std = STDS[y].item()
    assert guided.mean().item() == pytest.approx(told.mean().item(), abs=0.1 * std)
    assert guided.std().item() == pytest.approx(told.std().item(), rel=0.1)
    assert guided.mean().item() == pytest.approx(MEANS[y].item(), abs=0.1 * std)


@pytest.mark.slow
def test_pictures_are_taken_for_the_class_that_was_asked_the_more_the_larger_the_scale() -> None:
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    torch.manual_seed(0)
    settings = {"classifier_share": 0.6}
    model = build_model(GuidedDiffusion, data.spec, preset="smoke", settings=settings, owner="guided_diffusion")
    assert isinstance(model, GuidedDiffusion)
    train(model, data.load("train", range(4096)), samples_seen=16_000, seed=0)
    model.eval()
    asked, right = torch.arange(data.spec.num_classes).repeat(256 // data.spec.num_classes), {}
    for scale in (0.0, 6.0, 30.0):
        drawn = with_sampling(model, classifier_scale=scale).sample_given(asked, generator=seeded())
        with torch.no_grad():
            logits = model.classifier(to_signed(drawn, 256), torch.ones(len(drawn), dtype=torch.int64))
        right[scale] = (logits.argmax(1) == asked).float().mean().item()
    assert right[30.0] > right[0.0] + 0.15
    assert right[30.0] > right[6.0] > right[0.0]
