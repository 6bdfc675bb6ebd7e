"""What `dit` adds to the diffusion that `ddpm` is tested for: its network, its settings, and that it learns."""

import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import parse_ref
from genbench.harness.train import train
from genbench.models.diffusion.dit import DiT


def _made(preset="smoke", spec=None, **settings):
    torch.manual_seed(0)
    spec = DataSpec(shape=(3, 8, 8), num_classes=4) if spec is None else spec
    model = build_model(MODELS.get("dit"), spec, preset=preset, settings=settings, owner="dit")
    assert isinstance(model, DiT)
    return model


def test_the_paper_preset_has_the_papers_sizes_and_training():
    config, sampling = DiT.presets["paper"], DiT.sampling_presets["paper"]
    assert (config.width, config.num_layers, config.num_heads, config.patch) == (1152, 28, 16, 2)
    assert (config.schedule, config.learned_variance) == ("linear", True)
    assert (config.condition, config.drop_condition) == ("class", 0.1)
    (phase,) = _made(learned_variance=True, condition="class", clip_norm=None).phases()
    (player,) = phase.players
    assert player.clip_norm is None
    assert (config.lr, config.batch_size, config.ema_decay) == (1e-4, 256, 0.9999)
    assert (sampling.num_steps, sampling.guidance) == (250, 1.5)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("condition", ["none", "class"])
def test_every_way_of_training_gives_all_parameters_a_gradient(learned, condition):
    model = _made(learned_variance=learned, condition=condition)
    torch.nn.init.normal_(model.transformer.out.weight, std=0.1)
    for block in model.transformer.blocks:
        torch.nn.init.normal_(block.modulation.linear.weight, std=0.1)
    torch.nn.init.normal_(model.transformer.modulation.linear.weight, std=0.1)
    x = torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8)
    loss = model.loss(Batch(x, y=torch.arange(64) % 4), "network")
    loss.total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.condition_kind == condition


def test_a_guided_sample_takes_two_evaluations_a_step():
    model = _made(condition="class", num_steps=5).eval()
    rows = []
    model.network.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])))
    for guidance, expected in ((1.0, [3] * 5), (4.0, [6] * 5)):
        object.__setattr__(model, "sampling", DiT.Sampling(num_steps=5, guidance=guidance))
        rows.clear()
        model.sample_given(torch.tensor([0, 1, 2]), generator=Generator().manual_seed(0))
        assert rows == expected


def test_data_without_classes_are_refused_by_name():
    with pytest.raises(SettingError, match="`dit` cannot be conditioned on `class`"):
        _made(spec=DataSpec(shape=(3, 8, 8)), condition="class")
    with pytest.raises(ValueError, match="`dit` models images of integers"):
        DiT(DataSpec(kind="vector", shape=(2,), levels=None), DiT.Config())


@pytest.mark.slow
def test_it_learns_pictures():
    data = build_dataset(parse_ref("shapes[resolution=8]"))
    model = _made(spec=data.spec)
    x = data.load("test", range(64)).x
    before = model.log_likelihood(x, generator=Generator().manual_seed(0)).mean()
    train(model, data.load("train", range(2048)), samples_seen=8000, seed=0)
    assert model.log_likelihood(x, generator=Generator().manual_seed(0)).mean() > before + 300.0
