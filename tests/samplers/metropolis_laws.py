"""Laws whose moments are known, for chains to be held against."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

BANANA_BEND, BANANA_STD = 0.5, 0.5
MEAN = torch.tensor([1.0, -2.0], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)


def gaussian(x):
    """Energy of N(MEAN, COVARIANCE)."""
    centred = x - MEAN.to(x)
    return 0.5 * ((centred @ COVARIANCE.to(x).inverse()) * centred).sum(1)


def banana(x):
    """Energy of x1 ~ N(0, 1), x2 = bend (x1^2 - 1) + std N(0, 1)."""
    across = x[:, 1] - BANANA_BEND * (x[:, 0].square() - 1)
    return 0.5 * x[:, 0].square() + 0.5 * (across / BANANA_STD).square()


def moments(x):
    """Functions of points whose means are known, each (N,)."""
    first, second = x.unbind(1)
    return [first, second, first.square(), second.square(), first * second, first.square() * second]


def gaussian_moments():
    m, c = MEAN, COVARIANCE
    mixed = (m[0] ** 2 + c[0, 0]) * m[1] + 2 * m[0] * c[0, 1]
    return [m[0], m[1], m[0] ** 2 + c[0, 0], m[1] ** 2 + c[1, 1], m[0] * m[1] + c[0, 1], mixed]


def banana_moments():
    return [0.0, 0.0, 1.0, 2 * BANANA_BEND**2 + BANANA_STD**2, 0.0, 2 * BANANA_BEND]


def assert_moments(x, expected):
    """Means of independent chains lie within four standard errors of the truth."""
    for k, (values, truth) in enumerate(zip(moments(x), expected, strict=True)):
        error = 4 * values.std() / len(values) ** 0.5
        assert abs(values.mean() - truth) < error, f"moment {k}: {values.mean()} for {truth}, 4 errors are {error}"


class NothingIsReadBack(TorchDispatchMode):
    """Fails where a number is read from the device, or a shape depends on one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        assert "_local_scalar_dense" not in name, name
        assert "nonzero" not in name, name
        return func(*args, **(kwargs or {}))
