"""From a suite file to cells: read, check key by key, expand. Imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import importlib.machinery
import importlib.util
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from genbench.core.declared import Declaration, source_digest
from genbench.core.errors import GenbenchError, SettingError, SuiteError, UnknownName, nearest
from genbench.core.references import (
    check_condition,
    check_data_are_there,
    check_judge,
    check_kinds,
    check_name,
    check_reference,
    checked_model,
)
from genbench.core.registry import Registry
from genbench.core.shipped import shipped
from genbench.core.spec import Cell, ModelEntry, Ref, Suite, Tier, parse_ref

MAX_SUITE_BYTES = 256 * 1024
MAX_DEPTH = 12
CONTROLS = ("real", "train_copy", "jpeg", "blur", "mean_image", "noise", "shuffled_captions", "shuffled_texts")

_MODELS: Registry[object] = Registry("model", "models")
_METRICS: Registry[object] = Registry("metric", "metrics")
_DATASETS: Registry[object] = Registry("dataset", "data", group="genbench.datasets")
_FEATURES: Registry[object] = Registry("feature extractor", "features")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What a person asks for on top of a suite; None and empty keep the suite's own."""

    tier: str | None = None
    models: tuple[str, ...] = ()
    dataset: str | None = None
    seeds: tuple[int, ...] | None = None
    text_encoder: str | None = None
    device: Literal["cpu", "cuda"] = "cpu"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A suite expanded to cells, in the order in which they run."""

    suite: Suite
    tier: str
    protocol: Tier
    cells: tuple[Cell, ...]


def suite_files() -> dict[str, Path]:
    """Shipped suites by name, and those that installed distributions point to with a path."""
    found = {path.stem: path for path in sorted(shipped("suites").glob("*.yaml"))}
    for point in entry_points(group="genbench.suites"):
        dist = point.dist.name if point.dist is not None else "unknown"
        name = f"{dist}:{point.name}" if point.name in found else point.name
        with contextlib.suppress(Exception):  # a broken plug-in stops nothing; its suite is not listed
            found[name] = Path(point.load())
    return found


def load_suite(name_or_path: str) -> Suite:
    """Read a shipped suite by name, or any suite by path.

    Raises:
        UnknownName: neither a name nor a file.
        SuiteError: the file is no suite; the message gives the line.
    """
    known = suite_files()
    if name_or_path in known:
        return read_suite(known[name_or_path])
    path = Path(name_or_path)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return read_suite(path)
    raise UnknownName(f"unknown suite `{name_or_path}`", hint=nearest(name_or_path, known))


def read_suite(path: Path) -> Suite:
    """Read and check one suite file.

    Raises:
        SuiteError: unreadable, too large, not plain YAML, or not a suite.
    """
    if not path.exists():
        raise SuiteError(f"{path}: no such suite file", hint=f"shipped suites: {', '.join(suite_files())}")
    if not path.is_file():
        raise SuiteError(f"{path}: a suite is a YAML file, found a folder", hint="name the file in it")
    size = path.stat().st_size
    if size > MAX_SUITE_BYTES:
        raise SuiteError(f"{path}: {size} bytes, a suite has at most {MAX_SUITE_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_aliases(text, path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = _plain(node, path, depth=0)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not YAML: {error}") from error
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise _explained(error, node, path) from error
    except GenbenchError as error:
        raise SuiteError(f"{path}: {error.message}", hint=error.hint) from error
    return suite


def make_plan(suite: Suite, selection: Selection, *, version: str) -> Plan:
    """Expand a suite to cells; every name and setting is checked before anything runs.

    Args:
        suite: the suite.
        selection: what to change or to leave out.
        version: of genbench; part of every key.

    Raises:
        UnknownName, SettingError, SuiteError: with the nearest valid name or setting.
    """
    tier_name = _tier_name(suite, selection)
    protocol = suite.tiers[tier_name]
    changed: dict[str, object] = {}
    if selection.dataset is not None:
        changed["dataset"] = parse_ref(selection.dataset)
    if selection.seeds is not None:
        changed["seeds"] = selection.seeds
    protocol = protocol.model_copy(update=changed)
    check_reference(_DATASETS, protocol.dataset)
    if selection.text_encoder is not None:
        suite = suite.model_copy(update={"text_encoder": parse_ref(selection.text_encoder)})
    check_reference(_FEATURES, suite.features)
    if suite.text_encoder is not None:
        check_judge(_FEATURES, suite.text_encoder)
    for metric in suite.metrics:
        check_reference(_METRICS, metric)
    for control in suite.controls:
        if control not in CONTROLS:
            raise UnknownName(f"unknown control `{control}`", hint=nearest(control, CONTROLS))
    entries = _chosen(suite, selection.models)
    check_kinds(_MODELS, [entry.use for entry in entries if entry.use.argument is None], _DATASETS, protocol.dataset)
    make = _CellMaker(suite, tier_name, protocol, selection.device, version)
    cells = [make.model(entry, seed) for seed in protocol.seeds for entry in entries]
    cells += [make.control(name, seed) for seed in protocol.seeds for name in suite.controls]
    return Plan(suite, tier_name, protocol, _with_shared_weights(_distinct(cells)))


def check_data(plan: Plan) -> None:
    """Refuse a plan whose data are not on this machine.

    Raises:
        DataError: it says where they were looked for, and how to get them.
    """
    check_data_are_there(_DATASETS, plan.protocol.dataset)


def _distinct(cells: Sequence[Cell]) -> list[Cell]:
    return list({cell.key: cell for cell in cells}.values())


def _with_shared_weights(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Let cells that differ only in sampling take the weights of the first of them."""
    first: dict[str, str] = {}
    linked = []
    for cell in cells:
        trains = cell.role == "model" and cell.samples_seen > 0
        owner = first.setdefault(cell.train_key, cell.key) if trains else cell.key
        linked.append(cell if owner == cell.key else cell.model_copy(update={"weights_from": owner}))
    return tuple(linked)


