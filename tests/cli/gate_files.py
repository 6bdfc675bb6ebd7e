"""Run folders, baselines and the parser of a command, for the tests of `gate`, `baseline` and comparisons."""

import argparse

from genbench.core.baseline import Baseline, Entry, Selected
from genbench.core.bench import Counters
from genbench.core.record import Environment, Failure, Record, Score
from genbench.core.spec import Cell, Tier, parse_ref
from genbench.regression.baseline_file import write_baseline
from genbench.store import RunFolder, StoredPlan

CPU = Environment(device="Xeon", platform="Linux x86_64", python="3.11.9", torch="2.6.0", packages={}, threads=2)
TIER = Tier(
    dataset=parse_ref("shapes[resolution=8]"),
    preset="smoke",
    samples_seen=4096,
    num_samples=256,
    num_reference=256,
    num_likelihood=64,
)
BROKEN = Failure(phase="train", type="RuntimeError", message="out of ideas")


def call(module, words):
    """Run a command by its own parser; the exit code."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    options = parser.parse_args([str(word) for word in words])
    return options.run(options)


def cell(label="ddpm", *, seed=0, role="model", suite="images_smoke", samples_seen=4096):
    return Cell(
        suite=suite,
        suite_version=2,
        tier="smoke",
        role=role,
        subject=parse_ref(label),
        dataset=TIER.dataset,
        features=parse_ref("shapes_net"),
        metrics=(parse_ref("frechet_distance"),),
        protocol=TIER,
        samples_seen=samples_seen,
        seed=seed,
        device="cpu",
        source_sha256="a" * 64,
        genbench_version="0.1.0",
    )


def score(value, *, stderr=0.5, num_samples=256, name="fd_shapes_net"):
    return Score(name=name, value=value, unit="", better="lower", stderr=stderr, num_samples=num_samples)


def run_folder(path, scores, *, failed=(), controls=(), suite="images_smoke", samples_seen=4096):
    """A run with `scores`: {label: score}, and records of failed labels; `controls` are labels of controls."""
    folder = RunFolder.create(path)
    cells = [
        cell(label, role="control" if label in controls else "model", suite=suite, samples_seen=samples_seen)
        for label in (*scores, *failed)
    ]
    folder.write_plan(
        StoredPlan(genbench_version="0.1.0", suite=suite, tier="smoke", created="2026", cells=tuple(cells))
    )
    for one in cells:
        found = scores.get(one.label)
        folder.write_record(
            Record(
                key=one.key,
                cell=one,
                status="failed" if found is None else "ok",
                scores=() if found is None else (found,),
                environment=CPU,
                error=BROKEN if found is None else None,
                started="2026-01-05T10:00:00Z",
                ended="2026-01-05T10:01:00Z",
            )
        )
    return path


def counted(label="ddpm", *, flops=1000, environment=CPU, error=None):
    found = Counters(flops=flops, operators=10, bytes_allocated=4, parameters=2)
    return Entry(
        gate="counters",
        cell=cell(label),
        counters={} if error else {"train": found},
        environment=environment,
        error=error,
    )


def baseline(path, *entries, noise=(), selected=None):
    write_baseline(
        path,
        Baseline(genbench_version="0.1.0", created="2026", entries=entries, noise=noise, selected=selected),
    )
    return path


SELECTED = Selected(suite="images_smoke", tier="smoke", models=("ddpm",))
