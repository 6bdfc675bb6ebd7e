"""Evidence and points for tests of metrics over nearest neighbours."""

import torch

from genbench.core.metric import Evidence, FeatureEvidence


def evidence_of(samples, reference, held_out=None):
    return Evidence(
        features=FeatureEvidence(
            samples=samples,
            reference=reference,
            statistics=None,
            held_out=held_out,
            extractor="some_net",
            protocol={"extractor": "some_net", "sha256": "0" * 16},
        )
    )


def normal(num, size, *, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, size, generator=generator, dtype=torch.float64) * scale + shift


def squares(x, y):
    return (x[:, None].double() - y[None].double()).square().sum(dim=2)