class _CellMaker:
    """Fills in what all cells of a plan share."""

    def __init__(self, suite: Suite, tier: str, protocol: Tier, device: Literal["cpu", "cuda"], version: str) -> None:
        self._suite, self._tier, self._protocol = suite, tier, protocol
        self._device: Literal["cpu", "cuda"] = device
        self._version = version
        self._shared_digest = source_digest()

    def control(self, name: str, seed: int) -> Cell:
        """The cell of a control."""
        return self._cell(Ref(name=name), "control", seed, samples_seen=0, digest=self._shared_digest)

    def model(self, entry: ModelEntry, seed: int) -> Cell:
        """The cell of a model, its settings checked where its source is at hand."""
        seen = entry.samples_seen.get(self._tier, self._protocol.samples_seen)
        path = _MODELS.path(entry.use.name)
        if path is None:
            files = [Path(entry.use.name)] if entry.use.name.endswith(".py") else []
            return self._cell(entry.use, "model", seed, samples_seen=seen, digest=source_digest(files))
        preset = entry.use.preset or self._protocol.preset
        declared = checked_model(_MODELS, path, entry.use, preset=preset)
        check_condition(path, entry.use, preset=preset, datasets=_DATASETS, dataset=self._protocol.dataset)
        subject, sampling = _split(entry.use, declared)
        cell = self._cell(subject, "model", seed, samples_seen=seen, digest=source_digest([path]))
        return cell.model_copy(update={"sampling": sampling})

    def _cell(
        self, subject: Ref, role: Literal["model", "control"], seed: int, *, samples_seen: int, digest: str
    ) -> Cell:
        return Cell(
            suite=self._suite.name,
            suite_version=self._suite.version,
            tier=self._tier,
            role=role,
            subject=subject,
            dataset=self._protocol.dataset,
            features=self._suite.features,
            text_encoder=self._suite.text_encoder,
            metrics=self._suite.metrics,
            protocol=self._protocol.model_copy(update={"seeds": ()}),
            samples_seen=samples_seen,
            seed=seed,
            device=self._device,
            source_sha256=digest,
            genbench_version=self._version,
        )


def _split(ref: Ref, declared: Declaration) -> tuple[Ref, dict[str, bool | int | float | str]]:
    """The model with its own settings, and those of its sampler."""
    sampling = {key: value for key, value in ref.config.items() if key in declared.sampling}
    config = {key: value for key, value in ref.config.items() if key not in declared.sampling}
    return ref.model_copy(update={"config": config}), sampling


def _tier_name(suite: Suite, selection: Selection) -> str:
    if selection.tier is not None:
        if selection.tier not in suite.tiers:
            raise UnknownName(
                f"suite `{suite.name}` has no tier `{selection.tier}`", hint=nearest(selection.tier, suite.tiers)
            )
        return selection.tier
    preferred = "standard" if selection.device == "cuda" else "quick"
    return preferred if preferred in suite.tiers else next(iter(suite.tiers))


def _chosen(suite: Suite, wanted: Sequence[str]) -> list[ModelEntry]:
    """The suite's entries, or the wanted ones with the suite's budget for them."""
    if not wanted:
        for entry in suite.models:
            _known_model(entry.use)
        return list(suite.models)
    chosen: list[ModelEntry] = []
    for text in wanted:
        chosen += _of_paradigm(text[1:]) if text.startswith("@") else _entries(suite, text)
    return chosen


def _entries(suite: Suite, text: str) -> list[ModelEntry]:
    """The suite's row, or its rows of a name where none is bare; what it lacks takes the budget of a like row."""
    ref = parse_model_ref(text)
    _known_model(ref)
    exact = [entry for entry in suite.models if entry.use == ref]
    same = [entry for entry in suite.models if entry.use.name == ref.name]
    if same and not exact and ref == Ref(name=ref.name):
        return same
    return [ModelEntry(use=ref, samples_seen=next((entry.samples_seen for entry in exact + same), {}))]


