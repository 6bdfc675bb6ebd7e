"""CLIP models that are no names of open_clip: a folder, or a repository of Hugging Face's, which describe themselves.

    open_clip_config.json        `model_cfg` of the network, `preprocess_cfg` of the pictures
    open_clip_model.safetensors  the weights, or `open_clip_pytorch_model.bin`, read as tensors alone
    tokenizer.json, ...          where captions need a tokenizer of Hugging Face's

This is how open_clip writes models for others (`push_to_hf_hub`), and what it reads under `local-dir:` and `hf-hub:`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from genbench.core.errors import DataError, SettingError

HUB_PREFIX = "hf-hub:"
FOLDER_PREFIX = "local-dir:"
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.model")
_HINT = f"a folder, or a repository under `{HUB_PREFIX}`, holds `{CONFIG}` and `{WEIGHTS[0]}`"


def is_folder(model: str) -> bool:
    """Whether a model is named by a folder or a repository, and not by a name of open_clip's."""
    return model.startswith((HUB_PREFIX, FOLDER_PREFIX)) or "/" in model or Path(model).expanduser().is_dir()


def folder_of(model: str) -> Path:
    """The folder of a model; what stands in a repository is fetched, or taken from the cache of `huggingface_hub`.

    Raises:
        DataError: it is not there, or cannot be fetched.
    """
    if not model.startswith(HUB_PREFIX):
        folder = Path(model.removeprefix(FOLDER_PREFIX)).expanduser()
        if not (folder / CONFIG).is_file():
            raise DataError(f"clip: {folder}: no `{CONFIG}` here", hint=_HINT)
        return folder
    from huggingface_hub import snapshot_download  # comes with open_clip

    repository = model.removeprefix(HUB_PREFIX)
    try:
        return Path(snapshot_download(repository, allow_patterns=[CONFIG, *WEIGHTS[:1], *_TOKENIZER]))
    except (OSError, ValueError) as error:  # of the network, of the hub, or of the name
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"clip: repository `{repository}` cannot be fetched: {reason}", hint=_HINT) from error


def described(folder: Path) -> tuple[dict[str, object], dict[str, object]]:
    """What `open_clip_config.json` says of the network and of the pictures.

    Raises:
        DataError: it cannot be read, or says nothing of the network.
    """
    path = folder / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        model = found["model_cfg"]
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
            raise ValueError("`model_cfg` lacks `embed_dim`, `vision_cfg` or `text_cfg`")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", hint=_HINT) from error
    return cast("dict[str, object]", model), cast("dict[str, object]", found.get("preprocess_cfg", {}))


def require_transformers(model: str) -> None:
    """Refuse a model whose captions need a tokenizer of Hugging Face's where there is none.

    Raises:
        SettingError: `transformers` is not installed.
    """
    try:
        import transformers  # noqa: F401 -- open_clip imports it when it builds the tokenizer
    except ImportError as error:
        raise SettingError(
            f"captions for `{model}` need a tokenizer that open_clip does not hold, of the library `transformers`",
            hint="pip install genbench[text]; models named RN..., ViT-... or EVA... mostly have their own",
        ) from error
