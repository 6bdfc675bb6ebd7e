"""The pytest plugin: gates of counted work and of speed inside the tests of any project.

    @pytest.mark.genbench(counters=True)
    def test_a_training_step_does_no_more_work_than_before(genbench_gate):
        genbench_gate.counters("training step", step)

    @pytest.mark.genbench(speed=True, tolerance=0.05)
    def test_the_fused_kernel_is_not_slower(genbench_gate):
        genbench_gate.speed("attention", base=plain, head=fused)

Counts are held against a JSON file beside the test, which the first run makes and `--genbench-update` renews; commit
it. Speeds are held against each other within one run. What is found against the code fails the test with a line for
each difference; what is no failure and yet should be seen stands in a section at the end, and all of it in JUnit files.

pytest loads this file in every project where genbench is installed, so it imports nothing heavy before a test measures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import pytest

from genbench.core.errors import GenbenchError, nearest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from torch import nn

    from genbench.core.bench import Counters
    from genbench.core.verdict import Verdict
    from genbench.regression.rule import Rule
    from genbench.timing.clock import Clock

MARKER = "genbench"
SUFFIX = ".genbench.json"
_MAX_WARMUP_SECONDS = 3.0  # both sides share what a short warm-up leaves, and a test should not take minutes
_USAGE = (
    'genbench(counters=False, speed=False, baseline="FILE", tolerance=SHARE): hold counted work against a baseline '
    "(default: a file beside the test), or the speed of two callables against each other, with `genbench_gate`"
)
_ACCEPT = "if that is meant, `pytest --genbench-update` makes it the baseline"
_SEED = "seed what the call draws, or keep it from depending on what ran before"
_NO_SPEED = "reads clocks, and `--genbench-counters-only` was given"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the plugin's options."""
    group = parser.getgroup("genbench", "gates of counted work and of speed")
    group.addoption("--genbench-update", action="store_true", help="what is counted now becomes the baseline")
    group.addoption("--genbench-counters-only", action="store_true", help="skip what reads clocks")
    group.addoption(
        "--genbench-strict",
        action="store_true",
        help="fail where a verdict is inconclusive or there is no baseline yet",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _USAGE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What a marker says."""

    counters: bool = False
    """The test must count something."""
    speed: bool = False
    """The test must time something."""
    baseline: str | None = None
    """File of the counts, relative to the test's folder; None is named for the test's file."""
    tolerance: float | None = None
    """Share by which work or time may grow; None takes 0 for counts, and for speed the share of `genbench gate`."""


_GATE = pytest.StashKey["Gate"]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Read the marker."""
    marker = item.get_closest_marker(MARKER)
    if marker is None:
        return
    asked = _asked(marker)
    if asked.speed and not asked.counters and item.config.getoption("genbench_counters_only"):
        pytest.skip(_NO_SPEED)
    item.stash[_GATE] = Gate(item, asked)


def _asked(marker: pytest.Mark) -> Asked:
    known = [field.name for field in dataclasses.fields(Asked)]
    unknown = [name for name in marker.kwargs if name not in known]
    if unknown:
        _fail(f"`@pytest.mark.genbench` has no option `{unknown[0]}`", hint=nearest(unknown[0], known))
    if marker.args:
        _fail("`@pytest.mark.genbench` takes named options only", hint=_USAGE)
    return Asked(**marker.kwargs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test, and ask a marked one afterwards whether it has measured what it promised."""
    result = yield
    gate = item.stash.get(_GATE, None)
    if gate is not None:
        gate.finish()
    return result


@pytest.fixture
def genbench_gate(request: pytest.FixtureRequest) -> Gate:
    """What measures in a test under `@pytest.mark.genbench`."""
    gate: Gate | None = request.node.stash.get(_GATE, None)
    if gate is None:
        _fail(f"`{request.node.name}` uses `genbench_gate` without `@pytest.mark.genbench`")
    return gate


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print what did not fail and yet should be seen."""
    reports = [report for group in terminalreporter.stats.values() for report in group]
    told = [
        text
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call" and not report.failed
        for name, text in report.user_properties
        if name.startswith(f"{MARKER}.") and name != f"{MARKER}.unchanged"
    ]
    if told:
        terminalreporter.section("genbench gates")
        for text in told:
            terminalreporter.line(str(text))


class Gate:
    """Measures in one test, and holds what it finds against what should be."""

    def __init__(self, item: pytest.Item, asked: Asked) -> None:
        self._item, self._asked = item, asked
        self._baseline = item.path.parent / (asked.baseline or f"{item.path.stem}{SUFFIX}")
        self._test = f"{item.path.name}::{item.nodeid.partition('::')[2]}"
        self._counted: set[str] = set()
        self._timed: set[str] = set()

    def counters(
        self, name: str, call: Callable[[], object], *, module: nn.Module | None = None, tolerance: float | None = None
    ) -> Counters:
        """Hold what a call does against the baseline: FLOPs, operator calls, bytes allocated, parameters.

        Args:
            name: of the measurement, one of its kind in the test.
            call: runs twice and is counted the second time, so that what only a first call makes is left out.
            module: whose parameters are counted; None counts none.
            tolerance: share by which a count may grow; None takes the marker's, else 0.
        """
        from genbench.timing.counted_call import counted_call

        parameters = 0 if module is None else sum(parameter.numel() for parameter in module.parameters())
        found, versions = counted_call(call, parameters=parameters)
        self._hold({name: found}, versions, tolerance, lambda: {name: counted_call(call, parameters=parameters)[0]})
        return found

    def model_counters(
        self, label: str, *, suite: str = "images_smoke", tier: str = "smoke", tolerance: float | None = None
    ) -> dict[str, Counters]:
        """Hold a round of training and one sample of a model against the baseline, on the CPU.

        Args:
            label: as after `genbench run --model`: a name with settings, `file.py` or `module:Class`.
            suite: gives data and preset.
            tier: of the suite.
            tolerance: share by which a count may grow; None takes the marker's, else 0.
        """
        from genbench.harness.counted_model import counted_model
        from genbench.timing.counted_call import versions

        with _readable():
            found = counted_model(label, suite=suite, tier=tier)
            self._hold(found, versions("cpu"), tolerance, lambda: counted_model(label, suite=suite, tier=tier))
        return found

    def speed(
        self,
        name: str,
        base: Callable[[], object],
        head: Callable[[], object],
        *,
        tolerance: float | None = None,
        max_rounds: int = 15,
        device: str | None = None,
    ) -> Verdict:
        """Fail if `head` is slower than `base` beyond the tolerance and beyond the noise.

        Blocks of calls of the two take turns in this process. An alarm counts only if it is found again.

        Args:
            name: of the measurement, one of its kind in the test.
            base: what `head` is held against.
            head: does the same work another way.
            tolerance: share by which time may grow; None takes the marker's, else that of `genbench gate`.
            max_rounds: pairs of blocks after which an open question stays open.
            device: on which both work; None is the accelerator where there is one, else the CPU.
        """
        if self._option("counters_only"):
            pytest.skip(_NO_SPEED)
        if "PYTEST_XDIST_WORKER" in os.environ:
            pytest.skip("reads clocks, which other tests would disturb: run it without `-n`")
        self._claim([name], self._timed)
        with _readable():
            rule = _rule(self._asked.tolerance if tolerance is None else tolerance, max_rounds)
            verdict = _raced(name, base, head, _clock(device), rule)
        self._judge([verdict], title="head is held against base")
        return verdict

    def finish(self) -> None:
        """Fail a test that has measured less than it promised, or than before: it would pass for ever."""
        if not self._counted and (self._asked.counters or not self._timed):
            _fail("genbench: nothing was counted" if self._asked.counters else "genbench: nothing was measured")
        if self._asked.speed and not self._timed:
            _fail("genbench: nothing was timed")
        from genbench.regression.counted_file import read_counts, save_counts

        with _readable():
            gone = sorted(set(read_counts(self._baseline, self._test)) - self._counted)
            if gone and self._option("update"):
                save_counts(self._baseline, self._test, {}, forget=gone)
            elif gone:
                _fail(f"genbench: in {self._baseline.name}, and no longer counted: {', '.join(gone)}", hint=_ACCEPT)

    def _hold(
        self,
        found: Mapping[str, Counters],
        versions: str,
        tolerance: float | None,
        again: Callable[[], Mapping[str, Counters]],
    ) -> None:
        """Compare counts with the baseline, or make them the baseline."""
        from genbench.regression.counted_file import compare_counted, read_counts

        self._claim(found, self._counted)
        share = (self._asked.tolerance or 0.0) if tolerance is None else tolerance
        with _readable():
            known = read_counts(self._baseline, self._test)
            verdicts = [
                verdict
                for name, counted in found.items()
                for verdict in compare_counted(name, known.get(name, {}), versions, counted, tolerance=share)
            ]
            if any(verdict.outcome != "unchanged" for verdict in verdicts):
                if again() != found:
                    _fail(f"genbench: two calls in a row count differently: {', '.join(found)}", hint=_SEED)
                self._keep(found, versions, fresh=[name for name in found if name not in known])
        title = f"counts differ from {self._baseline.name} ({versions})"
        self._judge(verdicts, title=title, hint=_ACCEPT, accepted=self._option("update"))

    def _keep(self, found: Mapping[str, Counters], versions: str, *, fresh: Sequence[str]) -> None:
        """Make counts the baseline where that is asked for, or nothing else is there."""
        from genbench.regression.counted_file import save_counts

        kept = list(found) if self._option("update") else [] if self._option("strict") else fresh
        if kept:
            save_counts(self._baseline, self._test, {name: {versions: found[name]} for name in kept})
            where = f"{self._baseline.name} is new or renewed: commit it"
            self._item.user_properties.append((f"{MARKER}.saved", f"saved: {', '.join(kept)}: {where}"))

    def _claim(self, names: Iterable[str], taken: set[str]) -> None:
        twice = taken.intersection(names)
        if twice:
            _fail(f"genbench: two measurements of one test are called `{min(twice)}`")
        taken.update(names)

    def _judge(
        self, verdicts: Sequence[Verdict], *, title: str, hint: str | None = None, accepted: bool = False
    ) -> None:
        """Fail for what is bad, and leave the rest to the report."""
        self._item.user_properties += [(f"{MARKER}.{one.outcome}", _line(one)) for one in verdicts]
        bad = {"regressed", "not_comparable"} | ({"inconclusive", "new"} if self._option("strict") else set())
        lines = [_line(verdict) for verdict in verdicts if verdict.outcome in bad]
        if lines and not accepted:
            _fail("\n".join([f"genbench: {title}", *lines]), hint=hint)

    def _option(self, name: str) -> bool:
        return bool(self._item.config.getoption(f"genbench_{name}"))


def _raced(name: str, base: Callable[[], object], head: Callable[[], object], clock: Clock, rule: Rule) -> Verdict:
    """The verdict on `head` against `base`; an alarm is looked at again from the beginning."""
    from genbench.core.bench import EFFORTS
    from genbench.regression.speed import confirmed
    from genbench.timing.alternating import alternating_blocks

    effort = EFFORTS["quick"].model_copy(update={"max_warmup_seconds": _MAX_WARMUP_SECONDS})

    def verdict() -> Verdict:
        return _decided(name, alternating_blocks(base, head, clock, effort=effort), rule)

    first = verdict()
    found = confirmed(first, verdict()) if first.outcome == "regressed" else first
    return found.model_copy(update={"measure": "seconds per call"})


def _decided(name: str, pairs: Iterator[tuple[float, float]], rule: Rule) -> Verdict:
    """Pairs of blocks until the rule decides."""
    from genbench.regression.speed import Series, judge

    seen: list[tuple[float, float]] = []
    for look in rule.looks:
        seen += itertools.islice(pairs, look - len(seen))
        base, head = zip(*seen, strict=True)
        series = Series(name, "", "latency_seconds", base, head)
        verdict = judge([series], rule, {})[series.key]
        if verdict is not None:
            return verdict
    raise AssertionError("the last look decides")


def _rule(tolerance: float | None, max_rounds: int) -> Rule:
    from genbench.regression.rule import Rule

    rule = Rule(max_rounds=max_rounds)
    return rule if tolerance is None else dataclasses.replace(rule, tolerance=tolerance)


def _clock(device: str | None) -> Clock:
    """The clock of a device; None is the accelerator where there is one: waiting for an idle one costs nothing."""
    import torch

    from genbench.timing.clock import DeviceClock

    if device is None and torch.accelerator.is_available():
        return DeviceClock(torch.accelerator.current_accelerator() or torch.device("cpu"))
    return DeviceClock(torch.device(device or "cpu"))


def _line(verdict: Verdict) -> str:
    """One line for a person."""
    told = f"{verdict.outcome.replace('_', ' ')}: {verdict.row}"
    if verdict.base is None or verdict.head is None:
        return f"{told}: {verdict.note}"
    spelt = "{:,.0f}" if verdict.gate == "counters" else "{:.3g}"
    values = f"{spelt.format(verdict.base)} -> {spelt.format(verdict.head)} {verdict.unit}"
    inside = [
        "" if verdict.change is None else f"{100 * verdict.change:+.3g} %",
        "" if verdict.ci95 is None else "95 % interval " + " .. ".join(f"{100 * end:+.3g} %" for end in verdict.ci95),
        "" if verdict.tolerance is None else f"tolerance {100 * verdict.tolerance:.3g} %",
        "" if verdict.num_rounds is None else f"{verdict.num_rounds} rounds{', confirmed' * verdict.confirmed}",
        verdict.note,
    ]
    return f"{told}: {verdict.measure} {values} ({'; '.join(part for part in inside if part)})"


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """An error that a user can mend is its message and no traceback."""
    try:
        yield
    except GenbenchError as error:
        _fail(f"genbench: {error.message}", hint=error.hint)


def _fail(message: str, *, hint: str | None = None) -> NoReturn:
    pytest.fail(message if hint is None else f"{message}\n\nhint: {hint}", pytrace=False)
