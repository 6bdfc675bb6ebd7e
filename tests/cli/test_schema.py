"""`genbench schema`: every format, and that what genbench writes is of it."""

from __future__ import annotations

import json

import pytest
from gate_files import CPU, baseline, cell, counted, run_folder, score

from genbench.cli.main import main
from genbench.cli.schema import _KINDS
from genbench.core.bench import Bench, BenchFile, Round
from genbench.core.verdict import GateReport, Verdict

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}


def _schema(kind, capsys):
    assert main(["schema", kind]) == 0
    return json.loads(capsys.readouterr().out)


def _faults(value, schema, definitions, where="$"):
    """Where a value is not of a schema, for the keywords that our schemas use."""
    if "$ref" in schema:
        return _faults(value, definitions[schema["$ref"].rpartition("/")[2]], definitions, where)
    if "anyOf" in schema:
        return [] if any(not _faults(value, one, definitions) for one in schema["anyOf"]) else [f"{where}: no choice"]
    if "const" in schema or "enum" in schema:
        return [] if value in schema.get("enum", [schema.get("const")]) else [f"{where}: {value}"]
    if schema.get("type") == "null":
        return [] if value is None else [f"{where}: not null"]
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return [f"{where}: {value!r} is no {schema['type']}"]
    found = []
    if isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [f"{where}.{name}: missing" for name in schema.get("required", ()) if name not in value]
        for name, part in value.items():
            inner = known.get(name, rest)
            found += [f"{where}.{name}: unknown"] if inner is False else []
            found += _faults(part, inner, definitions, f"{where}.{name}") if isinstance(inner, dict) else []
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        found += [fault for part in value for fault in _faults(part, schema["items"], definitions, f"{where}[]")]
    return found


def _bench():
    done = Round(label="ddpm", phase="latency", index=0, values={"latency_seconds": (0.5, 0.6)})
    return BenchFile(
        genbench_version="0.1.0", created="2026", environment=CPU, results=(Bench(cell=cell()),), rounds=(done,)
    )


def _gate():
    verdict = Verdict(
        gate="speed", row="ddpm", dataset="shapes", measure="latency_seconds", outcome="unchanged", ci95=(-0.1, 0.1)
    )
    return GateReport(genbench_version="0.1.0", created="2026", title="a against b", exit_code=0, verdicts=(verdict,))


@pytest.fixture
def files(tmp_path):
    """A file of each format that a command writes."""
    run = run_folder(tmp_path / "run", {"ddpm": score(60.0)})
    return {
        "plan": (run / "plan.json").read_text(),
        "record": next(run.glob("cells/*/record.json")).read_text(),
        "bench": _bench().model_dump_json(),
        "round": _bench().rounds[0].model_dump_json(),
        "baseline": baseline(tmp_path / "baseline.json", counted()).read_text(),
        "gate": _gate().model_dump_json(),
    }


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_has_a_schema(kind, capsys):
    found = _schema(kind, capsys)
    assert found["type"] == "object"
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("kind", ["plan", "record", "bench", "round", "baseline", "gate"])
def test_what_is_written_is_of_its_schema_and_a_changed_file_is_not(kind, capsys, files):
    schema, value = _schema(kind, capsys), json.loads(files[kind])
    definitions = schema.get("$defs", {})
    assert _faults(value, schema, definitions) == []
    assert _faults({**value, "colour": "red"}, schema, definitions) == ["$.colour: unknown"]
    name = schema["required"][0]
    assert _faults({key: part for key, part in value.items() if key != name}, schema, definitions)
    assert _faults({**value, name: [None]}, schema, definitions)


@pytest.mark.parametrize("kind", ["bench", "baseline", "gate", "suite"])
def test_a_file_names_its_schema(kind, capsys):
    assert _schema(kind, capsys)["properties"]["schema"]["const"] == f"genbench.{kind}/1"
