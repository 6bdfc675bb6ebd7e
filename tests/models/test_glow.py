import pytest
import torch
from torch import nn

from genbench.core.dataset import DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import build_model
from genbench.models.flow.glow import GaussianLeaving, Glow
from genbench.nn.bijection import Normalise
from genbench.nn.invertible_convolution import InvertibleConvolution
from genbench.nn.split_coupling import SplitCoupling

TINY = Glow.Config(num_steps=2, num_levels=2, width=8)


def test_what_leaves_has_a_gaussian_law_given_what_stays():
    torch.manual_seed(0)
    leaving = GaussianLeaving(2).double()
    nn.init.normal_(leaving.law.weight, std=0.3)
    left, kept = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    z, log_det = leaving(left, kept)
    mean, log_std = leaving.law(kept).chunk(2, 1)
    law, base = torch.distributions.Normal(mean, log_std.exp()), torch.distributions.Normal(0.0, 1.0)
    expected = law.log_prob(left).flatten(1).sum(1)
    torch.testing.assert_close(base.log_prob(z).flatten(1).sum(1) + log_det, expected)
    torch.testing.assert_close(leaving.inverse(z, kept), left, rtol=0, atol=1e-12)


def test_a_step_is_actnorm_convolution_coupling():
    model = Glow(DataSpec(shape=(3, 8, 8)), TINY)
    kinds = [type(part) for part in model.flow.levels[0].parts]
    assert kinds == [Normalise, InvertibleConvolution, SplitCoupling] * 2 + [Normalise]
    assert [level.parts[0].norm.mean.shape[0] for level in model.flow.levels] == [12, 24]


def test_additive_couplings_change_volumes_by_linear_maps_alone():
    model = Glow(
        DataSpec(kind="vector", shape=(4,), levels=None), Glow.Config(num_steps=2, width=8, coupling="additive")
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    _, log_det = model.transform(torch.randn(6, 4))
    torch.testing.assert_close(log_det, log_det[:1].expand(6))


def test_the_paper_preset_is_that_of_cifar10():
    config = Glow.presets["paper"]
    found = (config.num_steps, config.num_levels, config.width, config.coupling, config.lr, config.batch_size)
    assert found == (32, 3, 512, "affine", 1e-3, 512)


def test_unknown_couplings_and_no_steps_are_refused():
    for wrong in ({"coupling": "spline"}, {"num_steps": 0}):
        with pytest.raises(SettingError):
            build_model(Glow, DataSpec(shape=(1, 8, 8)), preset="smoke", settings=wrong, owner="glow")
