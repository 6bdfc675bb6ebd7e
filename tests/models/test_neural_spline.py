import pytest
import torch
from torch import Generator, nn

from genbench.core.dataset import DataSpec
from genbench.core.declared import check_settings, declaration
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.models.flow.neural_spline import NeuralSplineFlow
from genbench.nn.autoregressive_flow import Autoregressive
from genbench.nn.split_coupling import SplitCoupling

PLANE = DataSpec(kind="vector", shape=(2,), levels=None)


@pytest.mark.parametrize(("transform", "kind"), [("coupling", SplitCoupling), ("autoregressive", Autoregressive)])
def test_the_setting_chooses_what_moves_the_dimensions(transform, kind):
    settings = {"transform": transform, "num_steps": 3}
    model = build_model(NeuralSplineFlow, PLANE, preset="vector", settings=settings, owner="neural_spline")
    assert len([part for part in model.modules() if isinstance(part, kind)]) == 3


def test_one_spline_splits_a_gaussian_in_two_modes_where_an_affine_map_cannot():
    """Of one unconditional step: a steep middle empties the centre of the density."""
    line = DataSpec(kind="vector", shape=(1,), levels=None)
    config = NeuralSplineFlow.Config(transform="autoregressive", num_steps=1, width=4, num_blocks=1, num_bins=4)
    model = NeuralSplineFlow(line, config).double()
    spline = next(part for part in model.modules() if isinstance(part, Autoregressive))
    bias = torch.tensor([0.0, 1.5, 1.5, 0.0, 1.5, -0.5, -0.5, 1.5, 1.0, -3.0, 1.0], dtype=torch.float64)
    spline.made.head.bias.data.copy_(bias)  # the middle of z is reached from a wide stretch of x, and slowly
    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)[:, None]
    with torch.no_grad():
        density = model.density_of(x).exp()
    rising = density.diff() > 0
    modes = (rising[:-1] & ~rising[1:]).sum().item()
    assert modes >= 2
    assert density.sum().item() * 0.01 == pytest.approx(1.0, abs=1e-3)


def test_dropout_acts_in_training_alone():
    spec = DataSpec(shape=(1, 4, 4))
    model = NeuralSplineFlow(spec, NeuralSplineFlow.Config(num_levels=1, num_steps=1, width=8, dropout=0.5))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    y = torch.rand(2, 1, 4, 4, generator=Generator().manual_seed(0))
    assert not torch.equal(model.train().transform(y)[0], model.transform(y)[0])
    assert torch.equal(model.eval().transform(y)[0], model.transform(y)[0])


def test_the_paper_presets_are_those_of_cifar10_and_of_tables():
    images, tables = NeuralSplineFlow.presets["paper"], NeuralSplineFlow.presets["paper_vector"]
    found = (images.num_bins, images.num_steps, images.num_levels, images.width, images.num_blocks, images.dropout)
    assert found == (4, 7, 3, 96, 3, 0.2)
    assert (images.bound, images.lr, images.batch_size, images.final_lr_share) == (3.0, 5e-4, 512, 0.0)
    assert (tables.num_bins, tables.num_steps, tables.width, tables.num_blocks, tables.bound) == (8, 10, 256, 2, 3.0)


def test_settings_can_be_read_off_the_file_and_are_checked():
    path = MODELS.path("neural_spline")
    assert path is not None
    check_settings(
        declaration(path, "neural_spline"), {"transform": "autoregressive", "bound": 5.0}, owner="neural_spline"
    )
    for wrong in ({"transform": "affine"}, {"num_bins": 1}, {"bound": -1.0}):
        with pytest.raises(SettingError):
            build_model(NeuralSplineFlow, PLANE, preset="vector", settings=wrong, owner="neural_spline")
