import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.vae.ladder_vae import LadderVAE
from genbench.models.vae.vae import VAE
from genbench.prob import gaussian, hierarchy

SPEC = DataSpec(shape=(3, 8, 8))
TINY = DataSpec(shape=(1, 2, 2), levels=2)
IMAGES = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 2, 2).to(torch.uint8)
SIZES = {"latent_dim": 4, "width": 8, "hidden": 16, "num_blocks": 1}
INFERENCES = ("ladder", "bottom_up")


def _generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _model(spec: DataSpec = SPEC, *, seed: int = 3, **settings) -> LadderVAE:
    """A model away from its start."""
    torch.manual_seed(seed)
    model = LadderVAE(spec, LadderVAE.Config(**{**SIZES, "divergence_warmup": 0, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def _batch(num: int = 16) -> Batch:
    return Batch(torch.randint(0, 256, (num, *SPEC.shape), generator=_generator(1), dtype=torch.uint8))


def _draws(seed: int):
    generator = _generator(seed)
    return lambda mu, log_sigma: gaussian.reparameterised(mu, log_sigma, generator=generator)


class SingleLayer(nn.Module):
    """The moments of q(z|x) that a ladder of one layer says, as the plain autoencoder's encoder gives them."""

    def __init__(self, model: LadderVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (layer,) = self.model.ladder.infer(self.model.encoder(x).flatten(1), lambda mu, log_sigma: mu)
        return layer.mu_q, layer.log_sigma_q


@pytest.mark.parametrize("inference", INFERENCES)
def test_with_one_layer_it_is_the_variational_autoencoder_of_the_same_networks(inference):
    model, x = _model(num_layers=1, inference=inference), _batch().x
    plain = VAE(SPEC, VAE.Config(**SIZES)).eval()
    plain.encoder, plain.decoder = SingleLayer(model), model.decoder
    found, expected = (m.log_likelihood(x, generator=_generator()) for m in (model, plain))
    torch.testing.assert_close(found, expected)
    losses = []
    for m in (_model(num_layers=1), plain):
        torch.manual_seed(0)
        losses.append(m.loss(Batch(x), "autoencoder"))
    torch.testing.assert_close(losses[0].total, losses[1].total)
    torch.testing.assert_close(losses[0].parts["rate"], losses[1].parts["rate"])
    drawn, again = (m.sample(5, generator=_generator()) for m in (model, plain))
    assert torch.equal(drawn, again)


def test_the_loss_is_the_sum_of_its_parts_and_minus_the_bound():
    model, batch = _model(), _batch()
    torch.manual_seed(0)
    loss = model.loss(batch, "autoencoder")
    rates = [loss.parts[f"rate_{i}"] for i in (1, 2, 3)]
    assert min(rates) >= 0
    torch.testing.assert_close(sum(rates), loss.parts["rate"])
    torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + loss.parts["rate"])
    torch.manual_seed(0)
    layers = model.ladder.infer(model._features(batch.x), gaussian.reparameterised)
    bound = hierarchy.evidence_bound(model._log_prob_given(batch.x, layers[0].z), layers)
    torch.testing.assert_close(loss.total, -bound.mean() / SPEC.num_dims)


@pytest.mark.parametrize("inference", INFERENCES)
def test_the_loss_is_minus_the_bound_of_one_draw_in_the_mean(inference):
    model = _model(TINY, num_importance=1, inference=inference)
    x = IMAGES.repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    loss = model.loss(Batch(x), "autoencoder").total.item()
    bounds = model.log_likelihood(x, generator=_generator()).view(400, 16).mean(1) / 4
    spread = bounds.std().item() / math.sqrt(200)  # of the difference of two independent means of 400
    assert loss == pytest.approx(-bounds.mean().item(), abs=4 * spread)


@torch.no_grad()
def test_the_posterior_is_the_precision_weighted_product_and_the_topmost_is_the_likelihood_alone():
    model = _model()
    features = model._features(_batch().x)
    likelihoods, d = [], features
    for rung in model.ladder.rungs:
        d = rung.up(d)
        raw_mu, raw_variance = rung.likelihood.linear(d).chunk(2, dim=1)
        likelihoods.append((raw_mu, F.softplus(raw_variance) + 1e-6))
    layers = model.ladder.infer(features, _draws(0))
    torch.testing.assert_close(layers[2].mu_q, likelihoods[2][0])
    torch.testing.assert_close(torch.exp(2 * layers[2].log_sigma_q), likelihoods[2][1])
    assert not layers[2].mu_p.any()
    assert not layers[2].log_sigma_p.any()
    for i, (mu_hat, variance_hat) in enumerate(likelihoods[:2]):
        layer = layers[i]
        torch.testing.assert_close(layer.mu_p, model.ladder.rungs[i].down(layers[i + 1].z)[0])
        precision_p = torch.exp(-2 * layer.log_sigma_p)
        precision = 1 / variance_hat + precision_p
        torch.testing.assert_close(torch.exp(-2 * layer.log_sigma_q), precision)
        torch.testing.assert_close(layer.mu_q, (mu_hat / variance_hat + layer.mu_p * precision_p) / precision)


@torch.no_grad()
def test_an_image_that_says_nothing_leaves_the_path_of_the_prior():
    model = _model()
    nothing = [(torch.randn(5, n), torch.full((5, n), torch.inf)) for n in (4, 2)]
    top = (torch.zeros(5, 1), torch.zeros(5, 1))
    inferred = model.ladder.descend(5, [*nothing, top], _draws(1))
    generated = model.ladder.generate(5, _draws(1))
    for layer, prior in zip(inferred, generated, strict=True):
        torch.testing.assert_close(layer.z, prior.z)
        torch.testing.assert_close(hierarchy.divergence(layer), torch.zeros(5))


@torch.no_grad()
def test_from_the_bottom_up_a_layer_is_inferred_from_the_draw_below_it_alone():
    model = _model(inference="bottom_up")
    features = model._features(_batch().x)
    layers = model.ladder.infer(features, _draws(0))
    for below, layer, rung in zip(layers, layers[1:], model.ladder.rungs[1:], strict=False):
        torch.testing.assert_close((layer.mu_q, layer.log_sigma_q), rung.likelihood(rung.up(below.z)))
    for layer, above, rung in zip(layers, layers[1:], model.ladder.rungs, strict=False):
        torch.testing.assert_close((layer.mu_p, layer.log_sigma_p), rung.down(above.z))


@torch.no_grad()
def _exact_log_likelihood(model: LadderVAE) -> Tensor:
    """Log of the integral over both layers of p(x|z_1) p(z_1|z_2) p(z_2) for every image of 2x2 bits, by quadrature."""
    z = torch.linspace(-8, 8, 321)
    step = math.log(float(z[1] - z[0]))
    mu, log_sigma = model.ladder.rungs[0].prior(z[:, None], len(z))
    log_p_1 = gaussian.log_prob(z[None], mu, log_sigma)  # (z_2, z_1)
    log_p_1 = torch.logsumexp(log_p_1 + gaussian.standard_log_prob(z)[:, None], dim=0) + step
    given = torch.stack([model._log_prob_given(image.expand(len(z), 1, 2, 2), z[:, None]) for image in IMAGES])
    return torch.logsumexp(given + log_p_1, dim=1) + step


def _bits(**settings) -> LadderVAE:
    """Two layers of one code each over 2x2 bits: wide bins, and posteriors so wide that weights have a variance."""
    model = _model(TINY, **{"latent_dim": 1, "num_layers": 2, **settings})
    model.decoder.scale.data.zero_()
    for rung in model.ladder.rungs:
        rung.likelihood.linear.bias.data[1] += 2.0
    return model


@pytest.mark.parametrize("inference", INFERENCES)
def test_importance_weights_average_to_the_exact_likelihood_and_more_draws_tighten_the_bound(inference):
    exact = _exact_log_likelihood(_bits())
    assert exact.exp().sum().item() == pytest.approx(1.0, abs=1e-4)
    gaps = []
    for num_importance in (1, 4, 16):
        model = _bits(inference=inference, num_importance=num_importance)
        expected = exact if inference == "ladder" else _exact_log_likelihood(model)
        bounds = model.log_likelihood(IMAGES.repeat(500, 1, 1, 1), generator=_generator()).view(500, 16)
        assert bool((bounds.mean(0) < expected + 4 * bounds.std(0) / math.sqrt(500)).all())
        ratios = (bounds - expected).exp()  # of estimates to exact values: 1 in the mean
        spread = ratios.std(0) / math.sqrt(500)
        assert bool(((ratios.mean(0) - 1).abs() <= 4.5 * spread + 1e-4).all())
        gaps.append((bounds - expected).mean().item())
    assert gaps[0] < gaps[1] < gaps[2]


def test_samples_follow_the_exact_probabilities():
    model, count = _bits(), 20_000
    draws = model.sample(count, generator=_generator()).flatten(1).long()
    found = torch.bincount(draws @ torch.tensor([8, 4, 2, 1]), minlength=16) / count
    expected = _exact_log_likelihood(model).exp()
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread).all())


def test_the_weight_of_the_divergence_rises_in_a_line_and_stays_at_one():
    model = _model(divergence_warmup=4).train()
    for step, weight in enumerate([0.0, 0.25, 0.5, 0.75, 1.0, 1.0]):
        torch.manual_seed(step)
        loss = model.loss(_batch(), "autoencoder")
        torch.testing.assert_close(loss.total.detach(), loss.parts["distortion"] + weight * loss.parts["rate"])


def test_only_a_training_step_moves_the_weight_and_the_likelihood_never_sees_it():
    model, plain, x = _model(divergence_warmup=4), _model(), _batch().x
    assert torch.equal(*(m.log_likelihood(x, generator=_generator()) for m in (model, plain)))
    model.loss(_batch(), "autoencoder")
    with torch.no_grad():
        model.train().loss(_batch(), "autoencoder")
    assert model.steps_taken == 0
    model.loss(_batch(), "autoencoder")
    other = _model(divergence_warmup=4)
    other.load_state_dict(model.state_dict())
    assert other.steps_taken == 1


def test_batch_normalisation_counts_in_training_alone():
    model, x = _model(batch_norm=True), _batch().x
    torch.testing.assert_close(model.encode(x)[:3], model.encode(x[:3]))
    assert not torch.allclose(model.train().encode(x)[:3], model.encode(x[:3]), atol=1e-3)


def test_on_two_levels_the_decoder_is_the_papers_bernoulli():
    model = _model(DataSpec(shape=(1, 8, 8), levels=2), networks="dense")
    x, z = torch.randint(0, 2, (5, 1, 8, 8), generator=_generator(), dtype=torch.uint8), torch.randn(5, 4)
    mixture = model._image_given(z)
    logits = (mixture.mu * torch.exp(-mixture.log_scale)).squeeze(1)
    expected = -F.binary_cross_entropy_with_logits(logits, x.float(), reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(model._log_prob_given(x, z), expected)


@pytest.mark.parametrize("networks", ["residual", "dense"])
@pytest.mark.parametrize(("channels", "side", "levels"), [(1, 28, 256), (3, 32, 2), (1, 8, 17)])
def test_images_of_any_side_pass_through_codes_and_back(networks, channels, side, levels):
    spec = DataSpec(shape=(channels, side, side), levels=levels)
    settings = {"num_importance": 2, "networks": networks}
    model = build_model(MODELS.get("ladder_vae"), spec, preset="smoke", settings=settings, owner="ladder_vae").eval()
    x = torch.randint(0, levels, (3, *spec.shape), generator=_generator(), dtype=torch.uint8)
    codes = model.encode(x)
    assert codes.shape == (3, 12 + 6 + 3)
    for images in (model.decode(codes), model.reconstruct(x), model.sample(3, generator=_generator())):
        assert images.shape == x.shape
        assert images.dtype == torch.uint8
        assert int(images.max()) < levels
    assert bool(model.log_likelihood(x, generator=_generator()).isfinite().all())


def test_the_paper_preset_has_the_papers_layers():
    model = LadderVAE(DataSpec(shape=(1, 28, 28), levels=2), LadderVAE.presets["paper"])
    dense = [[m.out_features for m in rung.up if isinstance(m, nn.Linear)] for rung in model.ladder.rungs]
    assert dense == [[512, 512], [256, 256], [128, 128], [64, 64], [32, 32]]
    assert [rung.num_codes for rung in model.ladder.rungs] == [64, 32, 16, 8, 4]
    down = [rung.down[0] for rung in model.ladder.rungs[:-1]]
    assert [[m.in_features for m in layers if isinstance(m, nn.Linear)] for layers in down] == [
        [32, 256], [16, 128], [8, 64], [4, 32]
    ]  # fmt: skip
    (player,) = model.phases()[0].players
    assert (model.phases()[0].batch_size, player.ema_decay) == (256, None)
    assert model.config.divergence_warmup == 200 * 60_000 // 256


def test_the_likelihood_says_how_it_is_made():
    assert _model(num_importance=1).likelihood_estimator == "evidence lower bound, 1 draw"
    assert _model(num_importance=5).likelihood_estimator == "importance-weighted bound, 5 draws"


@pytest.mark.slow
@pytest.mark.parametrize("inference", INFERENCES)
def test_training_raises_the_bound_of_held_out_images_above_that_of_noise_like_codes(inference):
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _model(inference=inference, divergence_warmup=20, num_importance=4, learning_rate=5e-3)
    x = data.load("test", range(64)).x
    before = model.log_likelihood(x, generator=_generator()).mean().item()
    train(model, data.load("train", range(512)), samples_seen=60 * 32, seed=0)
    after = model.log_likelihood(x, generator=_generator()).mean().item()
    assert after > before + 0.3 * SPEC.num_dims


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        LadderVAE(DataSpec(kind="vector", shape=(2,), levels=None), LadderVAE.Config())
