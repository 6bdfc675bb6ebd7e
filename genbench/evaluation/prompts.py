"""Captions from files: what each picture was asked to show, as people and text-to-image tools write it down.

    *.txt               one caption a line, in the order of the pictures
    *.json              [caption, ...] in that order, or {file name: caption}
    *.jsonl, *.csv      a row for each caption: a file name and the words

The file stands under `file_name`, `filename`, `file`, `image` or `path`, the words under `prompt`, `caption` or `text`.
Beside a folder's pictures such a table is called `prompts` or `metadata`; or each picture has a `.txt` of its own name.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from genbench.core.errors import DataError

FILE_KEYS = ("file_name", "filename", "file", "image", "path")
WORDS_KEYS = ("prompt", "caption", "text")
TABLES = ("prompts.csv", "prompts.jsonl", "metadata.jsonl", "metadata.csv")
"""Looked for beside pictures in this order."""
_HINT = "one caption a line, JSON {file name: caption}, or a .csv or .jsonl with `file_name` and `prompt`"
_PROMPTS_HINT = "one prompt a line, a JSON list, or a .csv or .jsonl with `prompt`"

Captions = Sequence[str] | Mapping[str, str]
"""In the order of the pictures, or by the names of their files."""
ReferenceCaptions = Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str]]
"""The same with one or several for each picture."""


def read_captions(path: Path) -> Captions:
    """One caption for each picture.

    Raises:
        DataError: the file cannot be read, or gives a picture two captions.
    """
    found = read_reference_captions(path)
    pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
    several = [place for place, words in pairs if not isinstance(words, str)]
    if several:
        raise DataError(f"{path}: more than one caption for `{several[0]}`", hint="each picture was asked for once")
    return found  # type: ignore[return-value]


def read_reference_captions(path: Path) -> ReferenceCaptions:
    """One or several captions for each picture.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    _require_file(path, hint=_HINT)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() in {".jsonl", ".csv"}:
            return _by_file(_rows(text, path.suffix.lower()))
        return _checked(json.loads(text)) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{path}: no captions: {error}", hint=_HINT) from error


def read_prompts(path: Path) -> list[str]:
    """Prompts to draw, in order; names of files in the same forms play no part, and a table need not have them.

    Raises:
        DataError: the file cannot be read, holds none, or an empty one.
    """
    kind = path.suffix.lower()
    _require_file(path, hint=_PROMPTS_HINT)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if kind in {".jsonl", ".csv"}:
            prompts = [_cell(row, WORDS_KEYS, number) for number, row in enumerate(_parsed(text, kind), start=1)]
        elif kind == ".json":
            found = json.loads(text)
            prompts = list(found.values()) if isinstance(found, dict) else found
            if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
                raise ValueError("expected a list of texts, or an object with texts")
        else:
            prompts = text.splitlines()
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{path}: no prompts: {error}", hint=_PROMPTS_HINT) from error
    empty = next((number for number, prompt in enumerate(prompts, start=1) if not prompt.strip()), None)
    if empty is not None or not prompts:
        found_empty = "holds no prompt" if empty is None else f"prompt {empty} is empty"
        raise DataError(f"{path}: {found_empty}", hint=_PROMPTS_HINT)
    return [" ".join(prompt.split()) for prompt in prompts]


def captions_beside(folder: Path, names: Sequence[str]) -> Captions | None:
    """Captions that lie beside the pictures of a folder, by the names of their files; None where there are none.

    Args:
        folder: where the pictures are.
        names: relative paths of the pictures.

    Raises:
        DataError: there are some, and they cannot be read.
    """
    for name in TABLES:
        if (folder / name).is_file():
            return read_captions(folder / name)
    found = {}
    for name in names:
        path = folder / PurePosixPath(name).with_suffix(".txt")
        if path.is_file():
            found[name] = " ".join(_text(path).split())
    return found or None


def _require_file(path: Path, *, hint: str) -> None:
    """Refuse a path where no file is.

    Raises:
        DataError: nothing is there, or a folder.
    """
    if path.is_dir():
        raise DataError(f"{path}: a folder, expected a file", hint=f"name the file in it: {hint}")
    if not path.exists():
        raise DataError(f"{path}: there is no such file", hint=f"check the path, or write the file: {hint}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no caption: {error}", hint=_HINT) from error


def _rows(text: str, kind: str) -> Iterator[tuple[str, str]]:
    """File and words of each row.

    Raises:
        ValueError: a row has no file or no words.
    """
    for number, cells in enumerate(_parsed(text, kind), start=1):
        yield _cell(cells, FILE_KEYS, number), _cell(cells, WORDS_KEYS, number)


def _parsed(text: str, kind: str) -> Iterator[Mapping[object, object]]:
    parsed: Iterator[object] = (
        iter(csv.DictReader(io.StringIO(text), strict=True))
        if kind == ".csv"
        else (json.loads(line) for line in text.splitlines() if line.strip())
    )
    for row in parsed:
        yield row if isinstance(row, dict) else {}


def _cell(row: Mapping[object, object], keys: Sequence[str], number: int) -> str:
    for key in keys:
        value = row.get(key)
        if isinstance(value, str):
            return value
    raise ValueError(f"row {number} has no text under {', '.join(f'`{key}`' for key in keys)}")


def _by_file(rows: Iterator[tuple[str, str]]) -> dict[str, str | Sequence[str]]:
    found: dict[str, list[str]] = {}
    for name, words in rows:
        found.setdefault(name, []).append(words)
    return {name: words[0] if len(words) == 1 else words for name, words in found.items()}


def _checked(found: object) -> ReferenceCaptions:
    """Captions out of JSON.

    Raises:
        ValueError: it holds something else.
    """
    if not isinstance(found, list | dict):
        raise ValueError("expected a list or an object")
    for words in found.values() if isinstance(found, dict) else found:
        several = words if isinstance(words, list) else [words]
        if not several or not all(isinstance(one, str) for one in several):
            raise ValueError(f"`{json.dumps(words)[:60]}` is no caption and no list of them")
    return found
