import dataclasses
import functools
import math

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import MODELS, build_model
from genbench.models.vq.vqvae import VQVAE

TINY = DataSpec(shape=(1, 2, 2), levels=2)
IMAGES = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2).to(torch.uint8)
CONFIG = VQVAE.Config(
    num_codes=5, code_dim=3, num_halvings=1, width=8, num_blocks=1, prior_width=8, prior_layers=1, learning_rate=1e-2
)


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _images(channels: int, side: int, levels: int, count: int = 4) -> torch.Tensor:
    return torch.randint(0, levels, (count, channels, side, side), generator=_generator(), dtype=torch.uint8)


def _smoke(channels: int = 3, side: int = 8, levels: int = 256) -> VQVAE:
    torch.manual_seed(0)
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    model = build_model(MODELS.get("vqvae"), spec, preset="smoke", settings={}, owner="vqvae")
    assert isinstance(model, VQVAE)
    model.prepare(Batch(x=_images(channels, side, levels, 64)))
    return model


@functools.cache
def _trained_on_all() -> VQVAE:
    return _trained_on(IMAGES)


def _trained_on(x: torch.Tensor, config: VQVAE.Config = CONFIG) -> VQVAE:
    """A model of 2x2 binary images after a few steps of either phase."""
    torch.manual_seed(1)
    model = VQVAE(TINY, config)
    model.prepare(Batch(x=x))
    for phase in model.phases():
        player = phase.players[0]
        _descend(model, x, player.name, [p for module in player.modules for p in module.parameters()], num_steps=60)
    return model


def _descend(
    model: VQVAE, x: torch.Tensor, player: str, parameters: list[torch.nn.Parameter], *, num_steps: int
) -> None:
    optimiser = torch.optim.Adam(parameters, lr=2e-2)
    for _ in range(num_steps):
        optimiser.zero_grad()
        model.loss(Batch(x=x), player).total.backward()
        optimiser.step()


def test_the_two_stage_bound_stays_below_the_discrete_entropy_of_a_toy():
    shares = torch.tensor([8, 4, 2, 1, 1])
    x = IMAGES[torch.tensor([0, 15, 3, 12, 9])].repeat_interleave(shares, dim=0)
    entropy = -(shares / 16 * torch.log(shares / 16)).sum().item()
    found = -_trained_on(x).log_likelihood(x, generator=_generator()).mean().item()
    assert entropy <= found < 4 * math.log(2)


def test_the_two_stage_bound_never_exceeds_the_probability_that_sums_over_all_codes():
    model = _trained_on_all()
    codes = torch.arange(5).view(5, 1, 1)
    prior = model.prior.log_prob(codes.unsqueeze(1))
    assert prior.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    vectors = model.quantizer.embed(codes)
    with torch.no_grad():
        joint = torch.stack([model._log_prob_given(x.expand(5, 1, 2, 2), vectors) + prior for x in IMAGES])  # (16, 5)
    exact = torch.logsumexp(joint, dim=1)
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    bound = model.log_likelihood(IMAGES, generator=_generator())
    assert bool((bound < exact).all())
    torch.testing.assert_close(bound, joint.gather(1, model.encode(IMAGES).view(16, 1)).squeeze(1))


def test_samples_follow_the_probability_that_sums_over_all_codes():
    model, count = _trained_on_all(), 20_000
    draws = model.sample(count, generator=_generator()).flatten(1).long()
    found = torch.bincount(draws @ torch.tensor([8, 4, 2, 1]), minlength=16) / count
    codes = torch.arange(5).view(5, 1, 1)
    with torch.no_grad():
        prior = model.prior.log_prob(codes.unsqueeze(1))
        vectors = model.quantizer.embed(codes)
        given = torch.stack([model._log_prob_given(x.expand(5, 1, 2, 2), vectors) for x in IMAGES])
    expected = torch.logsumexp(given + prior, dim=1).exp()
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread).all())


