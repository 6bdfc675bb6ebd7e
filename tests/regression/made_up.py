"""Rounds, entries and cells as a measurement would leave them, for the tests of gates."""

from genbench.core.baseline import Entry
from genbench.core.bench import Counters, Round
from genbench.core.record import Environment, Failure, Score
from genbench.core.spec import Cell, Tier, parse_ref

CPU = Environment(device="Xeon 8480", platform="Linux x86_64", python="3.11.9", torch="2.6.0", packages={}, threads=2)
TIER = Tier(
    dataset=parse_ref("shapes[resolution=8]"),
    preset="smoke",
    samples_seen=4096,
    num_samples=256,
    num_reference=256,
    num_likelihood=64,
)
BROKEN = Failure(phase="train", type="RuntimeError", message="out of ideas")
NOT_FOR_IT = Failure(phase="build", type="NotApplicable", message="a sampler does not train")


def cell(label="ddpm", *, seed=0, **changed):
    given = {
        "suite": "images_smoke",
        "suite_version": 2,
        "tier": "smoke",
        "role": "model",
        "subject": parse_ref(label),
        "dataset": TIER.dataset,
        "features": parse_ref("shapes_net"),
        "metrics": (parse_ref("frechet_distance"),),
        "protocol": TIER,
        "samples_seen": TIER.samples_seen,
        "seed": seed,
        "device": "cpu",
        "source_sha256": "a" * 64,
        "genbench_version": "0.1.0",
    }
    return Cell(**{**given, **changed})


def counters(**changed):
    given = {
        "flops": 1_000_000,
        "operators": 500,
        "bytes_allocated": 4096,
        "parameters": 1234,
        "network_evaluations": 25,
    }
    return Counters(**{**given, **changed})


def counted(label="ddpm", *, environment=CPU, error=None, cell_changes=None, **changed):
    found = {} if error is not None else {"train": counters(network_evaluations=None), "sample": counters(**changed)}
    return Entry(
        gate="counters",
        cell=cell(label, **(cell_changes or {})),
        counters=found,
        environment=None if error is not None else environment,
        error=error,
    )


def score(value, *, name="fd_shapes_net", stderr=0.5, better="lower", **changed):
    given = {"unit": "", "num_samples": 256, "num_reference": 256, "protocol": {"extractor": "shapes_net"}}
    return Score(**{"name": name, "value": value, "better": better, "stderr": stderr, **given, **changed})


def scored(*scores, label="ddpm", seed=0, error=None, **changed):
    return Entry(gate="quality", cell=cell(label, seed=seed, **changed), scores=scores, environment=CPU, error=error)


def round_(value, *, phase="train", quantity="train_images_per_second", index=0, flags=(), error=None, label="ddpm"):
    """A round whose readings all are one value."""
    values = {} if error is not None else {quantity: (value, value, value)}
    return Round(label=label, phase=phase, index=index, values=values, flags=flags, error=error)


def outcomes(verdicts):
    """Measure -> outcome."""
    return {verdict.measure: verdict.outcome for verdict in verdicts}
