"""Consistency models: one step from noise to image, learned from data or from a diffusion model.

Consistency Models. Yang Song, Prafulla Dhariwal, Mark Chen, Ilya Sutskever, 2023. arXiv:2303.01469
Improved Techniques for Training Consistency Models. Yang Song, Prafulla Dhariwal, 2023. arXiv:2310.14189

All points of one path of the probability flow lead to the same image, and a consistency function f maps each of them
there. A network learns it from neighbours on a path: what f makes of the noisier point shall be what it makes of the
other. From data alone the neighbours share image and noise; by distillation a diffusion model, trained first, takes
the step between them.

Legend: `y` clean data, images in [-1, 1], `x` noised data, `sigma` standard deviation of the noise, which is also the
time, `N` number of levels of the grid sigma_1 = sigma_min < ... < sigma_N = sigma_max, `f(x, sigma)` = c_skip x +
c_out F with f(x, sigma_min) = x, `c` width of the pseudo-Huber distance, `lambda` weight of a level.

`objective` chooses: `training` is the improved training of the second paper (pseudo-Huber distance, no averaged
teacher, log-normal levels, lambda = 1 / (sigma_(i+1) - sigma_i), N doubling from `first_intervals` to
`last_intervals`); `distillation` is Algorithm 2 of the first, with a denoiser in the design of Karras et al.
(arXiv:2206.00364) as teacher and a fixed number of intervals.

**Departures**
- Distillation, too, draws and weighs levels as improved training does; `level_law` = uniform is as the first paper has
  it, but then little of a short training reaches little noise, where c_out is small.
- Distances are pseudo-Huber's in both, never LPIPS, whose weights come from other data; in distillation, too, the
  target is made by the student itself without gradient, not by a running average of it.
- The network is the U-Net of DDPM, and a residual MLP for vectors; the optimiser is Adam, not RAdam; its average is
  for sampling alone.
- The second paper's two-step samples pass a level that a search found best (0.821 on CIFAR-10); here `num_steps`
  levels are those of the grid of `num_steps` + 1 (Karras et al., Eq. 5) above its last.
- `smoke` and `small` use narrow networks, higher learning rates, shorter averages and fewer levels, enlarge c_noise
  before the sinusoidal embedding (`noise_scale`) and take `sigma_data` for 1, where the authors have 0.5: c_skip then
  keeps more of the input, and a network that starts at 0 has less to copy. `small` stacks 2x2 pixels into channels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import GenerativeModel, IterativeSampler, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, OpenShare, Positive, Real, Share, Whole
from genbench.models._noised_data import over, unet_or_mlp
from genbench.prob.karras_levels import karras_sigmas
from genbench.prob.pixels import to_signed, to_uint8
from genbench.prob.preconditioning import Preconditioning


@register_model("consistency")
class Consistency(GenerativeModel, IterativeSampler):
    """A consistency function, and by distillation its teacher."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: Count = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`."""
        num_blocks: Count = 1
        """Residual blocks per level."""
        attention_resolution: Whole = 4
        """The first level of maps at most this large attends, as does the bottom."""
        num_heads: Count = 1
        dropout: Fraction = 0.0
        """One mask serves both neighbours of a pair."""
        patch: Count = 2
        """Side of the squares of pixels that are stacked into channels."""
        vector_width: Count = 128
        """Of the layers of the MLP that vectors have in place of the U-Net."""
        vector_blocks: Count = 3
        """Residual blocks of the MLP."""
        objective: Literal["training", "distillation"] = "training"
        sigma_data: Positive = 1.0
        """Standard deviation of the data as the coefficients take it, for pixels in [-1, 1]."""
        sigma_min: Positive = 0.002
        """Where paths end and f is the identity."""
        sigma_max: Positive = 80.0
        rho: Positive = 7.0
        """How much denser the levels lie at the small end."""
        first_intervals: Count = 10
        """s_0: N - 1 at the start of `training`."""
        last_intervals: Count = 1280
        """s_1: N - 1 at its end, a power of two times `first_intervals`."""
        curriculum_steps: Count = 1000
        """Training steps over which N - 1 doubles, again and again, from the first to the last."""
        level_law: Literal["log_normal", "uniform"] = "log_normal"
        """Log-normal over the intervals, with lambda = 1 / (sigma_(i+1) - sigma_i); or all alike, with lambda = 1."""
        log_sigma_mean: Real = -1.1
        """P_mean: mean of the normal law of log(sigma)."""
        log_sigma_std: Positive = 2.0
        """P_std."""
        teacher_intervals: Count = 17
        """N - 1 in `distillation`."""
        teacher_step: Literal["heun", "euler"] = "heun"
        """How the teacher goes from one level to the next."""
        teacher_share: OpenShare = 0.5
        """Share of the samples seen that trains the teacher."""
        teacher_log_sigma_mean: Real = -1.2
        """Mean of the normal law of log(sigma) of the teacher's training."""
        teacher_log_sigma_std: Positive = 1.2
        huber: Positive = 0.00054
        """c over the square root of the number of dimensions."""
        noise_scale: Positive = 100.0
        """Factor of c_noise before the sinusoidal embedding; the papers have 1."""
        lr: Positive = 2.0e-3
        teacher_lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

        def __post_init__(self) -> None:
            if self.first_intervals > self.last_intervals:
                raise ValueError(
                    f"the last grid has no fewer intervals than the first, found {self.first_intervals} and then "
                    f"{self.last_intervals}"
                )

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn."""

        num_steps: Count = 1
        """Network evaluations per sample; all but the first start from noise put on again."""

    takes = ("image", "vector")
    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, patch=1, last_intervals=40, curriculum_steps=300),
        "small": Config(last_intervals=80),
        "paper": Config(
            width=128,
            multipliers=(2, 2, 2),
            num_blocks=4,
            attention_resolution=16,
            dropout=0.3,
            patch=1,
            curriculum_steps=400_000,
            sigma_data=0.5,
            noise_scale=1.0,
            lr=1.0e-4,
            teacher_lr=1.0e-3,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=0.99993,
            batch_size=1024,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=2),
        "small": Sampling(num_steps=2),
        "paper": Sampling(num_steps=1),
    }
    sampling: Sampling
    step: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        self.config, self.levels = config, spec.levels
        self.sampling = self.Sampling()
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))  # of `training`, so far
        self.net = unet_or_mlp(spec, config, owner="consistency")
        self.teacher = unet_or_mlp(spec, config, owner="consistency") if config.objective == "distillation" else None
        self._taught = False

    @property
    def network(self) -> nn.Module:
        """The student's F, a U-Net or an MLP."""
        return self.net

    def phases(self) -> tuple[Phase, ...]:
        """The student alone, or behind its teacher."""
        c = self.config
        student = self._player("student", self.net, c.lr, clip_norm=None)
        if self.teacher is None:
            return (Phase(name="train", share=1.0, players=(student,), batch_size=c.batch_size),)
        teacher = self._player("teacher", self.teacher, c.teacher_lr, clip_norm=1.0)
        return (
            Phase(name="teacher", share=c.teacher_share, players=(teacher,), batch_size=c.batch_size),
            Phase(name="student", share=1.0 - c.teacher_share, players=(student,), batch_size=c.batch_size),
        )

    def loss(self, batch: Batch, player: str) -> Loss:
        """Of the `student`, the distance of neighbours; of the `teacher`, the error of its denoising."""
        y = batch.x.float() if self.levels is None else to_signed(batch.x, self.levels)
        return self._teacher_loss(y) if player == "teacher" else self._student_loss(y)

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Map noise to data, and noised data again (Algorithm 1 of the first paper): (N, C, H, W) uint8, or (N, D)."""
        c = self.config
        sigmas = karras_sigmas(
            self.sampling.num_steps + 1, sigma_min=c.sigma_min, sigma_max=c.sigma_max, rho=c.rho
        ).tolist()[:-1]
        y = torch.zeros((num_samples, *self.spec.shape), device=generator.device)
        for i, sigma in enumerate(sigmas):
            noise = torch.randn(y.shape, generator=generator, device=y.device)
            std = sigma if i == 0 else math.sqrt(sigma**2 - c.sigma_min**2)
            y = self.jump(y + std * noise, y.new_full((num_samples,), sigma))
        return y if self.levels is None else to_uint8(y, self.levels)

    def jump(self, x: Tensor, sigma: Tensor) -> Tensor:
        """f(x, sigma), the end of the path through `x`: the shape of `x`.

        Args:
            x: (B, ...) float, y with noise.
            sigma: (B,) levels of the noise, sigma_min or above.
        """
        at = Preconditioning.at(sigma, self.config.sigma_data, shift=self.config.sigma_min)
        return self._wrapped(self.net, at, x)

    def teach(self, x: Tensor, sigma: Tensor, less: Tensor) -> Tensor:
        """Where the teacher's step takes `x` from level `sigma` to `less`: the shape of `x`.

        Args:
            x: (B, ...) float.
            sigma: (B,) levels of `x`.
            less: (B,) lower levels, above 0.
        """
        width = over(less - sigma, x)
        slope = (x - self._denoise(x, sigma)) / over(sigma, x)
        euler = x + width * slope
        if self.config.teacher_step == "euler":
            return euler
        slope_there = (euler - self._denoise(euler, less)) / over(less, x)
        return x + 0.5 * width * (slope + slope_there)

    def intervals(self) -> Tensor:
        """N - 1: of `training` min(s_0 2^floor(k / K'), s_1) at its present step k: scalar float."""
        c = self.config
        if self.teacher is not None:
            return torch.full_like(self.step, c.teacher_intervals, dtype=torch.float32)
        doublings = math.floor(math.log2(c.last_intervals // c.first_intervals))
        steps_each = max(1, c.curriculum_steps // (doublings + 1))
        doubled = (self.step // steps_each).clamp(max=doublings)
        return (c.first_intervals * torch.exp2(doubled.float())).clamp(max=float(c.last_intervals))

    def _student_loss(self, y: Tensor) -> Loss:
        """E lambda d(f(x, sigma_(i+1)), f(x', sigma_i)), the second without gradient."""
        less, sigma, weight = self._levels(len(y), y.device)
        eps = torch.randn_like(y)
        x = y + over(sigma, y) * eps
        if self.teacher is None:
            x_less = y + over(less, y) * eps
        else:
            self._begin_to_teach(self.teacher)
            with torch.no_grad():
                x_less = self.teach(x, sigma, less)
        with torch.no_grad(), self._dropout_drawn_again(y.device):
            target = self.jump(x_less, less)
        distance = self._distance(self.jump(x, sigma), target)
        if self.training and torch.is_grad_enabled():
            self.step += 1
        return Loss((weight * distance).mean(), {"distance": distance.mean().detach(), "intervals": self.intervals()})

    def _levels(self, num: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbouring levels sigma_i and sigma_(i+1), and their weight: (B,) each."""
        c = self.config
        u = torch.rand(num, device=device)
        intervals = self.intervals()
        if c.level_law == "uniform":
            i = (u * intervals).floor().minimum(intervals - 1)
            return self._grid(i, intervals), self._grid(i + 1, intervals), torch.ones_like(u)
        low, high = (0.5 * math.erfc(-self._standard(sigma) / math.sqrt(2)) for sigma in (c.sigma_min, c.sigma_max))
        drawn = torch.exp(c.log_sigma_mean + c.log_sigma_std * torch.special.ndtri(low + (high - low) * u))
        first, last = c.sigma_min ** (1 / c.rho), c.sigma_max ** (1 / c.rho)
        share = (drawn ** (1 / c.rho) - first) / (last - first)
        i = (share * intervals).floor().clamp(min=0.0).minimum(intervals - 1)
        less, sigma = self._grid(i, intervals), self._grid(i + 1, intervals)
        return less, sigma, 1.0 / (sigma - less)

    def _standard(self, sigma: float) -> float:
        return (math.log(sigma) - self.config.log_sigma_mean) / self.config.log_sigma_std

    def _grid(self, i: Tensor, intervals: Tensor) -> Tensor:
        """sigma_i of that many intervals, i = 0 for sigma_min: the shape of `i`."""
        c = self.config
        first, last = c.sigma_min ** (1 / c.rho), c.sigma_max ** (1 / c.rho)
        sigma: Tensor = (first + i / intervals * (last - first)) ** c.rho
        return sigma

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Pseudo-Huber's sqrt(|a - b|^2 + c^2) - c: (B,)."""
        c = self.config.huber * math.sqrt(self.spec.num_dims)
        return ((a - b).square().flatten(1).sum(1) + c**2).sqrt() - c

    def _teacher_loss(self, y: Tensor) -> Loss:
        """E lambda |D(y + n; sigma) - y|^2 with lambda = 1 / c_out^2, a mean over dimensions."""
        c = self.config
        sigma = torch.exp(c.teacher_log_sigma_mean + c.teacher_log_sigma_std * torch.randn(len(y), device=y.device))
        error = self._denoise(y + over(sigma, y) * torch.randn_like(y), sigma) - y
        mse = (error / over(Preconditioning.at(sigma, c.sigma_data).out, y)).square().mean()
        return Loss(mse, {"denoising": mse.detach()})

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The teacher's estimate of y: the shape of `x`."""
        assert self.teacher is not None
        return self._wrapped(self.teacher, Preconditioning.at(sigma, self.config.sigma_data), x)

    def _wrapped(self, net: nn.Module, at: Preconditioning, x: Tensor) -> Tensor:
        raw: Tensor = net(over(at.into, x) * x, self.config.noise_scale * at.noise)
        return over(at.skip, x) * x + over(at.out, x) * raw

    def _begin_to_teach(self, teacher: nn.Module) -> None:
        """The student starts as its teacher, which has stopped learning."""
        teacher.eval()
        if not self._taught:
            self.net.load_state_dict(teacher.state_dict())
            self._taught = True

    @contextlib.contextmanager
    def _dropout_drawn_again(self, device: torch.device) -> Iterator[None]:
        """What follows draws the masks that were drawn inside."""
        if self.config.dropout == 0.0:
            yield
            return
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield

    def _player(self, name: str, net: nn.Module, lr: float, *, clip_norm: float | None) -> Player:
        c = self.config
        return Player(
            name=name,
            modules=(net,),
            lr=lr,
            clip_norm=clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
            ema_decay=c.ema_decay,
        )
