import dataclasses

import pytest
import torch
import torch.nn.functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import condition_kind
from genbench.harness.train import train
from genbench.models.ebm.jem import JEM
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(1, 8, 8), levels=17, num_classes=3)
VECTORS = DataSpec(kind="vector", shape=(2,), levels=None, num_classes=4)


def model_of(spec=SPEC, preset="smoke", num_steps=10, **changes):
    torch.manual_seed(0)
    model = JEM(spec, dataclasses.replace(JEM.presets[preset], **changes))
    model.sampling = dataclasses.replace(JEM.sampling_presets[preset], num_steps=num_steps)
    return model


def batch_of(num=16, spec=SPEC):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8)
    return Batch(x, torch.randint(0, spec.num_classes, (num,), generator=generator))


def test_the_energy_is_that_of_the_sum_over_classes_and_a_rise_of_all_logits_is_no_matter_to_the_classes():
    model, x = model_of(), to_signed(batch_of().x, 17)
    logits = model.logits(x)
    torch.testing.assert_close(model.energy(x), -logits.exp().sum(1).log())
    model.net.head.bias.data += 5.0
    torch.testing.assert_close(model.energy(x), -logits.exp().sum(1).log() - 5.0)
    torch.testing.assert_close(model.logits(x).softmax(1), logits.softmax(1))


def test_the_loss_is_cross_entropy_and_the_contrast_of_energies():
    model, batch = model_of(data_noise=0.0, chain_steps=0, fresh_share=0.0), batch_of()
    torch.manual_seed(3)
    found = model.loss(batch, "energy")
    torch.manual_seed(3)
    x = to_signed(batch.x, 17)
    torch.randn_like(x)  # the noise of the data, which has no size here
    negatives = model.chains[torch.randperm(len(model.chains))[:16]]
    e_data, e_model = model.energy(x), model.energy(negatives)
    by_hand = F.cross_entropy(model.logits(x), batch.y) + e_data.mean() - e_model.mean()
    by_hand = by_hand + model.config.energy_weight * (e_data.square().mean() + e_model.square().mean())
    torch.testing.assert_close(found.total, by_hand)


def test_the_gradient_of_the_log_joint_density_is_that_of_its_two_parts():
    # -log p(x, y) = -f(x)[y] + log Z = -log p(y | x) + E(x) + log Z.
    model, batch = model_of(), batch_of()
    x = to_signed(batch.x, 17)
    joint = -model.logits(x).gather(1, batch.y[:, None])[:, 0].mean()
    parts = F.cross_entropy(model.logits(x), batch.y) + model.energy(x).mean()
    torch.testing.assert_close(joint, parts)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_samples_of_a_class_are_drawn_as_told_where_gradients_are_off(mode):
    model = model_of().eval()
    labels = torch.tensor([0, 1, 2, 2])
    expected = model.sample_given(labels, generator=torch.Generator().manual_seed(0))
    with mode():
        again = model.sample_given(torch.tensor([0, 1, 2, 2]), generator=torch.Generator().manual_seed(0))
    assert torch.equal(expected, again)
    assert expected.dtype == torch.uint8
    assert condition_kind(model) == "class"
    other = model.sample_given(torch.tensor([1, 1, 2, 2]), generator=torch.Generator().manual_seed(0))
    assert torch.equal(other[1:], expected[1:])  # a label changes its own row alone
    assert model.network is model.net


def test_chains_of_a_class_raise_its_probability():
    model = model_of(num_steps=20).eval()
    labels = torch.arange(3).repeat_interleave(8)
    model.sampling = dataclasses.replace(model.sampling, noise_scale=0.0, step_size=2.0)
    drawn = model.sample_given(labels, generator=torch.Generator().manual_seed(0))
    free = model.sample(24, generator=torch.Generator().manual_seed(0))

    def told(x):
        return model.logits(to_signed(x, 17)).log_softmax(1).gather(1, labels[:, None]).mean()

    assert told(drawn) > told(free)


def test_chains_cool_from_the_first_temperature_to_one():
    # A flat energy: what a chain moves is its noise alone, whose variances add up.
    model = model_of(VECTORS, "vector", vector_width=8).eval()
    torch.nn.init.zeros_(model.net[-1].weight)
    steps, noise = 50, 1e-3
    moved = {}
    for hot in (1.0, 100.0):
        model.sampling = JEM.Sampling(num_steps=steps, step_size=1.0, noise_scale=noise, first_temperature=hot)
        start = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * 8 - 4
        ends = model.sample(4000, generator=torch.Generator().manual_seed(0))
        moved[hot] = (ends - start)[start.abs().max(1).values < 3.5].var().item() / noise**2
    assert moved[1.0] == pytest.approx(steps, rel=0.05)
    by_hand = sum(2 * 100 ** max(0.0, 1 - k / 20) for k in range(25))  # two steps at each of 25 temperatures
    assert moved[100.0] == pytest.approx(by_hand, rel=0.05)


@pytest.mark.slow
def test_training_tells_the_classes_of_the_plane_apart_and_draws_them():
    torch.manual_seed(0)
    means = torch.tensor([[1.5, 1.5], [1.5, -1.5], [-1.5, 1.5], [-1.5, -1.5]])
    y = torch.randint(0, 4, (4000,))
    data = Batch(means[y] + 0.2 * torch.randn(4000, 2), y)
    model = model_of(VECTORS, "vector", num_steps=JEM.sampling_presets["vector"].num_steps)
    train(model, data, samples_seen=256 * 300, seed=0)
    assert (model.logits(data.x).argmax(1) == y).float().mean() > 0.99
    labels = torch.arange(4).repeat_interleave(50)
    drawn = model.sample_given(labels, generator=torch.Generator().manual_seed(0))
    nearest = torch.cdist(drawn, means).argmin(1)
    assert (nearest == labels).float().mean() > 0.9
    assert (drawn - means[labels]).norm(dim=1).median() < 0.6


def test_data_without_classes_are_refused():
    with pytest.raises(SettingError, match="at least 2 classes"):
        model_of(DataSpec(shape=(1, 8, 8)))
    with pytest.raises(SettingError, match="no class"):
        model_of().loss(Batch(batch_of().x), "energy")
