import functools
import math

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.vq.fsq import FSQ

TINY = DataSpec(shape=(1, 2, 2), levels=2)
IMAGES = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2).to(torch.uint8)
FEW = IMAGES[torch.tensor([0, 15, 3, 12])]
CONFIG = FSQ.Config(levels="5x5", num_halvings=1, width=8, num_blocks=1, prior_width=8, prior_layers=1)
NUM_CODES = 25


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _images(channels: int, side: int, levels: int, count: int = 4) -> torch.Tensor:
    return torch.randint(0, levels, (count, channels, side, side), generator=_generator(), dtype=torch.uint8)


def _smoke(channels: int = 3, side: int = 8, levels: int = 256, **settings) -> FSQ:
    torch.manual_seed(0)
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    model = build_model(MODELS.get("fsq"), spec, preset="smoke", settings=settings, owner="fsq")
    assert isinstance(model, FSQ)
    return model


@functools.cache
def _trained(num_images: int) -> FSQ:
    """A model of 2x2 binary images after a few steps of either phase."""
    torch.manual_seed(1)
    model, x = FSQ(TINY, CONFIG), IMAGES if num_images == 16 else FEW
    for phase in model.phases():
        player = phase.players[0]
        parameters = [p for module in player.modules for p in module.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=5e-2 if player.name == "prior" else 1e-2)
        for _ in range(150):
            optimiser.zero_grad()
            model.loss(Batch(x=x), player.name).total.backward()
            optimiser.step()
    return model


def _joint(model: FSQ) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(x, c) of all 16 images and all codes, (16, K), and log p(c), (K,)."""
    codes = torch.arange(NUM_CODES).view(-1, 1, 1)
    values = model.quantizer.embed(codes)
    with torch.no_grad():
        prior = model.prior.log_prob(codes.unsqueeze(1))
        given = [model._log_prob_given(x.expand(NUM_CODES, 1, 2, 2), values) for x in IMAGES]
    return torch.stack(given) + prior, prior


def test_the_bound_is_the_joint_at_the_encoders_codes_and_below_the_sum_over_all_codes():
    model = _trained(16)
    joint, prior = _joint(model)
    assert prior.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    exact = torch.logsumexp(joint, dim=1)
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    bound = model.log_likelihood(IMAGES, generator=_generator())
    assert bool((bound < exact).all())
    torch.testing.assert_close(bound, joint.gather(1, model.encode(IMAGES).view(16, 1)).squeeze(1))


def test_samples_follow_the_probability_that_sums_over_all_codes():
    model, count = _trained(16), 20_000
    draws = model.sample(count, generator=_generator()).flatten(1).long()
    found = torch.bincount(draws @ torch.tensor([8, 4, 2, 1]), minlength=16) / count
    expected = torch.logsumexp(_joint(model)[0], dim=1).exp()
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread).all())


def test_codes_decode_and_encode_again_where_the_images_come_back_whole():
    model = _trained(4)
    codes = model.encode(FEW)
    assert torch.equal(model.reconstruct(FEW), FEW)
    assert codes.unique().numel() == 4
    assert torch.equal(model.encode(model.decode(codes)), codes)


def test_a_trained_prior_reaches_the_entropy_of_the_codes_below_log_k():
    model = _trained(4)
    found = model.loss(Batch(x=FEW), "prior").parts["nats_per_code"].item()
    assert math.log(4) - 1e-6 <= found < math.log(4) + 0.1 < math.log(NUM_CODES)


def test_the_encoder_gets_the_decoders_gradient_times_the_slope_of_the_bound():
    model, x = _smoke(), _images(3, 8, 256)
    features = model._features(x).detach().requires_grad_()
    rounded = model.quantizer(features)
    values = rounded.values.detach().requires_grad_()
    (-model._log_prob_given(x, values).mean()).backward()
    (-model._log_prob_given(x, rounded.values).mean()).backward()
    half = 7 * 0.999 / 2  # both channels of `8x8`
    slope = half / 4 * (1 - torch.tanh(features.detach() + math.atanh(0.5 / half)).square())
    torch.testing.assert_close(features.grad, values.grad * slope, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_reconstructions_alone():
    model, x = _smoke(), _images(3, 8, 256)
    loss = model.loss(Batch(x=x), "codes")
    with torch.no_grad():
        given = model._log_prob_given(x, model.quantizer.embed(model.encode(x)))
    torch.testing.assert_close(loss.total, -given.mean() / (3 * 8 * 8))
    assert set(loss.parts) == {"distortion", "perplexity"}
    assert loss.parts["perplexity"].item() <= 16  # 4 images of 2x2 codes


def test_the_prior_phase_leaves_codes_and_decoder_as_they_are():
    model, batch = _smoke(), Batch(x=_images(3, 8, 256))
    model.loss(batch, "prior").total.backward()
    touched = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"prior"}


@pytest.mark.slow
def test_a_prior_of_pictures_needs_less_than_log_k_nats_for_a_code():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _smoke()
    train(model, data.load("train", range(2048)), samples_seen=4000, seed=0)
    x = data.load("test", range(256)).x
    codes = model.encode(x)
    nats = -model.prior.log_prob(codes.unsqueeze(1)).mean().item() / codes[0].numel()
    assert nats < math.log(64) - 0.3
    assert codes.unique().numel() > 24


@pytest.mark.parametrize(
    ("channels", "side", "levels"), [(3, 8, 256), (1, 28, 256), (1, 8, 17), (3, 32, 2), (1, 64, 5)]
)
def test_images_of_any_side_pass_through_codes_and_back(channels, side, levels):
    model, x = _smoke(channels, side, levels), _images(channels, side, levels)
    codes = model.encode(x)
    assert codes.dtype == torch.int64
    assert codes.shape == (4, model.code_side, model.code_side)
    assert 0 <= int(codes.min()) <= int(codes.max()) < model.num_codes
    for images in (model.decode(codes), model.reconstruct(x), model.sample(4, generator=_generator())):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels
    assert bool(model.log_likelihood(x, generator=_generator()).isfinite().all())


def test_levels_multiply_to_the_number_of_codes():
    assert _smoke(levels=256).num_codes == 64
    spec = DataSpec(shape=(3, 8, 8), levels=256)
    model = build_model(MODELS.get("fsq"), spec, preset="small", settings={"levels": "7x5"}, owner="fsq")
    assert isinstance(model, FSQ)
    assert model.num_codes == 35


def test_levels_that_are_no_numbers_are_the_users_error():
    spec = DataSpec(shape=(3, 8, 8), levels=256)
    for levels in ("8,5", "", "8x", "-3x5"):
        with pytest.raises(SettingError, match="joined by `x`"):
            build_model(MODELS.get("fsq"), spec, preset="small", settings={"levels": levels}, owner="fsq")


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        FSQ(DataSpec(kind="vector", shape=(2,), levels=None), FSQ.Config())
