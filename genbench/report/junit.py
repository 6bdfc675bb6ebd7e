"""Verdicts as JUnit XML: one test case for every measure of every row, which any CI shows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from genbench.core.verdict import GateReport, Verdict
from genbench.report import _changes as words

_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold, not even escaped (Sec. 2.2, production 2)."""
_SKIPPED = ("inconclusive", "still_failing", "new")


def to_junit(report: GateReport) -> str:
    """The report as an XML document: a suite for each gate, a case for each measure of each row.

    A regression and what has vanished are failures, what fails or cannot be compared are errors, and what says nothing
    of head is skipped.
    """
    root = ET.Element("testsuites", {"name": "genbench gate", **_totals(report.verdicts, report), "time": "0"})
    stamp = report.created.partition("+")[0].removesuffix("Z")  # the schema knows no time zone
    for gate in dict.fromkeys(verdict.gate for verdict in report.verdicts):
        cases = [verdict for verdict in report.verdicts if verdict.gate == gate]
        skipped = str(sum(_result(one, report) == "skipped" for one in cases))
        told = {"name": f"genbench {gate}", **_totals(cases, report), "skipped": skipped, "time": "0"}
        suite = ET.SubElement(root, "testsuite", {**told, "timestamp": stamp})
        for verdict in cases:
            _case(suite, verdict, report)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _totals(verdicts: Sequence[Verdict], report: GateReport) -> dict[str, str]:
    results = [_result(verdict, report) for verdict in verdicts]
    return {
        "tests": str(len(results)),
        "failures": str(results.count("failure")),
        "errors": str(results.count("error")),
    }


def _result(verdict: Verdict, report: GateReport) -> str | None:
    """Name of the element that says how the case ended, None where it passed."""
    if words.is_bad(verdict, report):
        return "error" if verdict.outcome in ("failed", "not_comparable") else "failure"
    return "skipped" if verdict.outcome in _SKIPPED else None


def _case(suite: ET.Element, verdict: Verdict, report: GateReport) -> None:
    name = _clean(f"{words.subject(verdict)}: {verdict.measure}")
    case = ET.SubElement(suite, "testcase", classname=f"genbench.{verdict.gate}", name=name, time="0")
    result, said = _result(verdict, report), _clean(words.sentence(verdict))
    if result == "skipped":
        ET.SubElement(case, "skipped", message=said)
    elif result is not None:
        ET.SubElement(case, result, message=said, type=verdict.outcome).text = said
    else:
        ET.SubElement(case, "system-out").text = said


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
