"""Units of speed follow the kind of the data."""

import pytest

from genbench.core.bench import unit_of
from genbench.core.units import example_of, kind_on, rate_unit


@pytest.mark.parametrize(
    ("dataset", "unit"),
    [
        ("shapes[resolution=16]", "img/s"),
        ("folder:~/my pictures[resolution=32]", "img/s"),
        ("toy2d[law=spirals]", "points/s"),
        ("tabular", "points/s"),
        ("tones[length=512]", "sounds/s"),
        ("speech_digits", "sounds/s"),
        ("captioned_shapes", "examples/s"),
        ("of_a_plug_in[side=3]", "examples/s"),
    ],
)
def test_a_rate_counts_what_the_data_hold(dataset, unit):
    assert rate_unit(kind_on(dataset)) == unit
    assert unit_of("train_images_per_second", dataset) == unit
    assert unit_of("sample_images_per_second", dataset) == unit
    assert unit_of("latency_seconds", dataset) == "s"


def test_one_example_has_a_name():
    assert [example_of(kind) for kind in ("image", "vector", "waveform", "text", None)] == [
        "img",
        "point",
        "sound",
        "example",
        "example",
    ]
