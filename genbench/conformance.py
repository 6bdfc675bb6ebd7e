"""The contract test that any model must pass: what `core/model.py` promises, checked on a model trained for seconds.

Every check is one function of a `_Subject`; it returns when the promise holds, raises `Broken` with what was found
when it does not, and `NotApplicable` with the reason when the model promises nothing of the kind. Any other exception
is the model's, and is reported as the finding.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import math
import random
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from genbench.core.dataset import Batch, Dataset, DataSpec, build_dataset
from genbench.core.model import (
    MODELS,
    EnergyBased,
    GenerativeModel,
    IterativeSampler,
    Phase,
    Player,
    SelfTraining,
    build_model,
)
from genbench.core.spec import Ref
from genbench.harness import _promises as promises
from genbench.harness._promises import Broken, NotApplicable, require
from genbench.harness.external import external_model, is_external
from genbench.harness.train import train

NUM_STEPS = 60
"""Least number of training steps of a phase, all turns of its players together: seconds on a CPU."""
NUM_EXAMPLES = 256
NUM_SCORED = 32
LOSS_DRAWS = 4
"""Batches over which a loss or a gradient is collected: one draw of noise could hide a broken player."""
REQUIRED_PRESETS = ("smoke", "small", "paper")
PRESET_SIDES = {"small": 16, "paper": 32}
"""Pixels a side at which the larger presets must at least be constructible."""
_USUAL_DATA = {
    "image": Ref(name="shapes", config={"resolution": 8}),
    "vector": Ref(name="toy2d"),
    "waveform": Ref(name="tones", config={"length": 512}),
    "text": Ref(name="captioned_shapes", config={"resolution": 8}),
}
"""Of each kind, data that keep a test to seconds."""
_REFERENCE = re.compile(r"\d{4}\.\d{4,5}|doi|hep-\w+/\d+", re.IGNORECASE)
_YEAR = re.compile(r"\b(19|20)\d\d\b")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One promise and whether it is kept."""

    name: str
    passed: bool
    message: str
    """What broke it; for a promise that was not put to the test, `skipped: ` and why; else `kept`."""


@dataclasses.dataclass(frozen=True)
class _Subject:
    """A model under test: how to build it, and what it learns from. Nothing is built before it is needed."""

    kind: type[GenerativeModel]
    construct: Callable[[], GenerativeModel]
    dataset: Dataset
    registered: bool
    """Whether it claims a name in the registry; a user's own file does not."""

    @functools.cached_property
    def data(self) -> Batch:
        return self.dataset.load("train", range(NUM_EXAMPLES))

    @functools.cached_property
    def held_out(self) -> Tensor:
        return self.dataset.load("test", range(NUM_SCORED)).x

    def fresh(self, seed: int = 0) -> GenerativeModel:
        torch.manual_seed(seed)
        return self.construct()

    @functools.cached_property
    def started(self) -> GenerativeModel:
        """As it stands before the first step."""
        model = self.fresh()
        model.prepare(self.data)
        return model

    @functools.cached_property
    def trained(self) -> GenerativeModel:
        """Trained for at least about `NUM_STEPS` steps of each phase by the harness's own loop."""
        model = self.fresh()
        phases = model.phases()
        if phases:
            budget = max(NUM_STEPS * min(phase.batch_size, NUM_EXAMPLES) / phase.share for phase in phases)
            train(model, self.data, samples_seen=math.ceil(budget), seed=0)
        return model.eval()


def usual_data(takes: Sequence[str]) -> Ref:
    """Small data of a kind that a model takes: pictures, or where it takes none, vectors, waveforms or texts."""
    return next(ref for kind, ref in _USUAL_DATA.items() if kind in takes)


