"""The plugin in projects of its own: what passes, what fails, and in which words."""

from __future__ import annotations

import json
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from genbench.harness.counted_model import counted_model
from genbench.regression.speed import Series
from genbench.timing.alternating import alternating_blocks
from genbench.timing.counted_call import counted_call

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.alone  # projects within judge times, and would take the options of a worker for their own

COUNTING = """
    import pytest, torch

    WORK = {work}
    x = torch.ones(8, 8)

    @pytest.mark.genbench(counters=True{options})
    def test_step(genbench_gate):
        def step():
            y = x
            for _ in range(WORK):
                y = y @ x
            return y
        genbench_gate.counters("product", step)
"""
BASELINE = "test_it.genbench.json"


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """An inner session forgets what it has imported, and torch cannot be imported in parts twice: import it here."""
    counted_call(lambda: torch.ones(2, 2) @ torch.ones(2, 2), parameters=0)
    counted_model("vae", suite="images_smoke", tier="smoke")
    assert Series
    assert alternating_blocks


@pytest.fixture
def project(pytester, monkeypatch):
    """A folder with tests; a session there has the plugin and no other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeini("[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error\n")
    return pytester


def _run(project, *words):
    return project.runpytest_inprocess("-p", "genbench.pytest_plugin", *words)


def _counting(project, *, work=3, options=""):
    project.makepyfile(test_it=COUNTING.format(work=work, options=options))


def _stored(project):
    return json.loads((project.path / BASELINE).read_text())["counted"]["test_it.py::test_step"]


def test_the_first_run_makes_a_baseline_and_says_so(project):
    _counting(project)
    result = _run(project)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= genbench gates =*", f"saved: product: {BASELINE} is new or renewed: commit it"])
    (counted,) = _stored(project)["product"].values()
    assert counted["operators"] == 3
    assert counted["flops"] == 3 * 2 * 8**3
    assert counted["bytes_allocated"] == 3 * 4 * 8**2


def test_the_same_work_passes_in_silence_and_leaves_the_file_alone(project):
    _counting(project)
    _run(project)
    before = (project.path / BASELINE).stat().st_mtime_ns
    result = _run(project)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*genbench gates*")
    assert (project.path / BASELINE).stat().st_mtime_ns == before


def test_more_work_fails_with_a_line_for_each_difference_and_no_traceback(project):
    _counting(project)
    _run(project)
    _counting(project, work=4)
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"genbench: counts differ from {BASELINE} (torch *, cpu)",
            "regressed: product: flops 3,072 -> 4,096 FLOPs (+33.3 %; tolerance 0 %)",
            "regressed: product: operators 3 -> 4 calls (+33.3 %; tolerance 0 %)",
            "regressed: product: bytes_allocated 768 -> 1,024 bytes (+33.3 %; tolerance 0 %)",
            "hint: if that is meant, `pytest --genbench-update` makes it the baseline",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*genbench_gate.counters(*")


def test_less_work_passes_and_is_told_at_the_end(project):
    _counting(project)
    _run(project)
    _counting(project, work=2)
    result = _run(project)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["improved: product: operators 3 -> 2 calls (-33.3 %; *check for skipped work)"])


def test_an_update_takes_what_is_counted_as_the_baseline(project):
    _counting(project)
    _run(project)
    _counting(project, work=4)
    result = _run(project, "--genbench-update")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["saved: product: *", "regressed: product: operators 3 -> 4 calls *"])
    _run(project, "--genbench-strict").assert_outcomes(passed=1)


@pytest.mark.parametrize(("work", "outcome"), [(4, "passed"), (5, "failed")])
def test_a_tolerance_is_a_share_by_which_counts_may_grow(project, work, outcome):
    _counting(project, options=", tolerance=0.34")
    _run(project)
    _counting(project, work=work, options=", tolerance=0.34")
    _run(project).assert_outcomes(**{outcome: 1})


def test_a_baseline_may_stand_elsewhere_and_serve_several_files(project):
    (project.path / "counts").mkdir()
    text = COUNTING.format(work=3, options=", baseline='counts/all.json'")
    project.makepyfile(test_it=text, test_other=text.replace("WORK = 3", "WORK = 5"))
    _run(project).assert_outcomes(passed=2)
    _run(project, "--genbench-strict").assert_outcomes(passed=2)
    stored = json.loads((project.path / "counts" / "all.json").read_text())["counted"]
    assert sorted(stored) == ["test_it.py::test_step", "test_other.py::test_step"]


def test_strictly_a_missing_baseline_fails_and_none_is_made(project):
    _counting(project)
    result = _run(project, "--genbench-strict")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["new: product: no baseline yet"])
    assert not (project.path / BASELINE).exists()


def test_counts_of_another_torch_are_not_comparable_and_an_update_keeps_both(project):
    _counting(project)
    _run(project)
    path = project.path / BASELINE
    path.write_text(path.read_text().replace("torch ", "torch 1."))
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["not comparable: product: the baseline was counted with torch 1.*, cpu, this is torch *"]
    )
    _run(project, "--genbench-update").assert_outcomes(passed=1)
    assert len(_stored(project)["product"]) == 2
    _run(project, "--genbench-strict").assert_outcomes(passed=1)


def test_counts_that_change_from_call_to_call_are_no_baseline(project):
    _counting(project)
    text = (
        (project.path / "test_it.py")
        .read_text()
        .replace("range(WORK)", "range(globals().update(WORK=WORK + 1) or WORK)")
    )
    project.makepyfile(test_it=text)
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["genbench: two calls in a row count differently: product"])
    assert not (project.path / BASELINE).exists()


def test_what_only_a_first_call_makes_is_not_counted(project):
    project.makepyfile(
        test_it="""
        import functools, pytest, torch

        @functools.cache
        def table():
            return torch.ones(8, 8) @ torch.ones(8, 8)

        @pytest.mark.genbench(counters=True)
        def test_step(genbench_gate):
            counted = genbench_gate.counters("look-up", lambda: table() + 1)
            assert counted.operators == 1
        """
    )
    _run(project).assert_outcomes(passed=1)


def test_a_measurement_that_has_vanished_fails_until_it_is_let_go(project):
    _counting(project)
    _run(project)
    project.makepyfile(test_it=(project.path / "test_it.py").read_text().replace('"product"', '"renamed"'))
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"genbench: in {BASELINE}, and no longer counted: product"])
    _run(project, "--genbench-update").assert_outcomes(passed=1)
    assert list(_stored(project)) == ["renamed"]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": "other/1", "counted": {}}', '{"schema": "genbench.counted/1"}']
)
def test_a_damaged_baseline_is_named_and_left_alone(project, content):
    _counting(project)
    (project.path / BASELINE).write_text(content)
    result = _run(project, "--genbench-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"genbench: *{BASELINE}: no counts can be read from it: *", "hint: *"])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert (project.path / BASELINE).read_text() == content


def test_parameters_of_a_module_are_counted(project):
    project.makepyfile(
        """
        import pytest, torch

        @pytest.mark.genbench
        def test_step(genbench_gate):
            layer = torch.nn.Linear(4, 3)
            assert genbench_gate.counters("layer", lambda: layer(torch.ones(2, 4)), module=layer).parameters == 15
        """
    )
    _run(project).assert_outcomes(passed=1)


def test_two_measurements_of_one_name_are_refused(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.genbench
        def test_it(genbench_gate):
            genbench_gate.counters("nothing", int)
            genbench_gate.counters("nothing", int)
        """
    )
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["genbench: two measurements of one test are called `nothing`"])


