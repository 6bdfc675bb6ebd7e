"""Diffusion guided to a class by a classifier of noised images.

Diffusion Models Beat GANs on Image Synthesis. Prafulla Dhariwal, Alex Nichol, 2021. arXiv:2105.05233

By Bayes' rule the score of images of a class is the score of all images plus the gradient of the log-probability that a
classifier gives the class. A classifier of noised images, trained apart, thus turns any diffusion model into one of
classes, or sharpens one that knows them; a multiple of its gradient trades variety for fidelity.

Legend: `x_0` image in [-1, 1], `x_t` noised image, `t` step 1 .. T, `y` class, eps noise, `alpha` and `sigma` factors
of data and noise, `mu` and `Sigma` mean and variance of a step, g = grad log p(y | x_t) of the classifier, `s` the
scale of that gradient, `classifier_scale`.

- Phase `diffusion`: the network learns the noise, with L_simple or, `learned_variance`, L_simple + 0.001 L_vlb (Nichol
  and Dhariwal 2021, arXiv:2102.09672).
- Phase `classifier`: cross-entropy of the classes of images noised to a random t (Sec. 4.3).
- Samples: a step of the sampler `ddpm` is drawn from N(mu + s Sigma g, Sigma) (Algorithm 1). All other samplers follow
  the noise eps - s sigma g (Algorithm 2), which adds s g to the score, and s sigma^2 / alpha g to the estimate of x_0.
  At s = 0 there is no classifier. At s = 1, were network and classifier exact, the second way would do all that a
  network of the class does, and the first would as steps grow small: it takes log p(y | x) for linear over a step.

With `condition=class` the network knows the class as well, as the paper's best models do; then `guidance` may
exaggerate what it knows, as in `ddpm`, and the two ways of guiding add up. `guidance` and `classifier_scale` are
settings of sampling: rows that differ in them share weights. With `condition=none` the classifier alone makes samples
of a class. Samples that nobody asks for take classes in the shares of the training examples. The bound is that of the
network without a condition. NFE counts the network alone: a forward and a backward pass of the classifier at each step
come on top, and show in time and FLOPs.

**Departures**
- The network is the U-Net of `ddpm`: attention at one level and the bottom where the paper has three levels, time and
  class added to features where it scales them, strided convolutions where it has residual blocks that halve. The same
  holds for the classifier, which has no random crops. Gradients are clipped to a norm of 1.
- Of images in [-1, 1] the exact gradient, alpha / sigma^2 times the difference of two means of x_0, is at most
  2 alpha / sigma^2 in any dimension. That of a network is cut there: at large t it is noise, which sigma^2 / alpha
  would enlarge without bounds. Estimates of x_0 are clipped to [-1, 1] before it is added, as in the authors' code,
  and again behind.
- The last step, which has no variance, is not shifted.
- With `condition=class` a tenth of the examples has no class, so that the bound has a meaning.
- `smoke` and `small` do not tell the network the class, keep variances fixed, take the cosine schedule, return v in
  place of eps, and draw on a sub-sequence of the steps, as `ddpm` does there; learning rates and averages suit a
  thousand steps.
- `paper` has the sizes, dropout and schedule of the authors' flags for ImageNet at 64 px, a rate and an average of
  ours, and trains its classifier by their flags for 128 px, whose batch both networks have. The rate of the classifier
  falls along a cosine, not along a line.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import ConditionKind, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Several, Share, Whole
from genbench.models._gaussian_diffusion import GaussianDiffusion
from genbench.nn.noisy_classifier import NoisyClassifier, class_slope
from genbench.nn.unet import UNet
from genbench.prob.pixels import to_signed
from genbench.samplers._protocol import Slope

WIDTH = 2.0
"""Of [-1, 1]: no two means of x_0 differ by more."""


@register_model("guided_diffusion")
class GuidedDiffusion(GaussianDiffusion):
    """Diffusion in discrete time beside a classifier; the bound is as for `ddpm`.

    Raises:
        SettingError: the data have no classes.
    """

    needs = "class"

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: Count = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`, and of `classifier_width`."""
        num_blocks: Count = 1
        """Residual blocks per level."""
        attention_resolution: Whole = 4
        """The first level of maps at most this large attends, as does the bottom; the classifier's too."""
        num_heads: Count = 1
        dropout: Fraction = 0.0
        patch: Count = 2
        """Side of the squares of pixels that are stacked into channels."""
        schedule: Literal["linear", "cosine"] = "cosine"
        output: Literal["noise", "data", "velocity"] = "velocity"
        """What the U-Net returns."""
        target: Literal["noise", "data", "velocity"] = "noise"
        """What the squared error of training is of."""
        learned_variance: bool = False
        """Whether the network also returns the variances of the reverse steps."""
        condition: Literal["none", "class"] = "none"
        """What the U-Net is told of an image; the classifier guides either way."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        num_timesteps: Several = 1000
        """T."""
        classifier_share: OpenShare = 0.3
        """Share of the examples seen that teach the classifier; the U-Net gets the rest."""
        classifier_width: Count = 16
        """Channels of the first level of the classifier."""
        classifier_patch: Count = 1
        """As `patch`, of the classifier."""
        classifier_blocks: Count = 1
        """Residual blocks per level."""
        classifier_heads: Count = 1
        """Of its attention, the pooling one included."""
        classifier_lr: Positive = 1.0e-3
        """It falls to 0 along a cosine."""
        classifier_weight_decay: NonNegative = 0.05
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the bound is evaluated."""

        sampler: Literal["ddpm", "ddim", "dpm_solver_pp", "heun", "predictor_corrector"] = "ddpm"
        num_steps: Count | None = 50
        """Steps, of one network evaluation each, of two with `heun`, one more a corrector's step; None is T."""
        spacing: Literal["even", "karras"] = "even"
        """Steps even in time, or in a root of sigma / alpha from 80 down; `heun` always takes the latter."""
        eta: Share = 0.0
        """Share of the ancestral noise in a step of `ddim`."""
        predictor: Literal["reverse_diffusion", "none"] = "reverse_diffusion"
        """How `predictor_corrector` reaches the next level; `none` leaves all to the corrector."""
        corrector_steps: Whole = 1
        """Steps of Langevin dynamics at each level."""
        snr: Positive = 0.16
        """Ratio of the norms of signal and noise in such a step."""
        classifier_scale: NonNegative = 1.0
        """s: 1 is Bayes' rule, 0 leaves the classifier out, more exaggerates the class."""
        guidance: NonNegative = 1.0
        """How the U-Net's own knowledge of the class is followed, as in `ddpm`; of no effect with `condition=none`."""
        variance: Literal["beta", "beta_tilde"] = "beta_tilde"
        """Variance of a step of `ddpm`; of no effect where it is learned."""
        likelihood_steps: Count | None = 20
        """Terms of the bound evaluated between the first and the last, one from each stratum; None is all."""
        likelihood_variance: Literal["beta", "beta_tilde"] = "beta"
        """Variance of the steps in the bound; of no effect where it is learned."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1, classifier_lr=2.0e-3),
        "small": Config(),
        "paper": Config(
            width=192,
            multipliers=(1, 2, 3, 4),
            num_blocks=3,
            attention_resolution=16,
            num_heads=12,  # of 64 channels each at the bottom
            dropout=0.1,
            patch=1,
            output="noise",
            learned_variance=True,
            condition="class",
            classifier_width=128,
            classifier_blocks=4,
            classifier_heads=8,  # of 64 channels each at the bottom
            classifier_lr=3.0e-4,
            lr=1.0e-4,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=0.9999,
            batch_size=256,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=25),
        "small": Sampling(),
        "paper": Sampling(num_steps=250, likelihood_steps=None),
    }
    config: Config
    sampling: Sampling
    label_counts: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config, clip_norm=1.0)
        if not spec.num_classes:
            raise SettingError(
                "`guided_diffusion` guides to classes: the data have none", hint="`ddpm` is for any images"
            )
        self.sampling = self.Sampling()
        C, side, _ = spec.shape
        self.unet = UNet(
            C,
            self.num_outputs,
            resolution=side,
            width=config.width,
            multipliers=config.multipliers,
            num_blocks=config.num_blocks,
            attention_resolution=config.attention_resolution,
            num_heads=config.num_heads,
            dropout=config.dropout,
            patch=config.patch,
        )
        self.make_conditioner(self.unet.embedding_dim)
        self.classifier = NoisyClassifier(
            C,
            spec.num_classes,
            resolution=side,
            width=config.classifier_width,
            multipliers=config.multipliers,
            num_blocks=config.classifier_blocks,
            attention_resolution=config.attention_resolution,
            num_heads=config.classifier_heads,
            patch=config.classifier_patch,
        )
        self.register_buffer("label_counts", torch.zeros(spec.num_classes, dtype=torch.int64))

    @property
    def network(self) -> UNet:
        """The U-Net."""
        return self.unet

    @property
    def condition_kind(self) -> ConditionKind:
        """`class`: the classifier makes samples of it whatever the network is told."""
        return "class"

    def phases(self) -> tuple[Phase, ...]:
        """The network, and then the classifier."""
        c = self.config
        judge = Player(
            name="classifier",
            modules=(self.classifier,),
            lr=c.classifier_lr,
            weight_decay=c.classifier_weight_decay,
            clip_norm=1.0,
            warmup_steps=c.warmup_steps,
            final_lr_share=0.0,
        )
        players = {"diffusion": self.denoising_player(), "classifier": judge}
        shares = {"diffusion": 1.0 - c.classifier_share, "classifier": c.classifier_share}
        return tuple(
            Phase(name=name, share=shares[name], players=(player,), batch_size=c.batch_size)
            for name, player in players.items()
        )

    def prepare(self, batch: Batch) -> None:
        """Count classes, so that there are some to draw before any training."""
        self._count(self._labels(batch))

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `network` as of `ddpm`, or of `classifier`, the cross-entropy of noised images in nats."""
        labels = self._labels(batch)
        if self.training:
            self._count(labels)
        return self._classifier_loss(batch.x, labels) if player == "classifier" else self.denoising_loss(batch)

    def drawn_conditions(self, count: int, *, generator: Generator) -> Tensor:
        """Classes in the shares of the training examples: (count,).

        Raises:
            RuntimeError: the model was never prepared nor trained.
        """
        if not self.label_counts.any():
            raise RuntimeError("there is no class to draw: the model was never trained")
        return torch.multinomial(self.label_counts.double(), count, replacement=True, generator=generator)

    def slope(self, condition: Tensor | None) -> Slope | None:
        """Gradient s g that samples of the classes `condition` (B,) climb; None without a class, and at s = 0."""
        scale = self.sampling.classifier_scale
        if condition is None or scale == 0.0:
            return None
        y = condition

        def climbed(x_t: Tensor, t: Tensor) -> Tensor:
            at = self._level(t)
            most = WIDTH * at["alpha"] / at["sigma"].square()
            return scale * class_slope(self.classifier, x_t, t, y).clamp(-most, most)

        return climbed

    def _classifier_loss(self, x: Tensor, labels: Tensor) -> Loss:
        x_0 = to_signed(x, self.levels)
        t = torch.randint(1, self.schedule.num_steps + 1, (len(x_0),), device=x_0.device)
        logits = self.classifier(self._noised(x_0, t, torch.randn_like(x_0)), t).float()
        loss, right = F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()
        return Loss(loss, {"cross_entropy": loss.detach(), "accuracy": right})

    def _labels(self, batch: Batch) -> Tensor:
        if batch.y is None:
            raise SettingError("the examples have no class to learn from")
        return batch.y

    def _count(self, labels: Tensor) -> None:
        self.label_counts.index_add_(0, labels, torch.ones_like(labels))