def _of_paradigm(paradigm: str) -> list[ModelEntry]:
    folders = {name: path.parent.name for name, path in _MODELS.files().items()}
    names = [name for name, folder in folders.items() if fnmatch.fnmatch(folder, paradigm)]
    if not names:
        raise UnknownName(f"unknown paradigm `@{paradigm}`", hint=nearest(paradigm, set(folders.values())))
    return [ModelEntry(use=Ref(name=name)) for name in names]


def parse_model_ref(text: str) -> Ref:
    """A registered name with settings, or a file (`mine.py`, `mine.py:Class`) or `module:Class`."""
    ref = parse_ref(text)
    path = Path(ref.name)
    if path.suffix == ".py":
        if not path.is_file():
            raise UnknownName(f"{path}: no such model file", hint="give the path of a Python file, or a name")
        return ref.model_copy(update={"name": str(path.resolve())})
    return ref


def _known_model(ref: Ref) -> None:
    if ref.name.endswith(".py"):
        return
    if ref.argument is None:
        check_name(_MODELS, ref)
    elif ref.name in _MODELS.names():
        raise SettingError(
            f"model `{ref.name}` takes no argument, found `{ref.argument}`", hint=f"settings: `{ref.name}[key=value]`"
        )
    elif not _importable(ref.name.partition(".")[0]):
        raise UnknownName(f"`{ref.name}:{ref.argument}`: no module `{ref.name}`", hint="write `module:Class`")


def _importable(package: str) -> bool:
    """Whether a package is installed, or lies in the working folder, where cells run too."""
    here = importlib.machinery.PathFinder.find_spec(package, [str(Path.cwd())])
    return here is not None or (package.isidentifier() and importlib.util.find_spec(package) is not None)


def _refuse_aliases(text: str, path: Path) -> None:
    """Aliases can make a small file expand without end."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise SuiteError(f"{path}: alias `*{event.anchor}`: aliases are not allowed in a suite")


def _plain(node: yaml.Node | None, path: Path, *, depth: int) -> object:
    """Plain values of a YAML tree: no tags, no repeated keys, no deep nesting."""
    if node is None:
        raise SuiteError(f"{path}: the file is empty")
    where = f"{path}:{node.start_mark.line + 1}"
    if depth > MAX_DEPTH:
        raise SuiteError(f"{where}: nested deeper than {MAX_DEPTH} levels")
    if not node.tag.startswith("tag:yaml.org,2002:"):
        raise SuiteError(f"{where}: tag `{node.tag}` is not allowed in a suite")
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, depth=depth)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, path, depth=depth + 1) for item in node.value]
    return yaml.SafeLoader("").construct_object(node)


def _mapping(node: yaml.MappingNode, path: Path, *, depth: int) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in node.value:
        name = key.value
        if name in values:
            raise SuiteError(f"{path}:{key.start_mark.line + 1}: key `{name}` appears twice")
        values[name] = _plain(value, path, depth=depth + 1)
    return values


def _explained(error: ValidationError, node: yaml.Node | None, path: Path) -> SuiteError:
    """The first complaint of the validator, with its line and a hint; a key that is unknown goes before one missed."""
    first = min(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    where = [part for part in first["loc"] if isinstance(part, int) or part not in {"function-before", "Ref"}]
    line, found = _locate(node, where)
    dotted = ".".join(str(part) for part in where)
    hint = None
    if first["type"] == "extra_forbidden":
        hint = nearest(str(where[-1]), _allowed(where))
    elif isinstance(first.get("input"), str) and _looks_like_number(first["input"]):
        hint = f"YAML reads `{first['input']}` as text; write a point, as in 1.0e-4"
    elif isinstance(first.get("input"), bool):
        hint = "YAML reads yes, no, on and off as true and false; quote the word if text is meant"
    shown = "" if found is None else f", found `{found}`"
    return SuiteError(f"{path}:{line}: `{dotted}`: {first['msg']}{shown}", hint=hint)


def _locate(node: yaml.Node | None, where: Sequence[int | str]) -> tuple[int, str | None]:
    """Line of the deepest node along a path, and its text if it is a scalar."""
    line = 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            match = next((pair for pair in node.value if pair[0].value == part), None)
            if match is None:
                break
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line, node.value if isinstance(node, yaml.ScalarNode) else None


def _allowed(where: Sequence[int | str]) -> Mapping[str, object]:
    if where[0] == "tiers" and len(where) > 2:
        return Tier.model_fields
    if where[0] == "models":
        return ModelEntry.model_fields
    return {field.alias or name: field for name, field in Suite.model_fields.items()}


def _looks_like_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
