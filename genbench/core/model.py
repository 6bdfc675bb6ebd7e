"""The contract of a model: `loss`, `sample`, who is optimised when, and capabilities as base classes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataKind, DataSpec
from genbench.core.errors import SettingError, nearest
from genbench.core.record import Kind
from genbench.core.references import no_condition
from genbench.core.registry import Registry
from genbench.core.settings import field_names, with_settings
from genbench.core.spec import Scalar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """A set of parameters with an optimiser of its own."""

    name: str
    modules: tuple[nn.Module, ...]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW); 0 is Adam."""
    turns: int = 1
    """Consecutive steps of this player in one round of its phase."""
    clip_norm: float | None = None
    """Gradients are scaled down to this global norm; None leaves them."""
    skip_norm: float | None = None
    """No step is taken where the global norm, before scaling, reaches this or is no number; None takes every step."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    final_lr_share: float = 1.0
    """Learning rate after the last step as a share of `lr`, reached along a cosine; 1 keeps it."""
    ema_decay: float | None = None
    """Weights are averaged exponentially and the average is sampled from; None keeps the last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training: its players take their turns, round after round."""

    name: str
    share: float
    """Share of the samples seen that this phase gets; the shares of a model sum to 1."""
    players: tuple[Player, ...]
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a player minimises, and its named parts for the log (detached)."""

    total: Tensor
    """Scalar with gradient."""
    parts: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


class GenerativeModel(nn.Module, ABC):
    """A generative model, built as `Model(spec, config)`.

    A subclass holds a nested frozen dataclass `Config` and `presets`, which names at least
    `smoke` (8 px, seconds on a CPU), `small` (16-32 px) and `paper` (the paper's own size).
    Training draws from the global random stream; sampling only from the generator it is given.
    """

    presets: ClassVar[Mapping[str, DataclassInstance]] = {}
    takes: ClassVar[tuple[DataKind, ...]] = ("image",)
    """Kinds of data that it can be built for; plans read it off the source, of the class or of the nearest base."""
    needs: ClassVar[ConditionKind] = "none"
    """What examples must have beside their values, whatever the settings; plans read it off the class."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of one player on one batch of integers."""

    @abstractmethod
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw (N, *shape) on the model's device: uint8, values 0 .. levels-1, for images and waveforms."""

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The story of training, in order."""

    def prepare(self, batch: Batch) -> None:
        """Initialise what depends on data (actnorm, codebooks) from the first training batch."""


class Likelihood(ABC):
    """A model that scores data; the subclasses below say what the score is."""

    likelihood_kind: ClassVar[Kind]
    usual_estimator: ClassVar[str] = ""
    """What `likelihood_estimator` is of a model that says nothing more exact."""

    @property
    def likelihood_estimator(self) -> str:
        """How the likelihood is made, for the protocol of its scores; empty where the model does not say.

        A method and what it depends on, such as `evidence lower bound, 1 draw`, `importance-weighted bound, 16 draws`,
        `variational dequantisation, 1 draw` or `probability-flow ODE, heun, 64 evaluations`.
        """
        return self.usual_estimator

    @abstractmethod
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Log-likelihood of the stored integers: (B,), nats per example.

        The log-Jacobian of any rescaling or dequantisation of the model's own is included.

        Args:
            x: (B, *shape), as `Batch.x`.
            generator: source of dequantisation noise, latent draws or random time steps.
        """


class ExactLikelihood(Likelihood):
    """The probability of the integers themselves, as of an autoregressive model."""

    likelihood_kind: ClassVar[Kind] = "exact"
    usual_estimator: ClassVar[str] = "exact"


class DequantisedLikelihood(Likelihood):
    """The exact density of noised integers: a lower bound of their log-probability (Jensen)."""

    likelihood_kind: ClassVar[Kind] = "dequantised"
    usual_estimator: ClassVar[str] = "uniform dequantisation, 1 draw"


class LikelihoodBound(Likelihood):
    """A lower bound of the log-likelihood, in expectation over the generator."""

    likelihood_kind: ClassVar[Kind] = "bound"


class LikelihoodEstimate(Likelihood):
    """An estimate that is neither exact nor a bound."""

    likelihood_kind: ClassVar[Kind] = "estimate"