def check_model(kind: type[GenerativeModel], dataset: Dataset, *, preset: str = "smoke") -> list[Finding]:
    """Put one model class to the test on one dataset; never raises for what the model does wrong.

    Args:
        kind: a registered class.
        dataset: with a `train` and a `test` split; 8x8 images keep the test to seconds.
        preset: the configuration that is trained.
    """
    owner = kind.__module__.rpartition(".")[2]

    def construct() -> GenerativeModel:
        return build_model(kind, dataset.spec, preset=preset, settings={}, owner=owner)

    return _findings(_Subject(kind, construct, dataset, registered=True))


def check_reference(model: Ref, dataset: Ref) -> list[Finding]:
    """As `check_model`, for a registered name or a user's file, with the settings of the reference.

    Raises:
        GenbenchError: the names, settings or the file itself are wrong, so that there is nothing to test.
    """
    data, preset, settings = build_dataset(dataset), model.preset or "smoke", dict(model.config)
    if is_external(model):
        example = external_model(model, data.spec, preset=preset, settings=settings)
        construct = functools.partial(external_model, model, data.spec, preset=preset, settings=settings)
        return _findings(_Subject(type(example), construct, data, registered=False))
    kind = MODELS.get(model.name)
    build = functools.partial(build_model, kind, data.spec, preset=preset, settings=settings, owner=model.label)
    build()
    return _findings(_Subject(kind, build, data, registered=True))


