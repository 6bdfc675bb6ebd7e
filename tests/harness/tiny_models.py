"""Models small enough to be judged by a formula: one with an exact density, and two that look up what is asked."""

import torch
from torch import nn

from genbench.core.model import ClassConditional, ExactLikelihood, GenerativeModel, Loss, Phase, Player, TextConditional

NUM_KEPT = 256


class DiagonalGaussian(GenerativeModel, ExactLikelihood):
    """A normal law for every dimension of float data, fitted to its first batch and then by gradient."""

    def __init__(self, spec):
        super().__init__(spec)
        self.mean = nn.Parameter(torch.zeros(spec.num_dims))
        self.log_std = nn.Parameter(torch.zeros(spec.num_dims))

    def prepare(self, batch):
        self.mean.data = batch.x.mean(0)
        self.log_std.data = batch.x.std(0).log()

    def phases(self):
        return (Phase(name="fit", share=1.0, players=(Player(name="law", modules=(self,), lr=2e-3),), batch_size=64),)

    def loss(self, batch, player):
        return Loss(-self._log_prob(batch.x).mean())

    @torch.no_grad()
    def sample(self, num_samples, *, generator):
        noise = torch.randn(num_samples, self.spec.num_dims, generator=generator, device=generator.device)
        return self.mean + self.log_std.exp() * noise

    @torch.no_grad()
    def log_likelihood(self, x, *, generator):
        return self._log_prob(x)

    def _log_prob(self, x):
        return torch.distributions.Normal(self.mean, self.log_std.exp()).log_prob(x).sum(1)


class _Lookup(GenerativeModel):
    """Keeps its first batch and draws from it; its one parameter falls to zero."""

    def __init__(self, spec):
        super().__init__(spec)
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("images", torch.zeros(NUM_KEPT, *spec.shape, dtype=torch.uint8))

    def prepare(self, batch):
        self.images.copy_(batch.x[:NUM_KEPT])

    def phases(self):
        return (Phase(name="fit", share=1.0, players=(Player(name="all", modules=(self,), lr=1e-2),), batch_size=64),)

    def loss(self, batch, player):
        return Loss(self.weight.square().sum())

    def sample(self, num_samples, *, generator):
        return self.images[torch.randint(NUM_KEPT, (num_samples,), generator=generator)]

    def nearest(self, fits, generator):
        """One image for each row of `fits` (N, kept), drawn from those that fit best."""
        noise = torch.rand(fits.shape, generator=generator)
        return self.images[(fits.float() + 0.5 * noise).argmax(1)]


class ClassLookup(_Lookup, ClassConditional):
    """An example of the class asked for."""

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("labels", torch.zeros(NUM_KEPT, dtype=torch.int64))

    def prepare(self, batch):
        super().prepare(batch)
        self.labels.copy_(batch.y[:NUM_KEPT])

    def sample_given(self, condition, *, generator):
        return self.nearest(condition[:, None] == self.labels, generator)


class TextLookup(_Lookup, TextConditional):
    """The example whose caption has the most of the words asked for."""

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("words", torch.zeros(NUM_KEPT, len(spec.vocabulary), dtype=torch.int64))

    def prepare(self, batch):
        super().prepare(batch)
        self.words.copy_(self._bag(batch.text[:NUM_KEPT]))

    def sample_given(self, condition, *, generator):
        return self.nearest(self._bag(condition) @ self.words.T, generator)

    def _bag(self, text):
        """Which words stand in each caption, padding left out."""
        return nn.functional.one_hot(text, len(self.spec.vocabulary)).amax(1) * (torch.arange(28) > 0)