class ContinuousLatents(ABC):
    """A model with real-valued codes."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Codes of images, without noise: (B, D) float."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Most probable or mean images of codes: (B, *shape) uint8."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """Images decoded from their own codes: (B, *shape) uint8."""


class DiscreteLatents(ABC):
    """A model with codes from a finite alphabet."""

    @property
    @abstractmethod
    def num_codes(self) -> int:
        """Size of the alphabet."""

    @property
    def books(self) -> tuple[tuple[int, int], ...]:
        """Of several codebooks, in the order of flattened codes: how many positions each serves, and its entries.

        Empty: one book of `num_codes` serves all positions.
        """
        return ()

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Codes of images: (B, ...) int64 with values 0 .. num_codes-1."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Images of codes: (B, *shape) uint8."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """Images decoded from their own codes: (B, *shape) uint8."""


ConditionKind = Literal["none", "class", "text"]


class Conditional(ABC):
    """A model that can be told what to draw, if its settings say so: a class, or a caption."""

    @property
    @abstractmethod
    def condition_kind(self) -> ConditionKind:
        """What it is told; `none` where its settings make it unconditional."""

    @abstractmethod
    def sample_given(self, condition: Tensor, *, generator: Generator) -> Tensor:
        """One image for each label of `condition` (N,), or each caption (N, T): (N, *shape) uint8."""


class ClassConditional(Conditional):
    """A model that is always told which class to draw."""

    @property
    def condition_kind(self) -> ConditionKind:
        """`class`."""
        return "class"


class TextConditional(Conditional):
    """A model that is always told in words what to draw."""

    @property
    def condition_kind(self) -> ConditionKind:
        """`text`."""
        return "text"


def condition_kind(model: object) -> ConditionKind:
    """What a model can be told; `none` for one that cannot be told anything."""
    return model.condition_kind if isinstance(model, Conditional) else "none"


class CaptionModel(ABC):
    """A model of texts: of the text of a picture, given that picture and earlier pictures with their texts (shots)."""

    @abstractmethod
    def text_log_likelihood(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Log-probability of the last text of each episode, its question given: (B,) nats.

        What counts are the words after the question and the end of the text (`core.texts.counted`).

        Args:
            pictures: (B, K + 1, C, H, W) uint8: K shots, and the picture that is asked about.
            texts: (B, K + 1, T) uint8, padded with `PAD`.
        """

    @abstractmethod
    def describe(self, pictures: Tensor, texts: Tensor, *, generator: Generator | None) -> Tensor:
        """The text of the last picture of each episode: (B, T) uint8, padded with `PAD`.

        Args:
            pictures: (B, K + 1, C, H, W) uint8.
            texts: (B, K + 1, T) uint8; words that stand in the last text, such as a question, are kept, and gone on
                with.
            generator: draws words from the model; None takes the most probable word each time.
        """


class IterativeSampler(ABC):
    """A model whose samples take many evaluations of one network.

    A subclass holds a nested frozen dataclass `Sampling` (which sampler, how many steps, ...) and
    `sampling_presets` under the names of its `presets`. These settings never touch the weights.
    """

    sampling_presets: ClassVar[Mapping[str, DataclassInstance]] = {}
    sampling: DataclassInstance

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The module whose calls are counted as network evaluations."""


class SteeredByFeatures(ABC):
    """A model whose samples an extractor may have steered or picked, so that its scores of them are not independent."""

    @property
    @abstractmethod
    def steered_by(self) -> str | None:
        """Registered name of the extractor that steers or picks samples of a condition as things are set, or None."""


class SelfTraining(ABC):
    """A model that steps its own optimisers; the harness still owns data order, budget and clock."""

    @abstractmethod
    def train_step(self, batch: Batch) -> Tensor:
        """Take one optimiser step on one batch; the scalar loss, for the log."""


class EnergyBased(ABC):
    """A model that knows its log-density up to a constant."""

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """Energy of float images in [-1, 1], as `prob.pixels` scales them: (B,)."""


MODELS: Registry[GenerativeModel] = Registry("model", "models")
register_model = MODELS.register


def build_model(
    kind: type[GenerativeModel], spec: DataSpec, *, preset: str, settings: Mapping[str, Scalar], owner: str
) -> GenerativeModel:
    """Build a model from a preset and settings; settings of its sampler go to `sampling`.

    Raises:
        SettingError: unknown preset or setting, a value of the wrong type or out of range, or guidance to nothing.
    """
    if preset not in kind.presets:
        raise SettingError(f"`{owner}` has no preset `{preset}`", hint=nearest(preset, kind.presets))
    for_sampling, for_model = split_settings(kind, settings)
    config = with_settings(kind.presets[preset], for_model, owner=owner)
    if "guidance" in for_sampling and dataclasses.asdict(config).get("condition") == "none":
        raise no_condition(owner, for_sampling["guidance"])
    model = cast("Callable[[DataSpec, DataclassInstance], GenerativeModel]", kind)(spec, config)
    if isinstance(model, IterativeSampler):
        model.sampling = with_settings(model.sampling_presets[preset], for_sampling, owner=owner)
    return model


def split_settings(
    kind: type[GenerativeModel], settings: Mapping[str, Scalar]
) -> tuple[dict[str, Scalar], dict[str, Scalar]]:
    """Settings of the sampler, and settings of the model; an unknown key counts as the model's."""
    names: set[str] = set()
    if issubclass(kind, IterativeSampler):
        names = {name for preset in kind.sampling_presets.values() for name in field_names(type(preset))}
    return {k: v for k, v in settings.items() if k in names}, {k: v for k, v in settings.items() if k not in names}
