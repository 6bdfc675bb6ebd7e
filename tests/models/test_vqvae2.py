import functools
import math

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.vq.vqvae import VQVAE
from genbench.models.vq.vqvae2 import VQVAE2, Grids

TINY = DataSpec(shape=(1, 4, 4), levels=2)  # grids of 1x1 and 2x2 codes
SIZES = {"code_dim": 3, "width": 8, "num_blocks": 1, "prior_width": 8}
CONFIG = VQVAE2.Config(
    num_top_codes=3, num_bottom_codes=3, top_prior_layers=1, bottom_prior_layers=2, decay=0.8, **SIZES
)


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _images(channels: int, side: int, levels: int, count: int = 4) -> torch.Tensor:
    return torch.randint(0, levels, (count, channels, side, side), generator=_generator(), dtype=torch.uint8)


def _smoke(channels: int = 3, side: int = 8, levels: int = 256, **settings) -> VQVAE2:
    torch.manual_seed(0)
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    model = build_model(MODELS.get("vqvae2"), spec, preset="smoke", settings=settings, owner="vqvae2")
    assert isinstance(model, VQVAE2)
    model.prepare(Batch(x=_images(channels, side, levels, 64)))
    return model


def _quadrants() -> torch.Tensor:
    """All 16 images of 4x4 pixels whose quadrants are dark or bright, (16, 1, 4, 4)."""
    corners = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2).to(torch.uint8)
    return corners.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


@functools.cache
def _trained() -> VQVAE2:
    torch.manual_seed(1)
    model, x = VQVAE2(TINY, CONFIG), _quadrants()
    model.prepare(Batch(x=x))
    for phase in model.phases():
        player = phase.players[0]
        optimiser = torch.optim.Adam([p for module in player.modules for p in module.parameters()], lr=2e-2)
        for _ in range(80):
            optimiser.zero_grad()
            model.loss(Batch(x=x), player.name).total.backward()
            optimiser.step()
    return model


def _every_pair_of_grids() -> Grids:
    """All 3 x 3**4 pairs of grids of `CONFIG`, in the order of their codes read as digits."""
    codes = torch.cartesian_prod(*[torch.arange(3)] * 5)
    return Grids(codes[:, :1].view(-1, 1, 1), codes[:, 1:].reshape(-1, 2, 2))


def _log_prior(model: VQVAE2, codes: Grids) -> torch.Tensor:
    top_vectors = model.autoencoder.top_quantizer.embed(codes.top)
    with torch.no_grad():
        bottom = model.bottom_prior.log_prob(codes.bottom, top_vectors)
        return model.top_prior.log_prob(codes.top.unsqueeze(1)) + bottom


def test_both_priors_together_are_one_law_over_pairs_of_grids():
    model, codes = _trained(), _every_pair_of_grids()
    log_prior = _log_prior(model, codes).view(3, 81)
    assert log_prior.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        top = model.top_prior.log_prob(torch.arange(3).view(3, 1, 1, 1))
    torch.testing.assert_close(torch.logsumexp(log_prior, dim=1), top, rtol=1e-4, atol=1e-4)


def test_drawn_grids_follow_the_enumerated_law():
    model, count = _trained(), 20_000
    drawn = model._drawn(count, _generator())
    digits = torch.cat([drawn.top.flatten(1), drawn.bottom.flatten(1)], dim=1)
    found = torch.bincount(digits @ torch.tensor([81, 27, 9, 3, 1]), minlength=243) / count
    law = _log_prior(model, _every_pair_of_grids()).exp()
    often = law * count > 5
    deviation = ((found - law) / (law * (1 - law) / count).sqrt())[often]
    assert often.sum() > 8
    assert deviation.abs().max() < 4.5
    rare = law[~often].sum().item()
    assert found[~often].sum().item() == pytest.approx(rare, abs=4.5 * math.sqrt(rare * (1 - rare) / count) + 1e-9)


