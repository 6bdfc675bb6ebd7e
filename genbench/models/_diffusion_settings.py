"""Which settings the base of diffusion in discrete time reads off the `Config` and `Sampling` of a paper's file."""

from __future__ import annotations

from typing import Literal, Protocol

from genbench.models._conditional_sampling import ConditionSettings
from genbench.prob.noise_schedule import ScheduleName, Variance
from genbench.prob.prediction import Prediction
from genbench.samplers.predictor_corrector import Predictor


class Settings(ConditionSettings, Protocol):
    """What a paper's `Config` must hold; the meaning of each is said there."""

    @property
    def output(self) -> Prediction:
        """What the network returns."""

    @property
    def target(self) -> Prediction:
        """What the squared error is of."""

    @property
    def learned_variance(self) -> bool:
        """Whether the network returns the variances of the reverse steps."""

    @property
    def schedule(self) -> ScheduleName:
        """Of the noise."""

    @property
    def num_timesteps(self) -> int:
        """T."""

    @property
    def lr(self) -> float:
        """Learning rate."""

    @property
    def warmup_steps(self) -> int:
        """Over which it rises."""

    @property
    def final_lr_share(self) -> float:
        """Of it, at the end."""

    @property
    def ema_decay(self) -> float:
        """Of the weights."""

    @property
    def batch_size(self) -> int:
        """Of training."""


class SamplingSettings(Protocol):
    """What a paper's `Sampling` must hold."""

    @property
    def sampler(self) -> Literal["ddpm", "ddim", "dpm_solver_pp", "heun", "predictor_corrector"]:
        """Which one."""

    @property
    def num_steps(self) -> int | None:
        """Steps, each of one network evaluation or more; None is T."""

    @property
    def eta(self) -> float:
        """Share of the ancestral noise in a step of `ddim`."""

    @property
    def spacing(self) -> Literal["even", "karras"]:
        """Of the steps."""

    @property
    def predictor(self) -> Predictor:
        """Of `predictor_corrector`."""

    @property
    def corrector_steps(self) -> int:
        """Of `predictor_corrector`."""

    @property
    def snr(self) -> float:
        """Of a step of the corrector."""

    @property
    def guidance(self) -> float:
        """S."""

    @property
    def variance(self) -> Variance:
        """Of a step of `ddpm`, where it is fixed."""

    @property
    def likelihood_steps(self) -> int | None:
        """Terms of the bound between the first and the last; None is all."""

    @property
    def likelihood_variance(self) -> Variance:
        """Of the steps in the bound, where it is fixed."""
