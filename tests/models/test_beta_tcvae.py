import math

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec
from genbench.models.vae.beta_tcvae import BetaTCVAE
from genbench.models.vae.vae import VAE
from genbench.prob import gaussian
from genbench.prob.pixels import to_signed
from genbench.prob.total_correlation import decompose, pairwise_log_prob, stratified_aggregate, weighted_aggregate

SPEC = DataSpec(shape=(3, 8, 8))
SIZES = {"latent_dim": 4, "width": 8, "hidden": 16, "num_blocks": 1}
SAMPLINGS = {"weighted": weighted_aggregate, "stratified": stratified_aggregate}


def _model(**settings) -> BetaTCVAE:
    torch.manual_seed(3)
    return BetaTCVAE(SPEC, BetaTCVAE.Config(**{**SIZES, **settings}))


def _batch(num: int = 16) -> Batch:
    return Batch(torch.randint(0, 256, (num, 3, 8, 8), generator=Generator().manual_seed(1), dtype=torch.uint8))


def _loss(model, *, seed: int = 0):
    torch.manual_seed(seed)
    return model.loss(_batch(), "autoencoder")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_with_beta_one_it_is_the_variational_autoencoder(sampling):
    model, plain = _model(beta=1.0, sampling=sampling), VAE(SPEC, VAE.Config(**SIZES))
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(_loss(model).total, _loss(plain).total)
    found, expected = (
        m.log_likelihood(_batch().x, generator=Generator().manual_seed(2)) for m in (model.eval(), plain.eval())
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_beta_weighs_the_total_correlation_alone(sampling):
    model = _model(beta=6.0, sampling=sampling, dataset_size=1000)
    loss = _loss(model)
    torch.manual_seed(0)
    mu, log_sigma = model.encoder(to_signed(_batch().x, 256))
    z = gaussian.reparameterised(mu, log_sigma)
    aggregate = SAMPLINGS[sampling](pairwise_log_prob(z, mu, log_sigma), dataset_size=1000)
    for name, part in decompose(z, mu, log_sigma, aggregate=aggregate)._asdict().items():
        torch.testing.assert_close(loss.parts[name], part.mean().detach() / SPEC.num_dims)
    bound = loss.parts["distortion"] + loss.parts["rate"]
    torch.testing.assert_close(loss.total.detach(), bound + 5.0 * loss.parts["total_correlation"])


@torch.no_grad()
def test_the_loss_is_the_papers_objective_in_the_mean():
    """Eq. 4 with alpha = gamma = 1, all of whose parts are estimated, where the loss has an analytic divergence."""
    model, differences = _model(beta=6.0), []
    model.encoder.head[-1].weight.mul_(3.0)  # posteriors that differ from the prior and from each other
    for seed in range(100):
        loss = _loss(model, seed=seed)
        rest = loss.parts["index_code_information"] + loss.parts["dimension_wise_kl"]
        papers = loss.parts["distortion"] + rest + 6.0 * loss.parts["total_correlation"]
        differences.append(papers - loss.total)
    difference = torch.stack(differences)
    spread = difference.std() / math.sqrt(100)
    assert abs(difference.mean()) < 4 * spread
    assert spread < 0.1 * loss.parts["rate"]


def test_the_size_of_the_dataset_shifts_the_weighted_loss_and_not_its_gradient():
    gradients, losses = [], []
    for dataset_size in (16, 1_000_000):
        model = _model(dataset_size=dataset_size)
        loss = _loss(model)
        loss.total.backward()
        losses.append(loss.total.item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    shift = 5.0 * 3 * math.log(1_000_000 / 16) / SPEC.num_dims  # (beta - 1) (D - 1) log N
    assert losses[1] - losses[0] == pytest.approx(shift, rel=1e-4)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_the_size_of_the_dataset_weighs_the_examples_of_the_stratified_loss():
    gradients = []
    for dataset_size in (16, 1_000_000):
        model = _model(sampling="stratified", dataset_size=dataset_size)
        _loss(model).total.backward()
        gradients.append(model.encoder.head[-1].weight.grad)
    assert not torch.allclose(*gradients, rtol=0.01)


def test_beta_plays_no_part_in_the_likelihood():
    found = [
        _model(beta=beta).log_likelihood(_batch().x, generator=Generator().manual_seed(2)) for beta in (1.0, 6.0, 50.0)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_dataset_smaller_than_the_batch_is_refused_by_stratification():
    with pytest.raises(ValueError, match="dataset size"):
        _loss(_model(sampling="stratified", dataset_size=10))


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="needs images"):
        BetaTCVAE(DataSpec(kind="vector", shape=(2,), levels=None), BetaTCVAE.Config())
