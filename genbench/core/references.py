"""References checked before anything runs: the name, its argument and its settings, read off sources without torch."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from genbench.core.data_kinds import USUAL_KIND, kind_of_data, kinds_taken, says_nothing_of
from genbench.core.data_root import data_root, missing
from genbench.core.declared import (
    Declaration,
    annotations_of,
    check_settings,
    class_value,
    declaration,
    lineage,
    registered_class,
)
from genbench.core.errors import DataError, SettingError, UnknownName, nearest
from genbench.core.presets import value_with
from genbench.core.registry import Registry
from genbench.core.spec import Ref, Scalar

_CONDITIONS = {"class": "num_classes", "text": "vocabulary"}
"""What a model can be told, and the field of `DataSpec` by which data say that they have it."""
_WORDS = {"class": "classes", "text": "captions"}
_SHAPES = "; `shapes` has classes and captions"
_TEXT_ENCODERS = frozenset({"TextEncoder", "SteeringEncoder"})
"""Base classes of extractors that embed captions."""


def check_name(registry: Registry[object], ref: Ref) -> None:
    """Refuse a name that nobody registered.

    Raises:
        UnknownName: the hint names the nearest.
    """
    if registry.path(ref.name) is None and ref.name not in registry.names():  # plug-ins take time to look for
        raise UnknownName(f"unknown {registry.kind} `{ref.name}`", hint=nearest(ref.name, registry.names()))


def check_reference(registry: Registry[object], ref: Ref) -> None:
    """Refuse a dataset, metric or extractor that cannot be built as it is written; of a plug-in only its name is known.

    Raises:
        UnknownName: nobody registered it.
        SettingError: an argument or a setting that it does not take, or a value of the wrong type or out of range.
        DataError: its argument is a path where nothing is.
    """
    check_name(registry, ref)
    path = registry.path(ref.name)
    if path is None:
        return
    _check_argument(registry.kind, path, ref)
    given_settings(path, ref)


def check_judge(features: Registry[object], ref: Ref) -> None:
    """Refuse a judge of captions that is no extractor, or one that is known to embed no captions.

    Raises:
        UnknownName, DataError: as in `check_reference`, but the hint names judges of captions alone.
        SettingError: it embeds no captions, or as in `check_reference`.
    """
    path = features.path(ref.name)
    if path is None or not _embeds_captions(path, ref.name):  # plug-ins take time to look for
        check_judges_name(features.names(), features.files(), ref)
    check_reference(features, ref)


def check_judges_name(names: Sequence[str], files: Mapping[str, Path], ref: Ref) -> None:
    """Refuse a judge of captions by its name alone; of plug-ins nothing else is known.

    Args:
        names: of extractors.
        files: of the built-in ones.
        ref: of the judge.

    Raises:
        UnknownName: no extractor has the name; the hint names judges of captions.
        SettingError: it embeds no captions.
    """
    judges = judges_of_captions(names, files)
    if ref.name in judges:
        return
    if ref.name not in names:
        raise UnknownName(f"unknown judge of captions `{ref.name}`", hint=nearest(ref.name, judges))
    raise SettingError(f"`{ref.name}` embeds no captions", hint=f"take {' or '.join(f'`{name}`' for name in judges)}")


def judges_of_captions(names: Sequence[str], files: Mapping[str, Path]) -> list[str]:
    """Extractors that can judge pictures beside captions, read off their sources; plug-ins, not known from within, may.

    Args:
        names: of extractors.
        files: of the built-in ones.
    """
    return [name for name in names if name not in files or _embeds_captions(files[name], name)]


def _embeds_captions(path: Path, name: str) -> bool:
    return any(ast.unparse(base) in _TEXT_ENCODERS for node in lineage(path, name) for base in node.bases)


def given_settings(path: Path, ref: Ref) -> dict[str, Scalar]:
    """Settings of a dataset, metric or extractor as a reference gives them, `preset` among them.

    Raises:
        SettingError: the class in the file does not have one, or not that value.
    """
    given: dict[str, Scalar] = {**({} if ref.preset is None else {"preset": ref.preset}), **ref.config}
    check_settings(Declaration(annotations_of(path, ref.name), {}, ()), given, owner=ref.name)
    return given


def checked_model(models: Registry[object], path: Path, ref: Ref, *, preset: str) -> Declaration:
    """What the class of a built-in model declares, once its settings and its preset have proved to fit.

    Args:
        models: where other models are found, for hints.
        path: of the model's file.
        ref: name and settings.
        preset: that the settings change.

    Raises:
        SettingError: the class in the file lacks the preset or a setting, or a value does not fit.
    """
    declared = declaration(path, ref.name)
    check_settings(declared, ref.config, owner=ref.name, others=lambda setting: _having(models, setting))
    if preset not in declared.presets:
        raise SettingError(f"`{ref.name}` has no preset `{preset}`", hint=nearest(preset, declared.presets))
    if "guidance" in ref.config:
        given = ref.config.get("condition")
        condition = value_with(path, ref.name, preset, "condition") if given is None else given
        if condition in {"none", "'none'"}:  # as a source or as a reference spells it
            raise no_condition(ref.name, ref.config["guidance"])
    return declared


def check_kinds(models: Registry[object], subjects: Sequence[Ref], datasets: Registry[object], dataset: Ref) -> None:
    """Refuse built-in models that no data of the dataset's kind can train; of others nothing is known.

    Args:
        models: where models are found.
        subjects: to be trained.
        datasets: where datasets are found.
        dataset: to train on.

    Raises:
        SettingError: the hint names data and models that fit.
    """
    file = datasets.path(dataset.name)
    kind = None if file is None else kind_of_data(file, dataset.name)
    if kind is None:
        return
    files = models.files()
    known = {ref.label: _takes(kind, files[ref.name], ref.name) for ref in subjects if ref.name in files}
    wrong = [label for label, fits in known.items() if not fits]
    if not wrong:
        return
    taken = next(kinds_taken(files[ref.name], ref.name) for ref in subjects if ref.label == wrong[0])
    data = " or ".join(f"`{name}`" for name in _embedded(datasets, taken))
    fitting = [label for label, fits in known.items() if fits]
    others = fitting or [name for name, path in files.items() if _takes(kind, path, name)]
    raise SettingError(
        f"{', '.join(f'`{label}`' for label in wrong)} cannot model {kind}s, which dataset `{dataset.label}` holds",
        hint=f"take other data with `--dataset` ({data}), or only models of {kind}s: `-m {shlex.join(others)}`",
    )


def _embedded(datasets: Registry[object], kinds: Sequence[str]) -> list[str]:
    """Built-in datasets of the first of some kinds that need no files."""
    found = [name for name, path in datasets.files().items() if kind_of_data(path, name) == kinds[0]]
    nodes = {name: lineage(datasets.files()[name], name) for name in found}
    return [name for name in found if not any(_reads_files(node) for node in nodes[name])]


def _reads_files(node: ast.ClassDef) -> bool:
    return bool(class_value(node, "folders") or class_value(node, "takes_argument"))


def check_condition(path: Path, ref: Ref, *, preset: str, datasets: Registry[object], dataset: Ref) -> None:
    """Refuse a built-in model that needs, or by `condition` is to be told, what no example of a dataset has.

    Only built-in datasets are known; others are found out when the model is built.

    Args:
        path: of the model's file.
        ref: name and settings of the model, which fit.
        preset: that the settings change.
        datasets: where datasets are found.
        dataset: to train on.

    Raises:
        SettingError: the hint names conditions that the data allow.
    """
    file = datasets.path(dataset.name)
    lacking = [kind for kind, field in _CONDITIONS.items() if file and says_nothing_of(file, dataset.name, field)]
    if not lacking:
        return
    condition = condition_of(path, ref, preset=preset)
    if condition not in lacking:
        return
    lack = _WORDS[condition]
    if condition == _needed(path, ref):
        raise SettingError(
            f"`{ref.name}` needs {lack}: dataset `{dataset.label}` has none",
            hint="take other data with `--dataset`" + _SHAPES,
        )
    others = [kind for kind in ("none", *_CONDITIONS) if kind not in lacking]
    pictures = file is not None and kind_of_data(file, dataset.name) == USUAL_KIND
    raise SettingError(
        f"`{ref.name}` cannot be told `condition={condition}`: dataset `{dataset.label}` has no {lack}",
        hint=f"with these data write `condition={'` or `condition='.join(others)}`{_SHAPES if pictures else ''}",
    )


def condition_of(path: Path, ref: Ref, *, preset: str) -> str:
    """What a built-in model is told, read off its source: `class`, `text`, or something else where it is told nothing.

    Args:
        path: of the model's file.
        ref: name and settings of the model, which fit.
        preset: that the settings change.
    """
    given = _needed(path, ref) or ref.config.get("condition") or value_with(path, ref.name, preset, "condition")
    return str(given).strip("'")  # as a source spells it


def _needed(path: Path, ref: Ref) -> str | None:
    """What examples must have, as the class of the model says; None where that is nothing."""
    found = str(class_value(registered_class(path, ref.name), "needs"))
    return found if found in _CONDITIONS else None


def check_data_are_there(datasets: Registry[object], dataset: Ref) -> None:
    """Refuse a built-in dataset whose files nobody has put where they are read.

    Raises:
        DataError: it says where they were looked for, and how to get them.
    """
    file = datasets.path(dataset.name)
    for node in reversed([] if file is None else lineage(file, dataset.name)):
        folders = class_value(node, "folders")
        if isinstance(folders, tuple):
            looked = [data_root() / folder for folder in folders]
            if looked and not any(path.exists() for path in looked):
                raise missing(dataset.name, looked=looked, how=str(class_value(node, "how")))
            return


def _takes(kind: str, path: Path, name: str) -> bool:
    """Whether a model takes a kind of data; a class that does not say so may."""
    kinds = kinds_taken(path, name)
    return not kinds or kind in kinds


def no_condition(owner: str, guidance: Scalar | None) -> SettingError:
    """The error for guidance of a model that is told nothing to be guided to."""
    condition = f"condition=class,guidance={guidance}"
    return SettingError(
        f"`{owner}` is told nothing with `condition=none`, so `guidance` has nothing to exaggerate",
        hint=f"train it with a condition, `{owner}[{condition}]` (or `condition=text` where it takes captions), "
        "or leave `guidance` out",
    )


def _having(models: Registry[object], setting: str) -> list[str]:
    """Built-in models with a setting of that name, of their own or of their sampler."""
    declared = {name: declaration(path, name) for name, path in models.files().items()}
    return [name for name, one in declared.items() if setting in {**one.config, **one.sampling}]


def _check_argument(kind: str, path: Path, ref: Ref) -> None:
    if not _takes_argument(path, ref.name):
        if ref.argument is not None:
            raise SettingError(f"{kind} `{ref.name}` takes no argument, found `{ref.argument}`")
        return
    if ref.argument is None:
        raise SettingError(f"{kind} `{ref.name}` needs a path", hint=f"write `{ref.name}:PATH`")
    if not Path(ref.argument).expanduser().exists():
        raise DataError(f"{kind} `{ref.name}:{ref.argument}`: nothing is there", hint=f"write `{ref.name}:PATH`")


def _takes_argument(path: Path, name: str) -> bool:
    return any(class_value(node, "takes_argument") is True for node in lineage(path, name))