@pytest.mark.parametrize(
    ("mark", "body", "complaint"),
    [
        ("@pytest.mark.genbench", "pass", "genbench: nothing was measured"),
        ("@pytest.mark.genbench(counters=True)", "pass", "genbench: nothing was counted"),
        ("@pytest.mark.genbench(speed=True)", "genbench_gate.counters('a', int)", "genbench: nothing was timed"),
    ],
)
def test_a_gate_that_measures_less_than_it_promises_fails(project, mark, body, complaint):
    project.makepyfile(f"import pytest\n{mark}\ndef test_it(genbench_gate):\n    {body}\n")
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([complaint])


@pytest.mark.parametrize(
    ("mark", "complaint"),
    [
        ("@pytest.mark.genbench(tolerence=0.1)", ["*has no option `tolerence`", "hint: did you mean `tolerance`?*"]),
        ("@pytest.mark.genbench(True)", ["`@pytest.mark.genbench` takes named options only"]),
        ("", ["`test_it` uses `genbench_gate` without `@pytest.mark.genbench`"]),
    ],
)
def test_a_wrong_marker_is_told_in_a_line(project, mark, complaint):
    project.makepyfile(f"import pytest\n{mark}\ndef test_it(genbench_gate):\n    pass\n")
    result = _run(project)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(complaint)


def test_an_error_of_the_measured_call_keeps_its_traceback(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.genbench
        def test_it(genbench_gate):
            genbench_gate.counters("division", lambda: 1 / 0)
        """
    )
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * ZeroDivisionError: division by zero"])


SPEED = """
    import itertools, time, pytest

    now, clock = [0.0], time.perf_counter
    shares = itertools.cycle({shares})

    def takes(seconds):
        now[0] += seconds * next(shares)

    @pytest.mark.genbench(speed=True{options})
    def test_speed(genbench_gate, monkeypatch):
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])
        verdict = genbench_gate.speed("job", lambda: takes({base}), lambda: takes({head}), device="cpu")
        assert verdict.outcome == "{outcome}"
