"""Cells for tests of the evidence, which read off them little more than a count and a seed."""

from genbench.core.spec import Cell, Ref, Tier


def cell_of(dataset, num_likelihood=100, *, seed=0):
    """A cell on a data set; its subject is never built."""
    ref = Ref(name=type(dataset).__name__.lower())
    protocol = Tier(
        dataset=ref, preset="smoke", samples_seen=1, num_samples=1, num_reference=1, num_likelihood=num_likelihood
    )
    return Cell(
        suite="tiny",
        suite_version=1,
        tier="smoke",
        role="model",
        subject=Ref(name="lookup"),
        dataset=ref,
        features=Ref(name="shapes_net"),
        metrics=(),
        protocol=protocol,
        samples_seen=1,
        seed=seed,
        device="cpu",
        source_sha256="0",
        genbench_version="1",
    )
