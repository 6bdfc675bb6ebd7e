import math

import torch
from torch import Generator, nn

from genbench.core.dataset import DataSpec
from genbench.models.flow.nice import NICE, Scaling

SPEC = DataSpec(kind="vector", shape=(6,), levels=None)


def _model(**changes: object) -> NICE:
    torch.manual_seed(0)
    model = NICE(SPEC, NICE.Config(num_layers=2, width=8, **changes)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def test_volumes_change_by_the_scales_alone():
    model = _model()
    _, log_det = model.transform(torch.randn(5, 6, dtype=torch.float64))
    scales = next(part for part in model.flow.parts if isinstance(part, Scaling)).log_scale
    torch.testing.assert_close(log_det, scales.sum().expand(5))


def test_four_couplings_reach_every_dimension_from_every_other():
    model = _model()
    jacobian = torch.autograd.functional.jacobian(
        lambda row: model.transform(row[None])[0][0], torch.randn(6, dtype=torch.float64)
    )
    assert (jacobian != 0).all()


def test_the_base_is_the_standard_logistic_law():
    model = NICE(SPEC, NICE.Config(num_layers=1, width=8))
    z = torch.linspace(-30, 30, 601)[:, None].expand(-1, 6)
    expected = -z[:, 0] - 2.0 * torch.log1p((-z[:, 0]).exp())
    torch.testing.assert_close(model.log_base(z), 6 * expected, rtol=1e-5, atol=1e-4)
    drawn = model.draw_base(20_000, Generator().manual_seed(0))
    assert drawn.mean().abs() < 0.03
    assert abs(drawn.std().item() - math.pi / math.sqrt(3.0)) < 0.03
    shares = [(drawn < edge).float().mean().item() for edge in (-2.0, 0.0, 1.0)]
    for share, edge in zip(shares, (-2.0, 0.0, 1.0), strict=True):
        assert abs(share - 1.0 / (1.0 + math.exp(-edge))) < 0.01


def test_the_paper_preset_is_that_of_mnist():
    config = NICE.presets["paper"]
    found = (config.base, config.num_couplings, config.num_layers, config.width, config.batch_size, config.lr)
    assert found == ("logistic", 4, 5, 1000, 200, 1e-3)