def _findings(subject: _Subject) -> list[Finding]:
    """Run every check; the caller's global streams are given back as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the stream others may use
    try:
        with torch.random.fork_rng():
            return [_finding(name, check, subject) for name, check in _CHECKS.items()]
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _finding(name: str, check: Callable[[_Subject], None], subject: _Subject) -> Finding:
    try:
        check(subject)
    except NotApplicable as reason:
        return Finding(name, True, f"skipped: {reason}")
    except Broken as found:
        return Finding(name, False, str(found))
    except Exception as error:  # whatever the model raises is the finding
        return Finding(name, False, f"{type(error).__name__}: {error}")
    return Finding(name, True, "kept")


def _name_is_the_file(subject: _Subject) -> None:
    _registered_only(subject)
    stem = subject.kind.__module__.rpartition(".")[2]
    require(stem in MODELS.names(), f"the file is `{stem}.py`, but no model is registered as `{stem}`")
    require(MODELS.get(stem) is subject.kind, f"`{stem}` is registered for another class")


def _docstrings_cite_the_paper(subject: _Subject) -> None:
    _registered_only(subject)
    words = inspect.getdoc(inspect.getmodule(subject.kind)) or ""
    first, _, rest = words.partition("\n")
    require(bool(first.strip()) and len(rest) > 0, "the module docstring has no line that says what the model is")
    require(bool(_REFERENCE.search(words)), "the module docstring has no arXiv number or DOI")
    require(bool(_YEAR.search(rest)), "the module docstring does not give title, authors and year")
    require("departures" in words.lower(), "the module docstring has no section `Departures`; write `none` if so")
    require(bool(vars(subject.kind).get("__doc__")), "the class has no docstring")


def _presets_are_complete(subject: _Subject) -> None:
    _registered_only(subject)
    missing = [name for name in REQUIRED_PRESETS if name not in subject.kind.presets]
    require(not missing, f"presets {missing} are missing")
    if issubclass(subject.kind, IterativeSampler):
        unsampled = [name for name in subject.kind.presets if name not in subject.kind.sampling_presets]
        require(not unsampled, f"presets {unsampled} have no `sampling_presets`")


def _build_without_memory(subject: _Subject, preset: str) -> None:
    """On the meta device, where a network of any size costs nothing; a network that needs values is built if small."""
    _registered_only(subject)
    spec = _resized(subject.dataset.spec, PRESET_SIDES[preset])
    build = functools.partial(build_model, subject.kind, spec, preset=preset, settings={}, owner=preset)
    try:
        with torch.device("meta"):
            build()
    except (NotImplementedError, RuntimeError) as error:
        if preset == "paper":
            reason = str(error).partition("\n")[0]
            raise NotApplicable(f"construction reads values, so it cannot be tried on meta: {reason}") from error
        build()


def _resized(spec: DataSpec, side: int) -> DataSpec:
    return dataclasses.replace(spec, shape=(spec.shape[0], side, side)) if spec.kind == "image" else spec


def _phases_share_out_the_budget(subject: _Subject) -> None:
    _plays(subject)
    phases = subject.started.phases()
    total = sum(phase.share for phase in phases)
    require(math.isclose(total, 1.0, abs_tol=1e-6), f"phase shares sum to {total}, expected 1")
    require(all(phase.share > 0 and phase.batch_size > 0 for phase in phases), "a phase has no share or no batch")
    for phase in phases:
        names = [player.name for player in phase.players]
        require(bool(names) and len(set(names)) == len(names), f"players of `{phase.name}` are {names}")
        require(all(player.turns >= 1 for player in phase.players), f"a player of `{phase.name}` has no turn")


def _every_parameter_has_one_player(subject: _Subject) -> None:
    model = subject.started
    _plays(subject)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owned: set[int] = set()
    for phase in model.phases():
        in_phase: dict[int, str] = {}
        for player in phase.players:
            for key in {id(parameter) for parameter in _parameters(player)}:
                require(key in names, f"player `{player.name}` has a parameter that is not the model's")
                require(key not in in_phase, f"`{names[key]}` belongs to `{in_phase.get(key)}` and `{player.name}`")
                in_phase[key] = player.name
        owned |= set(in_phase)
    orphans = [names[id(p)] for p in model.parameters() if p.requires_grad and id(p) not in owned]
    require(not orphans, f"trainable parameters without a player: {_few(orphans)}")


def _every_player_moves_all_its_parameters(subject: _Subject) -> None:
    """On trained weights: a head that starts at zero hides the gradient of everything before it."""
    _plays(subject)
    model = copy.deepcopy(subject.trained).train()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for phase, player in _turns(model):
        parameters = _collect_gradients(model, subject.data, phase, player)
        still = [names[id(p)] for p in parameters if p.grad is None or not p.grad.any()]
        require(not still, f"the loss of `{player.name}` gives no gradient to {_few(still)}")
        wild = [names[id(p)] for p in parameters if p.grad is not None and not p.grad.isfinite().all()]
        require(not wild, f"the loss of `{player.name}` gives infinite or NaN gradients to {_few(wild)}")


def _collect_gradients(model: GenerativeModel, data: Batch, phase: Phase, player: Player) -> list[nn.Parameter]:
    """Gradients over a few batches, with only this player's parameters asking for one, as in training."""
    parameters = _parameters(player)
    model.requires_grad_(False).zero_grad(set_to_none=True)
    for parameter in parameters:
        parameter.requires_grad_(True)
    for batch in _batches(data, phase):
        torch.autograd.backward(model.loss(batch, player.name).total)
    return parameters


def _loss_is_a_finite_scalar(subject: _Subject) -> None:
    _plays(subject)
    for model in (subject.started, subject.trained):
        for phase, player in _turns(model.train()):
            loss = model.loss(next(iter(_batches(subject.data, phase))), player.name)
            require(loss.total.shape == (), f"the loss of `{player.name}` has shape {tuple(loss.total.shape)}")
            require(bool(loss.total.isfinite()), f"the loss of `{player.name}` is {loss.total.item()}")
            attached = [name for name, part in loss.parts.items() if part.requires_grad]
            require(not attached, f"parts {attached} of the loss of `{player.name}` are not detached")
            wild = [name for name, part in loss.parts.items() if not part.isfinite().all()]
            require(not wild, f"parts {wild} of the loss of `{player.name}` are not finite")
        model.eval()