def test_the_bound_is_the_joint_at_the_encoders_codes_and_below_the_sum_over_all_codes():
    model, codes, x = _trained(), _every_pair_of_grids(), _quadrants()
    vectors = model.autoencoder.embed(codes)
    with torch.no_grad():
        given = torch.stack([model._log_prob_given(image.expand(243, 1, 4, 4), vectors) for image in x])
    joint = given + _log_prior(model, codes)  # (16, 243)
    bound = model.log_likelihood(x, generator=_generator())
    assert bool((bound < torch.logsumexp(joint, dim=1)).all())
    digits = model.encode(x) - torch.tensor([0, 3, 3, 3, 3])
    number = digits @ torch.tensor([81, 27, 9, 3, 1])
    torch.testing.assert_close(bound, joint.gather(1, number[:, None])[:, 0], rtol=1e-4, atol=1e-4)


def test_the_bound_stays_below_the_discrete_entropy_and_beats_uniform_pixels():
    found = -_trained().log_likelihood(_quadrants(), generator=_generator()).mean().item()
    assert math.log(16) <= found < 16 * math.log(2)


def test_trained_priors_need_no_more_than_log_k_nats_for_a_code():
    model = _trained()
    for player in ("top_prior", "bottom_prior"):
        assert model.loss(Batch(x=_quadrants()), player).parts["nats_per_code"].item() <= math.log(3)


def test_codes_decode_and_encode_again_where_the_images_come_back_whole():
    model, x = _trained(), _quadrants()
    codes = model.encode(x)
    assert torch.equal(model.reconstruct(x), x)
    assert torch.equal(model.encode(model.decode(codes)), codes)
    assert len(codes.unique(dim=0)) == 16


def test_rows_of_codes_are_the_coarse_grid_and_then_the_fine_one_in_one_alphabet():
    model, x = _smoke(), _images(3, 8, 256, 16)
    grids, rows = model._grids(x), model.encode(x)
    assert model.num_codes == 32 + 64
    assert rows.shape == (16, 4 + 16)
    assert torch.equal(rows[:, :4].view(-1, 2, 2), grids.top)
    assert torch.equal(rows[:, 4:].view(-1, 4, 4) - 32, grids.bottom)
    assert int(rows[:, :4].max()) < 32 <= int(rows[:, 4:].min())
    again = model._split(rows)
    assert torch.equal(again.top, grids.top)
    assert torch.equal(again.bottom, grids.bottom)


def test_the_fine_grid_and_the_decoder_read_the_coarse_codes():
    model, x = _smoke(), _images(3, 8, 256)
    autoencoder = model.autoencoder
    rows = model.encode(x)
    other = rows.clone()
    other[:, :4] = (rows[:, :4] + 7) % 32
    assert not torch.equal(model.decode(rows), model.decode(other))
    h = torch.randn(1, 32, 4, 4)
    one, two = (autoencoder.top_quantizer.embed(torch.full((1, 2, 2), k)) for k in (0, 1))
    assert not torch.equal(autoencoder.bottom_features(h, one), autoencoder.bottom_features(h, two))


def test_with_one_coarse_code_it_is_a_vqvae_of_the_fine_grid():
    """A VQ-VAE with the same weights has the same codes, bound and reconstructions, bit for bit up to rounding."""
    torch.manual_seed(0)
    spec = DataSpec(shape=(3, 8, 8), levels=256)
    model = VQVAE2(
        spec, VQVAE2.Config(num_top_codes=1, num_bottom_codes=6, top_prior_layers=1, bottom_prior_layers=2, **SIZES)
    )
    other = VQVAE(spec, VQVAE.Config(num_codes=6, num_halvings=1, prior_layers=2, **SIZES))
    x = _images(3, 8, 256)
    model.prepare(Batch(x=x))
    _copy_fine_parts(model, other)
    assert torch.equal(model.encode(x)[:, :4], torch.zeros(4, 4, dtype=torch.int64))
    assert torch.equal(model.encode(x)[:, 4:].view(4, 4, 4) - 1, other.encode(x))
    bounds = [m.log_likelihood(x, generator=_generator()) for m in (model, other)]
    torch.testing.assert_close(*bounds)
    assert torch.equal(model.reconstruct(x), other.reconstruct(x))


