"""What sampling and each capability class promise, as checks on one trained model.

A check returns when the promise holds and raises `Broken` with what was found when it does not, or `NotApplicable`
when the model makes no such promise.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import numpy as np
import safetensors.torch
import torch
from torch import Generator, Tensor

from genbench.core.dataset import PAD, Batch, DataSpec
from genbench.core.model import (
    CaptionModel,
    Conditional,
    ContinuousLatents,
    DiscreteLatents,
    EnergyBased,
    ExactLikelihood,
    GenerativeModel,
    IterativeSampler,
    Likelihood,
    LikelihoodEstimate,
)
from genbench.core.texts import ended, questions_of
from genbench.prob.pixels import to_signed

NUM_SAMPLES = 4
FLOAT32_TOLERANCE = 1e-3
"""Relative difference that summation order may make to a sum over all pixels in float32."""


class Broken(Exception):
    """A promise that the model does not keep."""


class NotApplicable(Exception):
    """A promise that this model does not make."""


def require(condition: bool, otherwise: str) -> None:
    """Raise `Broken` with the words given unless the condition holds."""
    if not condition:
        raise Broken(otherwise)


def samples_are_what_the_data_are(model: GenerativeModel) -> None:
    """Shape, type and range of samples are those of the data."""
    _are_data(model.sample(NUM_SAMPLES, generator=_generator(0)), NUM_SAMPLES, model.spec, "`sample`")


def samples_depend_on_the_generator_alone(model: GenerativeModel) -> None:
    """Equal generators give equal samples, others give others, and no global stream is read or moved."""
    draws = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(global_seed)
        draw = functools.partial(model.sample, NUM_SAMPLES, generator=_generator(seed))
        draws.append(_leaving_streams_alone("sample", draw))
    require(torch.equal(draws[0], draws[1]), "equal generators give different samples")
    require(not torch.equal(draws[0], draws[2]), "different generators give equal samples")


def saved_weights_give_the_same_samples(model: GenerativeModel, other: GenerativeModel) -> None:
    """A model of the same kind that loads the weights through safetensors draws the same samples."""
    if not model.state_dict():
        raise NotApplicable("the model keeps no weights in its `state_dict`")
    saved = safetensors.torch.save({k: v.detach().clone().contiguous() for k, v in model.state_dict().items()})
    other.load_state_dict(safetensors.torch.load(saved))
    drawn, again = (m.sample(NUM_SAMPLES, generator=_generator(0)) for m in (model, other))
    require(torch.equal(drawn, again), "a model with the same `state_dict` draws other samples")


def log_likelihood_is_one_number_an_example(model: GenerativeModel, x: Tensor) -> None:
    """Shape (B,), finite, a function of the generator; of integers, at most 0 unless it is an estimate."""
    scorer = _scorer(model)
    found = _leaving_streams_alone("log_likelihood", lambda: scorer.log_likelihood(x, generator=_generator(0)))
    require(found.shape == (len(x),), f"`log_likelihood` has shape {tuple(found.shape)}, expected ({len(x)},)")
    require(bool(found.isfinite().all()), "`log_likelihood` of held-out data is not finite")
    require(not found.requires_grad, "`log_likelihood` carries a graph; decorate it with `torch.no_grad()`")
    again = scorer.log_likelihood(x, generator=_generator(0))
    require(torch.equal(found, again), "equal generators give different log-likelihoods")
    if model.spec.levels is not None and not isinstance(model, LikelihoodEstimate):
        mean = found.mean().item()
        require(mean <= 0, f"a log-probability of integers is {mean:.4g} nats in the mean, more than 0")


def log_likelihood_prefers_data_to_noise(model: GenerativeModel, x: Tensor) -> None:
    """Held-out data score better in the mean than uniform noise of the same shape."""
    scorer = _scorer(model)
    levels = model.spec.levels
    if levels is None:
        raise NotApplicable("float data have no uniform law to compare with")
    noise = torch.randint(0, levels, x.shape, generator=_generator(0), dtype=x.dtype)
    data, other = (scorer.log_likelihood(images, generator=_generator(0)).mean().item() for images in (x, noise))
    require(data > other, f"data have {data:.4g} nats an example, uniform noise has {other:.4g}")


def log_likelihood_ignores_the_rest_of_the_batch(model: GenerativeModel, x: Tensor) -> None:
    """An exact likelihood gives an example the same number in any batch."""
    if not isinstance(model, ExactLikelihood):
        raise NotApplicable("only an exact likelihood draws no noise and so can be compared over batches")
    together = model.log_likelihood(x, generator=_generator(0))
    apart = torch.cat([model.log_likelihood(part, generator=_generator(0)) for part in x.split(5)])
    _agree(together, apart, "`log_likelihood`")


def energy_is_one_number_an_example(model: GenerativeModel, x: Tensor) -> None:
    """Shape (B,), finite, the same in any batch, with a finite gradient at the image."""
    if not isinstance(model, EnergyBased):
        raise NotApplicable("no `EnergyBased`")
    levels = model.spec.levels
    images = (x.float() if levels is None else to_signed(x, levels)).requires_grad_()
    found = model.energy(images)
    require(found.shape == (len(x),), f"`energy` has shape {tuple(found.shape)}, expected ({len(x)},)")
    require(bool(found.isfinite().all()), "`energy` of held-out data is not finite")
    (slope,) = torch.autograd.grad(found.sum(), images)
    require(bool(slope.isfinite().all()) and bool(slope.any()), "`energy` has no finite gradient at the image")
    _agree(found, torch.cat([model.energy(part) for part in images.split(5)]), "`energy`")


def codes_can_be_decoded(model: GenerativeModel, x: Tensor) -> None:
    """`encode`, `decode` and `reconstruct` have the declared shapes and read no global stream."""
    if not isinstance(model, ContinuousLatents | DiscreteLatents):
        raise NotApplicable("neither `ContinuousLatents` nor `DiscreteLatents`")
    codes = _leaving_streams_alone("encode", lambda: model.encode(x))
    require(len(codes) == len(x), f"{len(x)} examples have {len(codes)} codes")
    if isinstance(model, ContinuousLatents):
        shaped = codes.ndim == 2 and codes.is_floating_point() and bool(codes.isfinite().all())
        require(shaped, f"codes are {codes.dtype} of shape {tuple(codes.shape)}, expected finite floats (B, D)")
    else:
        low, high, limit = int(codes.min()), int(codes.max()), model.num_codes
        require(codes.dtype == torch.int64, f"codes are {codes.dtype}, expected int64")
        require(0 <= low <= high < limit, f"codes run over {low} .. {high}, expected 0 .. {limit - 1}")
    require(torch.equal(codes, model.encode(x)), "`encode` gives other codes when it is called again")
    _are_data(_leaving_streams_alone("decode", lambda: model.decode(codes)), len(x), model.spec, "`decode`")
    rebuilt = _leaving_streams_alone("reconstruct", lambda: model.reconstruct(x))
    _are_data(rebuilt, len(x), model.spec, "`reconstruct`")


def conditions_can_be_given(model: GenerativeModel, data: Batch) -> None:
    """`sample_given` draws one example for each condition, as a function of the generator."""
    if not isinstance(model, Conditional) or model.condition_kind == "none":
        raise NotApplicable("it can be told neither a class nor a caption")
    conditions = data.y if model.condition_kind == "class" else data.text
    if conditions is None:
        raise NotApplicable("the dataset has no labels or captions to condition on")
    few = conditions[:NUM_SAMPLES]
    drawn = _leaving_streams_alone("sample_given", lambda: model.sample_given(few, generator=_generator(0)))
    _are_data(drawn, len(few), model.spec, "`sample_given`")
    again = model.sample_given(few, generator=_generator(0))
    require(torch.equal(drawn, again), "equal generators give different samples")


def texts_are_given_for_pictures(model: GenerativeModel, data: Batch) -> None:
    """Log-probabilities (B,) at most 0, the same in any batch; texts that keep what is given and end in padding."""
    if not isinstance(model, CaptionModel):
        raise NotApplicable("no `CaptionModel`")
    require(data.pictures is not None, "the dataset has no pictures with texts; choose `--dataset captioned_shapes`")
    assert data.pictures is not None
    pictures, texts = data.pictures[:NUM_SAMPLES, -2:], data.x[:NUM_SAMPLES, -2:]
    found = _leaving_streams_alone("text_log_likelihood", lambda: model.text_log_likelihood(pictures, texts))
    require(
        found.shape == (len(texts),), f"`text_log_likelihood` has shape {tuple(found.shape)}, expected ({len(texts)},)"
    )
    require(bool((found <= 0).all()), f"a log-probability of a text is {found.max().item():.4g}, not at most 0")
    apart = [model.text_log_likelihood(pictures[i : i + 1], texts[i : i + 1]) for i in range(len(texts))]
    _agree(found, torch.cat(apart), "`text_log_likelihood`")
    asked = texts.clone()
    asked[:, -1] = questions_of(texts[:, -1], model.spec.vocabulary)
    for seed in (None, 0):
        draw = functools.partial(_described, model, pictures, asked, seed)
        said = _leaving_streams_alone("describe", draw)
        shape = (len(texts), texts.shape[-1])
        require(tuple(said.shape) == shape, f"`describe` has shape {tuple(said.shape)}, expected {shape}")
        require(said.dtype == torch.uint8, f"`describe` gives {said.dtype}, expected uint8")
        require(int(said.max()) < len(model.spec.vocabulary), "`describe` gives a word that is not in the vocabulary")
        given = asked[:, -1] != PAD
        require(torch.equal(said[given], asked[:, -1][given]), "`describe` does not keep the words that it is given")
        require(not bool(((said != PAD) & ~ended(said)).any()), "`describe` goes on after the end of a text")
        require(torch.equal(said, draw()), "equal generators give different texts")


def _described(model: CaptionModel, pictures: Tensor, texts: Tensor, seed: int | None) -> Tensor:
    return model.describe(pictures, texts, generator=None if seed is None else _generator(seed))


def iterative_sampler_calls_its_network(model: GenerativeModel) -> None:
    """`sample` calls `network` at least once, so that network evaluations can be counted."""
    if not isinstance(model, IterativeSampler):
        raise NotApplicable("no `IterativeSampler`")
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handle = model.network.register_forward_hook(count)
    model.sample(1, generator=_generator(0))
    handle.remove()
    require(calls > 0, "`sample` never calls `network`, so no evaluation can be counted")


def _scorer(model: GenerativeModel) -> Likelihood:
    if not isinstance(model, Likelihood):
        raise NotApplicable("no likelihood is declared")
    return model


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _agree(together: Tensor, apart: Tensor, what: str) -> None:
    worst = ((together - apart).abs() / (1 + together.abs())).max().item()
    require(worst < FLOAT32_TOLERANCE, f"{what} of an example depends on its batch: relative difference {worst:.2g}")


def _are_data(x: Tensor, count: int, spec: DataSpec, what: str) -> None:
    shape = (count, *spec.shape)
    require(tuple(x.shape) == shape, f"{what} has shape {tuple(x.shape)}, expected {shape}")
    if spec.levels is None:
        require(x.is_floating_point() and bool(x.isfinite().all()), f"{what} does not give finite floats")
        return
    require(x.dtype == torch.uint8, f"{what} gives {x.dtype}, expected uint8")
    require(int(x.max()) < spec.levels, f"{what} gives the level {int(x.max())}, expected at most {spec.levels - 1}")


def _leaving_streams_alone(what: str, action: Callable[[], Tensor]) -> Tensor:
    """Result of an action that must not move the global streams of torch, numpy and Python."""
    before = _streams()
    result = action()
    require(_streams() == before, f"`{what}` draws from a global random stream")
    return result


def _streams() -> tuple[bytes, str, str]:
    torch_state = torch.get_rng_state().numpy().tobytes()
    return torch_state, str(np.random.get_state(legacy=False)), str(random.getstate())  # noqa: NPY002