def _training_lowers_the_loss(subject: _Subject) -> None:
    """On the training examples themselves, with the same noise before and after."""
    _plays(subject)
    if isinstance(subject.started, EnergyBased) or any(len(phase.players) > 1 for phase in subject.started.phases()):
        raise NotApplicable("the loss of an adversary or of an energy measures a game, not progress")
    before, after = _mean_losses(subject.started, subject.data), _mean_losses(subject.trained, subject.data)
    for name, loss in after.items():
        require(loss < before[name], f"the loss of `{name}` went from {before[name]:.4g} to {loss:.4g}")


@torch.no_grad()
def _mean_losses(model: GenerativeModel, data: Batch) -> dict[str, float]:
    means = {}
    model = copy.deepcopy(model).train()
    for phase, player in _turns(model):
        torch.manual_seed(1)
        losses = [model.loss(batch, player.name).total.item() for batch in _batches(data, phase)]
        means[f"{phase.name}/{player.name}"] = sum(losses) / len(losses)
    return means


def _registered_only(subject: _Subject) -> None:
    if not subject.registered:
        raise NotApplicable("asked of registered models only")


def _plays(subject: _Subject) -> None:
    if not subject.started.phases() or isinstance(subject.started, SelfTraining):
        raise NotApplicable("the harness does not optimise this model")


def _turns(model: GenerativeModel) -> list[tuple[Phase, Player]]:
    return [(phase, player) for phase in model.phases() for player in phase.players]


def _parameters(player: Player) -> list[nn.Parameter]:
    """Parameters of all its modules, each once."""
    return list({id(p): p for module in player.modules for p in module.parameters()}.values())


def _batches(data: Batch, phase: Phase) -> list[Batch]:
    size = min(phase.batch_size, len(data))
    starts = [k * size % (len(data) - size + 1) for k in range(LOSS_DRAWS)]
    return [data[start : start + size] for start in starts]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


_CHECKS: dict[str, Callable[[_Subject], None]] = {
    "name_is_the_file": _name_is_the_file,
    "docstrings_cite_the_paper": _docstrings_cite_the_paper,
    "presets_are_complete": _presets_are_complete,
    "small_preset_can_be_built": lambda s: _build_without_memory(s, "small"),
    "paper_preset_can_be_built": lambda s: _build_without_memory(s, "paper"),
    "phases_share_out_the_budget": _phases_share_out_the_budget,
    "every_parameter_has_one_player": _every_parameter_has_one_player,
    "every_player_moves_all_its_parameters": _every_player_moves_all_its_parameters,
    "loss_is_a_finite_scalar": _loss_is_a_finite_scalar,
    "training_lowers_the_loss": _training_lowers_the_loss,
    "samples_are_what_the_data_are": lambda s: promises.samples_are_what_the_data_are(s.trained),
    "samples_depend_on_the_generator_alone": lambda s: promises.samples_depend_on_the_generator_alone(s.trained),
    "saved_weights_give_the_same_samples": lambda s: promises.saved_weights_give_the_same_samples(
        s.trained, s.fresh(seed=7).eval()
    ),
    "log_likelihood_is_one_number_an_example": lambda s: promises.log_likelihood_is_one_number_an_example(
        s.trained, s.held_out
    ),
    "log_likelihood_prefers_data_to_noise": lambda s: promises.log_likelihood_prefers_data_to_noise(
        s.trained, s.held_out
    ),
    "log_likelihood_ignores_the_rest_of_the_batch": lambda s: promises.log_likelihood_ignores_the_rest_of_the_batch(
        s.trained, s.held_out
    ),
    "codes_can_be_decoded": lambda s: promises.codes_can_be_decoded(s.trained, s.held_out),
    "conditions_can_be_given": lambda s: promises.conditions_can_be_given(s.trained, s.data),
    "texts_are_given_for_pictures": lambda s: promises.texts_are_given_for_pictures(s.trained, s.data),
    "energy_is_one_number_an_example": lambda s: promises.energy_is_one_number_an_example(s.trained, s.held_out),
    "iterative_sampler_calls_its_network": lambda s: promises.iterative_sampler_calls_its_network(s.trained),
}
