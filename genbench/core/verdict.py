"""What a gate or a comparison says of two versions, measure by measure: states without torch."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat

from genbench.core.record import Better, Environment, Interval, State

GATE_SCHEMA = "genbench.gate/1"

Gate = Literal["counters", "speed", "quality"]
"""What is held against what. `counters`: work that is counted; `speed`: clocks; `quality`: scores."""
Outcome = Literal[
    "regressed",
    "failed",
    "vanished",
    "not_comparable",
    "inconclusive",
    "improved",
    "fixed",
    "new",
    "still_failing",
    "unchanged",
]
"""Worst first. `failed`: measured in base, failing in head; `vanished`: in base alone; `not_comparable`: other
versions, devices or protocols; `inconclusive`: the noise is larger than the tolerance, or an alarm was not confirmed;
`fixed`: failing in base only; `new`: in head alone; `still_failing`: failing in both."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Verdict(State):
    """One measure of one row, in base and in head."""

    gate: Gate
    row: str
    """Label of the cell; a variant other than `eager` is part of it."""
    dataset: str
    measure: str
    """Name of the quantity; `cell` where it is about the whole row."""
    outcome: Outcome
    unit: str = ""
    better: Better = "lower"
    base: FiniteFloat | None = None
    head: FiniteFloat | None = None
    change: FiniteFloat | None = None
    """Head against base: head / base - 1 where `relative`, head - base where not."""
    ci95: Interval | None = None
    """Of the change; None where nothing is known of its noise. It holds at all looks together."""
    relative: bool = True
    tolerance: FiniteFloat | None = None
    """The largest change for the worse that passes, in the terms of `change`."""
    p: FiniteFloat | None = None
    """Chance of such a change or a larger one if the true one were within the tolerance, adjusted for all measures."""
    num_rounds: int | None = None
    """Pairs of rounds, or of seeds, behind the change."""
    confirmed: bool = False
    """The same was found again in new rounds; the numbers are those of the new rounds."""
    note: str = ""


class GateReport(BaseModel):
    """What `genbench gate --json` and `genbench compare --json` write."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)

    schema_: Literal["genbench.gate/1"] = Field(default="genbench.gate/1", alias="schema")
    genbench_version: str
    created: str
    title: str
    """What was held against what."""
    exit_code: int
    strict: bool = False
    """Whether what is inconclusive fails."""
    verdicts: Annotated[tuple[Verdict, ...], BeforeValidator(_as_tuple)]
    notices: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    environment: Environment | None = None
    """Where head was measured."""