def test_the_encoder_gets_the_decoders_gradient_at_the_codes_and_that_of_the_commitment():
    model, x = _smoke(), _images(3, 8, 256)
    features = model._features(x).detach().requires_grad_()
    quantised = model.quantizer(features)
    values = quantised.values.detach().requires_grad_()
    (-model._log_prob_given(x, values).mean() / model.spec.num_dims).backward()
    total = -model._log_prob_given(x, quantised.values).mean() / model.spec.num_dims + 0.25 * quantised.commitment
    total.backward()
    pull = 0.25 * 2 * (features - values).detach() / features.numel()
    torch.testing.assert_close(features.grad, values.grad + pull, rtol=1e-4, atol=1e-7)


def test_every_parameter_belongs_to_one_player_and_gets_a_gradient():
    model, batch = _smoke(), Batch(x=_images(3, 8, 256))
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


def test_the_prior_phase_leaves_codes_and_decoder_as_they_are():
    model, batch = _smoke(), Batch(x=_images(3, 8, 256))
    before = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("prior.")}
    model.loss(batch, "prior").total.backward()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_the_codes_phase_moves_the_codebook_towards_the_features():
    model, batch = _smoke(), Batch(x=_images(3, 8, 256, 16))
    model.quantizer.codebook.add_(0.3)
    model.quantizer.sums.copy_(model.quantizer.codebook * model.quantizer.counts[:, None])
    first = model.loss(batch, "codes").parts["commitment"]
    for _ in range(20):
        last = model.loss(batch, "codes").parts["commitment"]
    assert last.item() < 0.5 * first.item()


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


def test_the_codebook_starts_from_the_data_and_every_code_is_used():
    model = _smoke()
    assert model.num_codes == 64
    assert model.quantizer(model._features(_images(3, 8, 256, 64))).codes.unique().numel() == 64


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        VQVAE(DataSpec(kind="vector", shape=(2,), levels=None), VQVAE.Config())


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_every_way_of_learning_codes_tells_images_apart(codebook, gradient):
    """Every pixel of these four images is a fair coin, log 2; confusing one pair of them costs half of that at most."""
    torch.manual_seed(1)
    x = IMAGES[torch.tensor([0, 15, 3, 12])]
    model = VQVAE(TINY, dataclasses.replace(CONFIG, decay=0.8, codebook=codebook, gradient=gradient))
    model.prepare(Batch(x=x))
    owned = [p for module in model.phases()[0].players[0].modules for p in module.parameters()]
    assert any(p is model.quantizer.codebook for p in owned) == (codebook == "gradient")
    _descend(model, x, "codes", owned, num_steps=100)
    assert model.loss(Batch(x=x), "codes").parts["distortion"].item() < 0.6 * math.log(2)


def test_codes_decode_and_encode_again_where_the_images_come_back_whole():
    x = IMAGES[torch.tensor([0, 15, 3, 12])]
    model = _trained_on(x, dataclasses.replace(CONFIG, decay=0.8))
    assert torch.equal(model.reconstruct(x), x)
    codes = model.encode(x)
    assert codes.unique().numel() == 4
    assert torch.equal(model.encode(model.decode(codes)), codes)


def test_the_loss_of_a_gradient_codebook_has_all_terms_of_eq_3():
    torch.manual_seed(1)
    model = VQVAE(TINY, dataclasses.replace(CONFIG, codebook="gradient"))
    model.prepare(Batch(x=IMAGES))
    features = model._features(IMAGES)
    values = model.quantizer.embed(model.quantizer.nearest(features))
    square = (features - values).square().mean()
    distortion = -model._log_prob_given(IMAGES, values).mean() / 4
    found = model.loss(Batch(x=IMAGES), "codes").total
    torch.testing.assert_close(found, distortion + (1 + 0.25) * square)


def test_a_trained_prior_needs_no_more_than_log_k_nats_for_a_code():
    model = _trained_on_all()
    found = model.loss(Batch(x=IMAGES), "prior").parts["nats_per_code"].item()
    shares = torch.bincount(model.encode(IMAGES).flatten(), minlength=5) / 16
    entropy = torch.special.entr(shares).sum().item()
    assert entropy - 1e-6 <= found < min(math.log(5), entropy + 0.1)
