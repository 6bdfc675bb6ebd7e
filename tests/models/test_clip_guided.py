"""Guidance by a dual encoder: what is climbed, against finite differences; what is not, bit by bit."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.features import SteeringEncoder, build_features
from genbench.core.model import build_model
from genbench.core.spec import parse_ref
from genbench.data.shapes import Shapes
from genbench.models.diffusion.clip_guided import CLIPGuided
from genbench.models.diffusion.ddpm import DDPM
from genbench.nn.noisy_dual_encoder import similarity_slope

DATA = Shapes(resolution=8)
VARIANTS = pytest.mark.parametrize("variant", ["noise_aware", "x0_estimate"])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def made(**settings):
    """A model away from its start, where networks answer 0."""
    torch.manual_seed(0)
    model = build_model(
        CLIPGuided, DATA.spec, preset="smoke", settings={"num_steps": 5, **settings}, owner="clip_guided"
    )
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.prepare(DATA.load("train", range(16)))
    return model.eval()


def at(model, **settings):
    model.sampling = dataclasses.replace(model.sampling, **settings)
    return model


@VARIANTS
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver_pp"])
def test_at_scale_0_draws_are_those_of_the_unconditional_model_bit_by_bit(variant, sampler):
    model = made(variant=variant, clip_scale=0.0, sampler=sampler)
    plain = build_model(
        DDPM, DATA.spec, preset="smoke", settings={"num_steps": 5, "sampler": sampler}, owner="ddpm"
    ).eval()
    plain.unet.load_state_dict(model.unet.state_dict())
    captions = DATA.load("test", range(6)).text
    drawn = model.sample_given(captions, generator=seeded())
    assert torch.equal(drawn, plain.sample(6, generator=seeded()))
    assert torch.equal(drawn, model.sample_given(captions.flip(0), generator=seeded()))
    assert not torch.equal(drawn, at(model, clip_scale=5.0).sample_given(captions, generator=seeded()))


@VARIANTS
def test_what_is_climbed_is_the_gradient_of_the_similarity_by_finite_differences(variant):
    model = made(variant=variant).double()
    captions, t = DATA.load("test", range(3)).text, torch.tensor([40, 300, 700])
    x_t = torch.randn(3, 3, 8, 8, generator=seeded(), dtype=torch.float64)
    along = torch.randn(x_t.shape, generator=seeded(1), dtype=torch.float64)
    if variant == "x0_estimate":
        model._steering["shapes_clip"] = build_features(parse_ref("shapes_clip")).double()
        model._steering["shapes_clip"].network.forward = _exact(model._steering["shapes_clip"].network)
    how = model.similarity_of_noised if variant == "noise_aware" else model.similarity_of_estimate
    similarity, h = how(captions), 1e-5
    with torch.no_grad():
        measured = (similarity(x_t + h * along, t) - similarity(x_t - h * along, t)) / (2 * h)
    slope = similarity_slope(similarity, x_t, t)
    torch.testing.assert_close((slope * along).flatten(1).sum(1), measured, rtol=1e-5, atol=1e-8)


def _exact(network):
    """The tower of pictures without its cast to float32, which finite differences would see."""

    def forward(images):
        x = F.interpolate(images / 127.5 - 1.0, size=(32, 32), mode="bilinear", align_corners=False)
        return network.image_features(network.convolutions(x).flatten(1))

    return forward


def test_the_gradient_of_the_shipped_encoder_is_that_of_its_embedding():
    encoder = build_features(parse_ref("shapes_clip"))
    assert isinstance(encoder, SteeringEncoder)
    pictures = DATA.load("test", range(4)).x
    signed = pictures.float() / 127.5 - 1.0
    torch.testing.assert_close(encoder.embed_signed(signed), encoder(pictures), rtol=1e-4, atol=1e-4)
    assert encoder.sharpness == pytest.approx(1 / 0.0427)


@VARIANTS
def test_the_gradient_is_cut_where_no_exact_one_can_be(variant):
    model = made(variant=variant)
    captions = DATA.load("test", range(2)).text
    x_t, t = torch.randn(2, 3, 8, 8, generator=seeded()), torch.tensor([20, 1000])
    for scale in (1.0, 7.0):
        found = at(model, clip_scale=scale).slope(captions)(x_t, t).abs().amax((1, 2, 3))
        most = scale * 2.0 * model.alpha[t] / model.sigma[t].square()
        assert (found <= most * (1 + 1e-5)).all()
        assert (found > 0.0).all()


@VARIANTS
def test_more_scale_makes_samples_that_are_nearer_to_their_captions_by_who_steers(variant):
    model = made(variant=variant, num_steps=10)
    captions = DATA.load("test", range(24)).text
    how = model.similarity_of_noised if variant == "noise_aware" else model.similarity_of_estimate
    similarity, clean = how(captions), torch.ones(24, dtype=torch.int64)
    found = []
    for scale in (0.0, 2.0, 20.0):
        drawn = at(model, clip_scale=scale).sample_given(captions, generator=seeded())
        with torch.no_grad():
            found.append(similarity(drawn.float() / 127.5 - 1.0, clean).mean().item())
    assert found[0] < found[1] < found[2]


def test_a_step_of_the_noise_aware_variant_is_one_evaluation_and_one_of_the_other_two():
    captions = DATA.load("test", range(2)).text
    for variant, expected in (("noise_aware", 5), ("x0_estimate", 9)):  # the last step of `ddpm` is not shifted
        model, calls = made(variant=variant), []
        handle = model.network.register_forward_hook(lambda *_, kept=calls: kept.append(1))
        model.sample_given(captions, generator=seeded())
        handle.remove()
        assert len(calls) == expected


def test_samples_are_the_same_under_inference_mode():
    captions = DATA.load("test", range(2)).text
    for variant in ("noise_aware", "x0_estimate"):
        model = made(variant=variant)
        drawn = model.sample_given(captions, generator=seeded())
        with torch.inference_mode():
            assert torch.equal(model.sample_given(captions, generator=seeded()), drawn)


def test_who_steers_is_named_and_only_where_it_does():
    model = made(variant="x0_estimate")
    assert model.steered_by == "shapes_clip"
    assert at(model, clip_scale=0.0).steered_by is None
    assert at(model, variant="noise_aware", clip_scale=1.0).steered_by is None


@pytest.mark.slow
def test_the_encoder_learns_which_caption_belongs_to_which_noised_picture():
    model = made().train()
    optimiser = torch.optim.Adam(model.encoder.parameters(), lr=2e-3)
    torch.manual_seed(0)
    found = []
    for step in range(150):
        batch = DATA.load("train", range(64 * step, 64 * step + 64))
        loss = model.loss(batch, "encoder")
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        found.append(float(loss.parts["retrieval"]))
    assert sum(found[:10]) / 10 < 0.1
    assert sum(found[-10:]) / 10 > 0.15  # of times at random, at half of which next to nothing can be seen


def test_both_players_learn_and_captions_of_training_are_kept():
    model = made().train()
    assert [phase.name for phase in model.phases()] == ["diffusion", "encoder"]
    batch = DATA.load("train", range(100, 140))
    for player, module in (("network", model.unet), ("encoder", model.encoder)):
        model.zero_grad()
        model.loss(batch, player).total.backward()
        assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []
    drawn = model.drawn_conditions(50, generator=seeded())
    assert {tuple(row) for row in drawn.tolist()} <= {tuple(row) for row in batch.text.tolist()}


def test_with_captions_told_both_ways_of_guiding_add_up():
    captions = DATA.load("test", range(4)).text
    model = made(condition="text", variant="x0_estimate")
    told = at(model, clip_scale=0.0).sample_given(captions, generator=seeded())
    assert not torch.equal(told, model.sampled(4, None, generator=seeded()))
    assert not torch.equal(told, at(model, clip_scale=3.0).sample_given(captions, generator=seeded()))


def test_data_without_captions_and_encoders_that_read_none_are_refused():
    with pytest.raises(SettingError, match="the data have none"):
        CLIPGuided(DataSpec(shape=(3, 8, 8), num_classes=4), CLIPGuided.presets["smoke"])
    with pytest.raises(SettingError, match="embeds no captions"):
        made(variant="x0_estimate", encoder="shapes_net").sample(2, generator=seeded())
    with pytest.raises(SettingError, match="to learn from"):
        made().loss(Batch(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), "network")


def test_guidance_0_of_a_network_that_is_told_captions_draws_as_if_nothing_were_told():
    settings = {"condition": "text", "guidance": 0.0, "num_steps": 5}
    torch.manual_seed(0)
    model = build_model(DDPM, DATA.spec, preset="smoke", settings=settings, owner="ddpm").eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    captions = DATA.load("test", range(4)).text
    drawn = model.sample_given(captions, generator=seeded())
    assert torch.equal(drawn, model.sampled(4, None, generator=seeded()))