@torch.no_grad()
def _copy_fine_parts(model: VQVAE2, other: VQVAE) -> None:
    """Cut what comes from the one coarse code, which is a constant, and hand all other weights to the VQ-VAE."""
    part, width, code_dim = model.autoencoder, 8, 3
    for rise in (part.rise, part.decoder_rise, model.bottom_prior.rise):
        for parameter in rise.tower.head.parameters():
            parameter.zero_()
    other.encoder.tower.load_state_dict(part.encoder.state_dict())
    other.encoder.head.weight.copy_(part.bottom_head.weight[:, :width])
    other.encoder.head.bias.copy_(part.bottom_head.bias)
    other.quantizer.load_state_dict(part.bottom_quantizer.state_dict())
    other.decoder.tower.load_state_dict(part.decoder.tower.state_dict())
    other.decoder.stem.weight.copy_(part.decoder.stem.weight[:, :code_dim])
    other.decoder.stem.bias.copy_(part.decoder.stem.bias)
    other.decoder.scale.copy_(part.decoder.scale)
    other.prior.load_state_dict(model.bottom_prior.pixels.stack.state_dict())


def test_the_loss_is_the_distortion_and_a_share_of_both_commitments():
    model, x = _smoke(), _images(3, 8, 256)
    loss = model.loss(Batch(x=x), "autoencoder")
    expected = loss.parts["distortion"] + 0.25 * loss.parts["commitment"]
    torch.testing.assert_close(loss.total.detach(), expected)
    assert {"top_perplexity", "bottom_perplexity"} <= set(loss.parts)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_every_parameter_belongs_to_one_player_and_gets_a_gradient(codebook, gradient):
    model, batch = _smoke(codebook=codebook, gradient=gradient), Batch(x=_images(3, 8, 256))
    owned: list[int] = []
    for phase in model.phases():
        (player,) = phase.players
        parameters = [p for module in player.modules for p in module.parameters()]
        model.zero_grad()
        model.loss(batch, player.name).total.backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in parameters)
        assert all(p.grad is None for p in model.parameters() if not any(p is q for q in parameters))
        owned += [id(p) for p in parameters]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    assert sum(phase.share for phase in model.phases()) == pytest.approx(1.0)


def test_the_phases_of_the_priors_leave_the_autoencoder_as_it_is():
    model, batch = _smoke(), Batch(x=_images(3, 8, 256))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for player in ("top_prior", "bottom_prior"):
        model.loss(batch, player).total.backward()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


@pytest.mark.slow
def test_priors_of_pictures_need_less_than_log_k_nats_for_a_code():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _smoke()
    train(model, data.load("train", range(2048)), samples_seen=4000, seed=0)
    codes = model._grids(data.load("test", range(256)).x)
    with torch.no_grad():
        assert model._top_nll(codes).item() < math.log(32) - 0.3
        assert model._bottom_nll(codes).item() < math.log(64) - 0.3
    assert codes.top.unique().numel() > 8
    assert codes.bottom.unique().numel() > 24


@pytest.mark.parametrize(
    ("channels", "side", "levels"), [(3, 8, 256), (1, 28, 256), (1, 8, 17), (3, 32, 2), (1, 7, 5), (1, 2, 2)]
)
def test_images_of_any_side_pass_through_codes_and_back(channels, side, levels):
    model, x = _smoke(channels, side, levels), _images(channels, side, levels)
    codes = model.encode(x)
    assert codes.dtype == torch.int64
    assert codes.shape == (4, model.top_side**2 + model.bottom_side**2)
    assert 0 <= int(codes.min()) <= int(codes.max()) < model.num_codes
    for images in (model.decode(codes), model.reconstruct(x), model.sample(4, generator=_generator())):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels
    assert bool(model.log_likelihood(x, generator=_generator()).isfinite().all())


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        VQVAE2(DataSpec(kind="vector", shape=(2,), levels=None), VQVAE2.Config())


def test_phases_that_leave_another_nothing_are_refused():
    with pytest.raises(ValueError, match="leave nothing to the autoencoder"):
        VQVAE2.Config(top_prior_share=0.5, bottom_prior_share=0.5)
