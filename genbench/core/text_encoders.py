"""Whether a published text encoder is at hand: as a folder, in the cache of `huggingface_hub`, or over the network."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from genbench.core.errors import DataError

TIMEOUT_SECONDS = 5.0
WANTED = "a name on huggingface.co, or a folder with `config.json`, the weights and the tokenizer's files"
_WEIGHTS = ("*.safetensors", "*.bin")


def check_text_encoder(name: str) -> None:
    """Refuse an encoder that is not on this machine and cannot be fetched either, within seconds.

    Without a network, the libraries that load it try again and again for about half a minute.

    Args:
        name: on huggingface.co, or path of a folder.

    Raises:
        DataError: it says what to do.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return
    if folder.is_dir():
        raise DataError(f"text encoder `{name}`: no `config.json` in this folder", hint=f"give {WANTED}")
    try:
        from huggingface_hub import constants, try_to_load_from_cache
    except ImportError:  # it comes with `transformers`, which says itself that it is not there
        return
    try:
        cached = try_to_load_from_cache(name, "config.json")
    except ValueError as error:
        raise DataError(
            f"text encoder `{name}`: no such folder, and no name on huggingface.co", hint=f"give {WANTED}"
        ) from error
    whole = isinstance(cached, str) and any(file for form in _WEIGHTS for file in Path(cached).parent.glob(form))
    if whole or can_be_fetched(name):
        return
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
    raise DataError(
        f"text encoder `{name}`: not on this machine ({constants.HF_HUB_CACHE}), and {why}", hint=by_hand(name)
    )


def can_be_fetched(name: str) -> bool:
    """Whether files that are missing may be asked for: a folder has no others, and a name needs something to answer."""
    from huggingface_hub import constants

    return not Path(name).is_dir() and not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)


def by_hand(name: str) -> str:
    """What to do where there is no network, as a hint."""
    return (
        f"where there is a network, `hf download {name} --local-dir FOLDER`; then bring FOLDER here and write "
        "`text_encoder=FOLDER`"
    )


def _answers(url: str) -> bool:
    """Whether anything answers there, be it with an error."""
    try:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 -- of the library, not of a user
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
