"""Which CLIP models can be built, how each was trained, and where its weights are published."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from genbench.core.errors import SettingError, nearest
from genbench.features._weights import fill, load_state

UNPUBLISHED = "none"
"""In place of a tag for weights that nobody has published: the plain activation, and OpenAI's normalisation."""
HUB = "https://huggingface.co/{repository}/resolve/main/{filename}"
HUB_FILENAME = "open_clip_model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """What the weights of one tag expect of network and pictures, and where they are."""

    quick_gelu: bool
    """x sigmoid(1.702 x) in place of GELU, as OpenAI trained."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    squash: bool
    """Both sides are resized to the network's, in place of the shorter one and a crop."""
    url: str
    filenames: tuple[str, ...]
    """Names that the file may have, the first that of a download."""
    sha256: str | None
    """First digits of the published digest, where the publisher gives it in the name."""


def recipe_of(model: str, tag: str) -> Recipe:
    """The recipe of published weights, or of `UNPUBLISHED` ones.

    Raises:
        SettingError: no such model or tag, or one whose captions need another library.
    """
    if model not in open_clip.list_models():
        raise SettingError(f"open_clip has no model `{model}`", hint=nearest(model, open_clip.list_models()))
    _require_own_tokenizer(model)
    known = open_clip.list_pretrained_tags_by_model(model)
    if tag != UNPUBLISHED and tag not in known:
        raise SettingError(
            f"open_clip has no weights `{tag}` of `{model}`",
            hint=f"{nearest(tag, known)} or `{UNPUBLISHED}` with a file of your own",
        )
    found = open_clip.get_pretrained_cfg(model, tag) if tag != UNPUBLISHED else {}
    if found.get("interpolation", "bicubic") != "bicubic" or found.get("resize_mode", "shortest") == "longest":
        raise SettingError(f"pictures for `{model}` with weights `{tag}` are resized in a way that is not supported")
    url, filenames, sha256 = _place(model, tag, str(found.get("url", "")), str(found.get("hf_hub", "")))
    return Recipe(
        quick_gelu=bool(found.get("quick_gelu", False)),
        mean=tuple(found.get("mean", None) or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(found.get("std", None) or open_clip.OPENAI_DATASET_STD),
        squash=found.get("resize_mode", "shortest") == "squash",
        url=url,
        filenames=filenames,
        sha256=sha256,
    )


def build(model: str, recipe: Recipe, path: Path) -> open_clip.CLIP:
    """The network of `model` with weights from a file, float32.

    Raises:
        DataError: the file is damaged, or holds weights of another network.
    """
    config = open_clip.get_model_config(model)
    config["quick_gelu"] = recipe.quick_gelu or bool(config.get("quick_gelu", False))
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    custom = config.pop("custom_text", False)
    network = open_clip.CustomTextCLIP(**config) if custom else open_clip.CLIP(**config)
    state = _archived(path) if _is_archive(path) else load_state("clip", path)
    state = convert_to_custom_text_state_dict(state) if custom else state
    fill(network, state, owner=f"clip[model={model}]", path=path)
    return network


def num_features_of(model: str) -> int:
    """Length of the embeddings of `model`."""
    return int(open_clip.get_model_config(model)["embed_dim"])


def tokenizer_of(model: str) -> open_clip.SimpleTokenizer:
    """The byte-pair tokenizer of `model`."""
    text = open_clip.get_model_config(model)["text_cfg"]
    return open_clip.SimpleTokenizer(context_length=text.get("context_length", 77), **text.get("tokenizer_kwargs", {}))


def _require_own_tokenizer(model: str) -> None:
    config = open_clip.get_model_config(model)
    if "multimodal_cfg" in config or {"hf_model_name", "hf_tokenizer_name"} & set(config["text_cfg"]):
        raise SettingError(
            f"captions for `{model}` need a tokenizer that open_clip does not hold",
            hint="models named RN..., ViT-... or EVA... have their own",
        )


def _place(model: str, tag: str, url: str, repository: str) -> tuple[str, tuple[str, ...], str | None]:
    """Address of published weights, names of their file, and what is known of its digest."""
    own = (f"{model}-{tag}.safetensors", f"{model}-{tag}.pt", f"{model}-{tag}.bin")
    name = PurePosixPath(url).name
    if "openaipublic" in url:  # the folder is the digest
        return url, (name, *own), PurePosixPath(url).parent.name
    if repository:
        return HUB.format(repository=repository.rstrip("/"), filename=HUB_FILENAME), own, None
    return url, (name, *own) if name else own, name.rsplit(".", 1)[0].rsplit("-", 1)[-1] if name else None


def _is_archive(path: Path) -> bool:
    """Whether this is a TorchScript archive, as OpenAI published its weights."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())


def _archived(path: Path) -> dict[str, Tensor]:
    """Tensors of OpenAI's archive; three of its numbers describe the network and are none of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch would rather read another format, which was not published
        state = torch.jit.load(str(path), map_location="cpu").state_dict()
    described = {"input_resolution", "context_length", "vocab_size"}
    return {name: value for name, value in state.items() if name not in described}
