"""Which CLIP models can be built, how each was trained, and where its weights are published."""

from __future__ import annotations

import copy
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from genbench.core.errors import DataError, SettingError, nearest
from genbench.features._clip_folders import WEIGHTS, described, folder_of, is_folder, require_transformers
from genbench.features._weights import fill, find_weights, load_state

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
    """The recipe of published weights, or of `UNPUBLISHED` ones; of a folder or a repository, what it says itself.

    Raises:
        SettingError: no such model or tag, or one whose captions need a library that is not there.
        DataError: no such folder or repository.
    """
    if is_folder(model):
        require_tokenizer(model)
        _, found = described(folder_of(model))
        return _recipe(found, model, url="", filenames=WEIGHTS, sha256=None)
    if model not in open_clip.list_models():
        raise SettingError(f"open_clip has no model `{model}`", hint=nearest(model, open_clip.list_models()))
    require_tokenizer(model)
    known = open_clip.list_pretrained_tags_by_model(model)
    if tag != UNPUBLISHED and tag not in known:
        raise SettingError(
            f"open_clip has no weights `{tag}` of `{model}`",
            hint=f"{nearest(tag, known)} or `{UNPUBLISHED}` with a file of your own",
        )
    published = open_clip.get_pretrained_cfg(model, tag) if tag != UNPUBLISHED else {}
    place = _place(model, tag, str(published.get("url", "")), str(published.get("hf_hub", "")))
    return _recipe(published, f"{model}` with weights `{tag}", url=place[0], filenames=place[1], sha256=place[2])


def _recipe(found: Mapping[str, Any], what: str, *, url: str, filenames: tuple[str, ...], sha256: str | None) -> Recipe:
    if found.get("interpolation", "bicubic") != "bicubic" or found.get("resize_mode", "shortest") == "longest":
        raise SettingError(f"pictures for `{what}` are resized in a way that is not supported")
    return Recipe(
        quick_gelu=bool(found.get("quick_gelu", False)),
        mean=tuple(found.get("mean", None) or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(found.get("std", None) or open_clip.OPENAI_DATASET_STD),
        squash=found.get("resize_mode", "shortest") == "squash",
        url=url,
        filenames=filenames,
        sha256=sha256,
    )


def weights_of(model: str, recipe: Recipe, given: str) -> Path:
    """File of the weights: as given, else those of the folder or repository, else as `find_weights` finds them.

    Raises:
        DataError: they are not there.
    """
    if given or not is_folder(model):
        return find_weights("clip", given=given, filenames=recipe.filenames, url=recipe.url, sha256=recipe.sha256)
    folder = folder_of(model)
    found = next((folder / name for name in recipe.filenames if (folder / name).is_file()), None)
    if found is None:
        raise DataError(f"clip: {folder}: no weights here", hint=f"expected {', '.join(recipe.filenames)}")
    return found


def build(model: str, recipe: Recipe, path: Path) -> open_clip.CLIP:
    """The network of `model` with weights from a file, float32.

    Raises:
        DataError: the file is damaged, or holds weights of another network.
    """
    config = config_of(model)
    config["quick_gelu"] = recipe.quick_gelu or bool(config.get("quick_gelu", False))
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    custom = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    network = open_clip.CustomTextCLIP(**config) if custom else open_clip.CLIP(**config)
    state = _archived(path) if _is_archive(path) else load_state("clip", path)
    state = convert_to_custom_text_state_dict(state) if custom else state
    fill(network, state, owner=f"clip[model={model}]", path=path)
    return network


def config_of(model: str) -> dict[str, Any]:
    """What a network is built from, to be changed by the caller."""
    found = described(folder_of(model))[0] if is_folder(model) else open_clip.get_model_config(model)
    return copy.deepcopy(cast("dict[str, Any]", found))


def num_features_of(model: str) -> int:
    """Length of the embeddings of `model`."""
    return int(config_of(model)["embed_dim"])


def tokenizer_of(model: str) -> open_clip.SimpleTokenizer | HFTokenizer:
    """The tokenizer of `model`: open_clip's of byte pairs, or one of Hugging Face's, from the model's own folder."""
    text = config_of(model)["text_cfg"]
    length, settings = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    if not _named_tokenizer(text):
        return open_clip.SimpleTokenizer(context_length=length, **settings)
    source = str(folder_of(model)) if is_folder(model) else _named_tokenizer(text)
    mode = text.get("tokenizer_mode")
    return HFTokenizer(source, context_length=length, tokenizer_mode=mode, **settings)


def num_tokens(tokenizer: open_clip.SimpleTokenizer | HFTokenizer, caption: str) -> int:
    """Tokens of a caption, however many fit."""
    if isinstance(tokenizer, HFTokenizer):
        return len(tokenizer.tokenizer(tokenizer.clean_fn(caption), verbose=False)["input_ids"])
    return len(tokenizer.encode(caption)) + 2  # where it starts, and where it ends


def require_tokenizer(model: str) -> None:
    """Refuse a model whose captions nobody here can read.

    Raises:
        SettingError: it writes captions too, or needs a library that is not there.
    """
    config = config_of(model)
    if "multimodal_cfg" in config:
        raise SettingError(
            f"captions for `{model}` need a tokenizer for a decoder of captions, which is not supported",
            hint="take a model without one, such as ViT-B-32",
        )
    if _named_tokenizer(config["text_cfg"]):
        require_transformers(model)


def _named_tokenizer(text: Mapping[str, Any]) -> str:
    """Name of the tokenizer of Hugging Face's that a text tower wants, empty for open_clip's own."""
    return str(text.get("hf_tokenizer_name") or text.get("hf_model_name") or "")


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
