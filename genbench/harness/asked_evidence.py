"""Evidence of what a model draws when it is told what: classes in turn, or captions of held-out combinations."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, Split
from genbench.core.metric import CaptionEvidence, Evidence, FactorEvidence, LabelEvidence, Need
from genbench.core.model import Conditional, GenerativeModel, SteeredByFeatures, condition_kind
from genbench.core.spec import Cell, Scalar
from genbench.evaluation.extraction import read_factors
from genbench.evaluation.networks import Networks
from genbench.evaluation.options import Options
from genbench.evaluation.picture_evidence import caption_evidence
from genbench.evaluation.pictures import HeldImages, every_picture, shown
from genbench.harness.caption_controls import with_captions_of
from genbench.harness.evidence import subset
from genbench.harness.sample import check_samples, device_of
from genbench.prob.pixels import to_rgb

_BATCH = 128
_SEED = 104_729
"""Added to the cell's seed, so that these samples do not share their noise with the others."""


def gather_asked(
    needs: frozenset[Need],
    cell: Cell,
    dataset: Dataset,
    networks: Networks,
    model: GenerativeModel | None,
    *,
    caption_prefix: str = "",
    seen: bool = False,
) -> Evidence:
    """Evidence for the given needs, from `num_likelihood` samples that the model draws for classes or captions.

    Of a control that has captions (`caption_controls`), these are its pictures.

    Args:
        needs: kinds of evidence that `applicable` has found to be there.
        cell: gives their number and the seed.
        dataset: gives the classes or captions.
        networks: the judges.
        model: conditional, on its device; None of a control.
        caption_prefix: words before every caption when it is embedded; the model never sees them.
        seen: whether captions are those of held-out examples of combinations that training shows.

    Raises:
        SampleError: what was drawn is not what the contract says.
    """
    labels = _labels(cell, dataset, networks, model) if Need.LABELS in needs else None
    if not needs & {Need.PROMPTS, Need.CAPTIONS}:
        return Evidence(labels=labels)
    split: Split = "test" if seen else caption_split(dataset)
    prompts = subset(dataset, split, cell.protocol.num_likelihood)
    if model is None:
        prompts = with_captions_of(cell.subject.name, prompts)
        drawn = to_rgb(prompts.x, dataset.spec.levels or 256)
    else:
        drawn = _drawn_for_captions(model, prompts, dataset, cell.seed)
    asked: dict[str, Scalar] = {"asked": f"captions of `{split}`"}
    return Evidence(
        labels=labels,
        factors=_factors(drawn, prompts, dataset, networks, asked) if Need.PROMPTS in needs else None,
        captions=_captions(drawn, prompts, dataset, networks, asked, caption_prefix, model)
        if Need.CAPTIONS in needs
        else None,
    )


def caption_split(dataset: Dataset) -> Split:
    """Whose captions are asked: combinations that `train` never shows where there are such, else held-out examples."""
    return "novel" if "novel" in dataset.splits else "test"


def balanced_labels(num_classes: int, count: int) -> Tensor:
    """Every class equally often, in turn: as many whole rounds as fit into `count`, at least one; int64."""
    return torch.arange(num_classes).repeat(max(1, count // num_classes))


def _labels(cell: Cell, dataset: Dataset, networks: Networks, model: GenerativeModel | None) -> LabelEvidence:
    if model is None or condition_kind(model) != "class":
        raise TypeError("classes were asked of a model that cannot be told one")
    asked = balanced_labels(dataset.spec.num_classes, cell.protocol.num_likelihood)
    drawn = draw_given(model, asked, seed=cell.seed)
    extractor = networks.get("features")
    read = read_factors(extractor, shown(drawn, dataset.spec))
    return LabelEvidence(
        asked=asked,
        logits=torch.nn.functional.one_hot(read.values[:, 0], len(read.factors[0].values)).float(),
        extractor=networks.ref("features").name,
        protocol={**extractor.protocol(), "asked": "every class equally often"},
    )


def _drawn_for_captions(model: GenerativeModel | None, prompts: Batch, dataset: Dataset, seed: int) -> Tensor:
    """One picture for each caption: (N, 3, H, W) uint8, 0 .. 255."""
    if model is None or condition_kind(model) != "text" or prompts.text is None:
        raise TypeError("captions were asked of a model that cannot be told one, or of data without them")
    return to_rgb(draw_given(model, prompts.text, seed=seed), dataset.spec.levels or 256)


def _factors(
    drawn: Tensor, prompts: Batch, dataset: Dataset, networks: Networks, asked: dict[str, Scalar]
) -> FactorEvidence:
    extractor, combinations = networks.get("features"), dataset.combinations("train")
    assert combinations is not None  # `applicable` has refused data without factors
    return FactorEvidence(
        samples=read_factors(extractor, drawn),
        training=torch.from_numpy(combinations),
        asked=prompts.factors,
        protocol={**extractor.protocol(), **asked},
    )


def _captions(
    drawn: Tensor,
    prompts: Batch,
    dataset: Dataset,
    networks: Networks,
    asked: dict[str, Scalar],
    prefix: str,
    model: GenerativeModel | None,
) -> CaptionEvidence:
    assert prompts.text is not None
    words = [dataset.spec.caption(tokens) for tokens in prompts.text]
    options = Options(caption_prefix=prefix, caching=False)
    found = caption_evidence(every_picture(HeldImages(drawn)), words, None, networks, options=options)
    told: object = model
    steered_by = told.steered_by if isinstance(told, SteeredByFeatures) else None
    judges = steered_by == networks.ref("captions").name
    return dataclasses.replace(found, steered_by=steered_by if judges else None, protocol={**found.protocol, **asked})


@torch.no_grad()
def draw_given(model: GenerativeModel, condition: Tensor, *, seed: int) -> Tensor:
    """One sample for each row of `condition`, in batches; the same in every run: (N, *shape) on the CPU.

    Args:
        model: `Conditional`, on classes with labels (N,), or on text with captions (N, T).
        condition: on the CPU.
        seed: of the cell.

    Raises:
        SampleError: what was drawn is not what the contract says.
    """
    told: object = model
    if not isinstance(told, Conditional):
        raise TypeError("a condition was given to a model that takes none")
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(seed + _SEED)
    chunks = [told.sample_given(part.to(device), generator=generator).cpu() for part in condition.split(_BATCH)]
    drawn = torch.cat(chunks)
    check_samples(drawn, len(condition), model.spec)
    return drawn
