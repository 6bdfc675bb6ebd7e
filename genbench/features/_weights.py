"""Where an extractor's weights come from: a setting, the environment, the cache, or a download that is verified.

A network is never replaced by another one: what is missing is an error that says where it was looked for
and how to get it. Files hold tensors only, no pickled classes: `safetensors`, or PyTorch's with `weights_only`.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import logging
import os
import pickle
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genbench.core.errors import DataError
from genbench.core.shipped import cache_folder

VARIABLE = "GENBENCH_WEIGHTS"
"""Environment variable: a file, or a folder that holds files under their published names."""
TIMEOUT_SECONDS = 20.0  # without an answer; a download that moves may take longer
CHUNK = 2**20

_logger = logging.getLogger(__name__)


def find_weights(
    owner: str, *, given: str, filenames: Sequence[str], url: str, sha256: str | None = None, setting: str = "weights"
) -> Path:
    """File of an extractor's weights: as set, else `GENBENCH_WEIGHTS`, else cached, else downloaded.

    Args:
        owner: name of the extractor, for messages.
        given: file or folder from the extractor's setting; empty for none.
        filenames: names that the file may have in a folder, best first; a download gets the first.
        url: where the file is published.
        sha256: digest of the published file, or the first digits of it; None where nobody says. What a user
            names is not compared with it: other weights are allowed, and their digest is in the protocol.
        setting: name of the setting that `given` comes from.

    Raises:
        DataError: it is not there, cannot be downloaded, or is damaged; the hint says how to get it.
    """
    cache = cache_folder() / "weights"
    hint = _hint(filenames[0], url, cache, setting)
    looked = []
    for source, place in ((f"setting `{setting}`", given), (f"variable {VARIABLE}", os.environ.get(VARIABLE, ""))):
        found = _named(owner, source, place, filenames, hint=hint)
        if found is not None:
            return found
        looked.append(f"{source} ({place or 'unset'})")
    found = _inside(cache, filenames)
    if found is None:
        return _download(owner, url, cache / filenames[0], sha256, looked=[*looked, str(cache)], hint=hint)
    if sha256 is not None and not digest(found).startswith(sha256):
        raise DataError(
            f"{found}: SHA-256 is {digest(found)[:16]}, published is {sha256[:16]}", hint="delete it, and run again"
        )
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits; read once per process for as long as size and time stay the same."""
    state = path.stat()
    return _digest(str(path.resolve()), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _digest(path: str, _mtime_ns: int, _size: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_state(owner: str, path: Path) -> dict[str, Tensor]:
    """Named tensors of a file, on the CPU; a dict under `state_dict` is looked into.

    Raises:
        DataError: the file is damaged, or holds anything but tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read as weights of `{owner}`: {reason}",
            hint="save tensors only: `torch.save(network.state_dict(), FILE)`, or a safetensors file",
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise DataError(f"{path}: holds {type(loaded).__name__}, expected the named tensors of `{owner}`")
    return {str(name): value for name, value in loaded.items()}


def fill(network: nn.Module, state: dict[str, Tensor], *, owner: str, path: Path) -> None:
    """Put tensors into a network built on the `meta` device, as float32: its memory is never filled twice.

    Raises:
        DataError: names or shapes are not the network's.
    """
    try:
        network.load_state_dict({name: _float32(value) for name, value in state.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{path}: not the weights of `{owner}`: {reason}",
            hint=f"name a folder in {VARIABLE}, so that each extractor finds its own file there",
        ) from error


def _float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _named(owner: str, source: str, place: str, filenames: Sequence[str], *, hint: str) -> Path | None:
    """The file that a user points at, None if the place is unset or a folder without it."""
    if not place:
        return None
    path = Path(place).expanduser()
    if path.is_dir():
        return _inside(path, filenames)
    if not path.is_file():
        raise DataError(f"{path}: {source} names no file or folder, expected weights of `{owner}`", hint=hint)
    return path


def _inside(folder: Path, filenames: Sequence[str]) -> Path | None:
    return next((folder / name for name in filenames if (folder / name).is_file()), None)


def _download(owner: str, url: str, target: Path, sha256: str | None, *, looked: Sequence[str], hint: str) -> Path:
    """Fetch `url` to `target`: under a temporary name until it is whole and its digest is the published one."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    _logger.info("%s: downloading %s to %s", owner, url, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        found = _fetch(url, partial)
        if sha256 is not None and not found.startswith(sha256):
            raise DataError(f"{url}: SHA-256 is {found[:16]}, published is {sha256[:16]}", hint=hint)
        partial.replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(
            f"{owner}: weights `{target.name}` are missing and cannot be downloaded: {_reason(error)}; "
            f"looked in {', '.join(looked)}",
            hint=hint,
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return target


def _fetch(url: str, partial: Path) -> str:
    """Stream `url` into a file and return its digest.

    Raises:
        OSError: no connection, or it ended early.
    """
    running = hashlib.sha256()
    received = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, partial.open("wb") as file:  # noqa: S310 -- the address is a constant of the extractor
        expected = answer.headers.get("Content-Length")
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            running.update(chunk)
            received += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if expected is not None and received != int(expected):
        raise OSError(f"ended after {received} of {expected} bytes")
    return running.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return str(error.reason) if isinstance(error, urllib.error.URLError) else str(error)


def _hint(filename: str, url: str, cache: Path, setting: str) -> str:
    return (
        f"download {url} into {cache} as `{filename}`, or name a file with `--weights FILE` "
        f"(setting `{setting}`), or a file or folder with {VARIABLE}"
    )
