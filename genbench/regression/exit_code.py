"""From verdicts to an exit code.

    1   something regressed, or a row or a measure of base has vanished
    3   a row fails that base could measure
    5   rows cannot be compared: other versions, devices or protocols
    6   nothing was compared
    4   some verdict is inconclusive, and `strict` was asked for
    0   none of these

The first that applies, in this order: what is proven goes before what could not be found out. A row that failed in base
as well changes nothing, and neither does one that is new.
"""

from __future__ import annotations

from collections.abc import Sequence

from genbench.core.verdict import Verdict

DONE, REGRESSED, FAILED, INCONCLUSIVE, NOT_COMPARABLE, NOTHING_MEASURED = 0, 1, 3, 4, 5, 6
_COMPARED = {"regressed", "improved", "unchanged", "inconclusive"}


def exit_code(verdicts: Sequence[Verdict], *, strict: bool = False) -> int:
    """The exit code of a gate or a comparison.

    Args:
        verdicts: of all gates.
        strict: let what is inconclusive fail.
    """
    found = {verdict.outcome for verdict in verdicts}
    if found & {"regressed", "vanished"}:
        return REGRESSED
    if "failed" in found:
        return FAILED
    if "not_comparable" in found:
        return NOT_COMPARABLE
    if not found & _COMPARED:
        return NOTHING_MEASURED
    return INCONCLUSIVE if strict and "inconclusive" in found else DONE
