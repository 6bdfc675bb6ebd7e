"""What tests of models of pixels share: all images of a tiny space, what depends on what, and drawing the slow way."""

import itertools
import math

import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import build_model
from genbench.nn.level_softmax import draw


def built(kind, shape, levels, *, seed=0, classes=0, **settings):
    """A model of the smoke preset with these settings."""
    torch.manual_seed(seed)
    spec = DataSpec(shape=shape, levels=levels, num_classes=classes)
    return build_model(kind, spec, preset="smoke", settings=settings, owner=kind.__name__)


def shaken(model, *, by=0.2, seed=1):
    """The model off its starting point: no bias is zero, and no law is uniform."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model.eval()


def every_image(levels, shape):
    """All images of a tiny space: (levels^D, *shape) int64."""
    return torch.tensor(list(itertools.product(range(levels), repeat=math.prod(shape)))).view(-1, *shape)


def moved(network, codes):
    """Which sub-pixels' outputs move when one sub-pixel changes: (C', H', W', ..., H, W) bool.

    `network` gives outputs (B, ..., H, W) for codes (B, C, H, W) of at least two levels.
    """
    C, H, W = codes.shape[1:]
    places = list(itertools.product(range(C), range(H), range(W)))
    changed = codes.repeat(len(places) + 1, 1, 1, 1)  # the last one stays
    for row, (c, i, j) in enumerate(places):
        changed[row, c, i, j] = 1 - changed[row, c, i, j].clamp(max=1)
    with torch.no_grad():
        outputs = network(changed)
    return ((outputs[:-1] - outputs[-1:]).abs() > 1e-12).unflatten(0, (C, H, W))  # float64: far above its rounding


def before(shape):
    """Which sub-pixels come before which, in raster order and by channel: (C', H', W', C, H, W) bool."""
    C, H, W = shape
    place = torch.arange(C * H * W).view(H, W, C).permute(2, 0, 1)
    return place[..., None, None, None] < place


def gradients(logits_of, embedded, shape):
    """Which embedded sub-pixels have a gradient of which logits: (C', H', W', C, H, W) bool.

    `logits_of` maps embedded levels (1, C * F, H, W) to logits (1, K, C, H, W).
    """
    C, H, W = shape
    leaf = embedded.detach().requires_grad_()
    logits = logits_of(leaf)[0]
    found = torch.zeros(C, H, W, C, H, W, dtype=torch.bool)
    for c, i, j in itertools.product(range(C), range(H), range(W)):
        weights = torch.randn(len(logits), dtype=leaf.dtype)
        (slope,) = torch.autograd.grad((logits[:, c, i, j] * weights).sum(), leaf, retain_graph=True)
        found[..., c, i, j] = slope[0].unflatten(0, (C, -1)).abs().sum(1) > 0
    return found


def drawn_slowly(network, num_samples, shape, generator):
    """Levels drawn one after another, each from a pass over the whole image: (N, C, H, W) int64."""
    uniforms = torch.rand((num_samples, *shape), generator=generator)
    codes = torch.zeros(uniforms.shape, dtype=torch.int64)
    for i, j, c in itertools.product(range(shape[1]), range(shape[2]), range(shape[0])):
        with torch.no_grad():
            codes[:, c, i, j] = draw(network(codes)[:, :, c, i, j], uniforms[:, c, i, j])
    return codes


def law_of_draws(model, images, law, count):
    """Squared deviations of the frequencies of drawn images from their law, in units of their variance: (M,)."""
    levels = model.spec.levels
    drawn = model.sample(count, generator=torch.Generator().manual_seed(0)).long().flatten(1)
    powers = levels ** torch.arange(drawn.shape[1] - 1, -1, -1)
    assert torch.equal((images.flatten(1) * powers).sum(1), torch.arange(len(images)))
    found = (drawn * powers).sum(1).bincount(minlength=len(images)) / count
    return (found - law).square() / (law * (1 - law) / count)


def squares(number, shape, levels):
    """Images of two levels: a square of one on the other, at one of three places."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(number, *shape, dtype=torch.uint8)
    for image, corner in zip(x, torch.randint(1, shape[1] // 2, (number,), generator=generator), strict=True):
        image[:, corner : corner + 3, corner : corner + 3] = levels - 1
    return x


def fit(model, x, *, steps, lr=4e-3):
    """Losses of so many steps of Adam on batches of 32."""
    model.train().prepare(Batch(x))
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    losses = []
    for step in range(steps):
        loss = model.loss(Batch(x[torch.arange(32 * step, 32 * step + 32) % len(x)]), "model").total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    model.eval()
    return losses