"""
"""Calls that take exactly as long as they say, on a clock that stands still between them."""


def _timing(project, *, head, outcome, base=0.1, shares=(1.0,), options=""):
    project.makepyfile(
        test_it=SPEED.format(base=base, head=head, outcome=outcome, shares=list(shares), options=options)
    )


def test_a_slower_head_fails_with_both_times_and_the_interval(project):
    _timing(project, head=0.11, outcome="regressed")
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "genbench: head is held against base",
            "regressed: job: seconds per call 0.1 -> 0.11 s (+10 %; 95 % interval +10 % .. +10 %; tolerance 2 %; "
            "5 rounds, confirmed)",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_slow_down_within_the_tolerance_of_the_marker_passes_in_silence(project):
    _timing(project, head=0.11, outcome="unchanged", options=", tolerance=0.15")
    result = _run(project)
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*genbench gates*")


def test_a_faster_head_passes_and_is_told(project):
    _timing(project, head=0.05, outcome="improved")
    result = _run(project)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["improved: job: * check for skipped work)"])


@pytest.mark.slow
def test_on_a_real_clock_twice_the_sleep_is_found(project):
    project.makepyfile(
        """
        import time, pytest

        @pytest.mark.genbench(speed=True, tolerance=0.1)
        def test_speed(genbench_gate):
            genbench_gate.speed("sleep", lambda: time.sleep(0.05), lambda: time.sleep(0.1))
        """
    )
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["regressed: sleep: * confirmed)"])


ERRATIC = (1.0, 0.7, 1.6, 0.9, 1.3, 0.8, 1.1)
"""A cycle that no number of calls in a block divides."""


def test_an_open_question_passes_with_a_line_in_the_summary_and_in_the_junit_file(project):
    _timing(project, head=0.1, outcome="inconclusive", shares=ERRATIC)
    result = _run(project, "--junit-xml=out.xml")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*= genbench gates =*", "inconclusive: job: seconds per call *; 15 rounds)"])
    (told,) = ElementTree.parse(project.path / "out.xml").getroot().iter("property")
    assert told.get("name") == "genbench.inconclusive"
    assert told.get("value").startswith("inconclusive: job: seconds per call")


def test_strictly_an_open_question_fails(project):
    _timing(project, head=0.1, outcome="inconclusive", shares=ERRATIC)
    result = _run(project, "--genbench-strict")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["inconclusive: job: *"])


def test_clocks_are_left_alone_on_request_and_beside_other_tests(project, monkeypatch):
    _timing(project, head=0.2, outcome="never")
    _run(project, "--genbench-counters-only").assert_outcomes(skipped=1)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    _run(project).assert_outcomes(skipped=1)


@pytest.mark.slow
def test_a_registered_model_is_counted_by_its_label_and_leaves_the_random_stream_alone(project):
    project.makepyfile(
        test_it="""
        import pytest, torch

        @pytest.mark.genbench(counters=True)
        def test_model(genbench_gate):
            before = torch.get_rng_state()
            counted = genbench_gate.model_counters("vae")
            assert torch.equal(torch.get_rng_state(), before)
            assert sorted(counted) == ["vae sample", "vae train"]
            assert counted["vae train"].flops > counted["vae sample"].flops > 0
            assert counted["vae train"].parameters > 0
        """
    )
    _run(project).assert_outcomes(passed=1)
    _run(project, "--genbench-strict").assert_outcomes(passed=1)


def test_an_unknown_model_is_told_with_the_nearest_name(project):
    project.makepyfile(
        """
        import pytest

        @pytest.mark.genbench
        def test_model(genbench_gate):
            genbench_gate.model_counters("vea")
        """
    )
    result = _run(project)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["genbench: unknown model `vea`*", "hint: did you mean*`vae`*"])


def test_marker_and_options_are_declared(project):
    _run(project, "--markers").stdout.fnmatch_lines(["@pytest.mark.genbench(counters=False, speed=False, *"])
    _run(project, "--help").stdout.fnmatch_lines(["*--genbench-update*"])


def test_no_torch_is_imported_before_a_test_measures(project):
    project.makepyfile(
        """
        import sys, pytest

        def test_unmarked():
            assert "torch" not in sys.modules

        @pytest.mark.genbench
        def test_marked(genbench_gate):
            assert "torch" not in sys.modules and "pydantic" not in sys.modules and "numpy" not in sys.modules
            pytest.skip("measures nothing")
        """
    )
    result = project.runpytest_subprocess("-p", "genbench.pytest_plugin")
    result.assert_outcomes(passed=1, skipped=1)


def test_it_is_loaded_without_being_asked_where_genbench_is_installed():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"genbench": "genbench.pytest_plugin"}
