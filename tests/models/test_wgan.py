import pytest
import torch
from scipy.stats import wasserstein_distance

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.models.optimal_transport.wgan import WGAN
from genbench.prob.pixels import to_signed

SPEC = DataSpec(shape=(3, 8, 8))
VECTORS = DataSpec(kind="vector", shape=(2,), levels=None)


def model_of(spec=SPEC, preset="smoke"):
    torch.manual_seed(0)
    return WGAN(spec, WGAN.presets[preset])


def batch_of(spec=SPEC, num=16):
    generator = torch.Generator().manual_seed(1)
    if spec.levels is None:
        return Batch(torch.randn(num, *spec.shape, generator=generator))
    return Batch(torch.randint(0, spec.levels, (num, *spec.shape), generator=generator, dtype=torch.uint8))


@pytest.mark.parametrize("player", ["critic", "generator"])
def test_no_weight_of_the_critic_is_beyond_the_clip_when_it_is_used(player):
    model, seen = model_of(), []
    model.critic[1].weight.data.fill_(3.0)
    model.critic.register_forward_pre_hook(
        lambda net, given: seen.append(max(p.abs().max().item() for p in net.parameters()))
    )
    model.loss(batch_of(), player)
    assert seen
    assert max(seen) == pytest.approx(model.config.clip)


def test_the_loss_of_the_critic_is_less_the_distance_of_mean_scores():
    model, batch = model_of(), batch_of()
    torch.manual_seed(3)
    loss = model.loss(batch, "critic").total
    torch.manual_seed(3)
    fake = model.generated(16, None).detach()
    distance = model.critic(to_signed(batch.x, 256)).mean() - model.critic(fake).mean()
    torch.testing.assert_close(loss, -distance)


@pytest.mark.parametrize(("player", "other"), [("critic", "generator"), ("generator", "critic")])
@pytest.mark.parametrize("spec", [SPEC, VECTORS], ids=["images", "vectors"])
def test_only_the_named_player_receives_gradient(player, other, spec):
    model = model_of(spec, "smoke" if spec is SPEC else "vector")
    model.loss(batch_of(spec), player).total.backward()
    networks = {"critic": model.critic, "generator": model.generator}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in networks[player].parameters())
    assert all(p.grad is None for p in networks[other].parameters())


def test_a_clipped_critic_stays_below_the_distance_times_its_slope():
    # Every layer of weights in [-c, c] has a norm of at most c sqrt(in out): the product bounds the network's slope.
    model = model_of(VECTORS, "vector")
    model.clip_critic()
    weights = [p for p in model.critic.parameters() if p.ndim == 2]
    bound = 1.0
    for weight in weights:
        bound *= model.config.clip * (weight.shape[0] * weight.shape[1]) ** 0.5
    x, y = torch.randn(200, 1), torch.randn(200, 1) + 3.0
    along = torch.tensor([[1.0, 0.0]])
    gap = (model.critic(y @ along).mean() - model.critic(x @ along).mean()).abs().item()
    assert gap <= bound * wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())


def test_the_paper_preset_is_that_of_algorithm_1():
    config = WGAN.presets["paper"]
    assert (config.clip, config.lr, config.batch_size, config.critic_turns) == (0.01, 5e-5, 64, 5)
    (phase,) = model_of(preset="paper").phases()
    assert [(player.name, player.turns) for player in phase.players] == [("critic", 5), ("generator", 1)]


@pytest.mark.parametrize("spec", [SPEC, VECTORS], ids=["images", "vectors"])
def test_samples_are_what_the_data_are(spec):
    model = model_of(spec, "smoke" if spec is SPEC else "vector").eval()
    drawn = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, *spec.shape)
    assert drawn.dtype == batch_of(spec).x.dtype


def test_waveforms_are_refused():
    with pytest.raises(SettingError, match="images of integers and vectors of floats"):
        model_of(DataSpec(shape=(1, 16), kind="waveform", levels=None))
