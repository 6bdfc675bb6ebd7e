"""What a class says of the data that it takes is what it takes, and plans read the same off its source."""

import functools

import pytest

from genbench.core.data_kinds import kind_of_data, kinds_taken
from genbench.core.dataset import DATASETS, DataSpec, build_dataset
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, build_model
from genbench.core.spec import Ref

WORDS = ("", "a", "red", "square")
SPECS = {
    "image": DataSpec(shape=(3, 8, 8), num_classes=4, vocabulary=WORDS),
    "vector": DataSpec(kind="vector", shape=(4,), levels=None, num_classes=4, vocabulary=WORDS),
    "text": build_dataset(Ref(name="captioned_shapes")).spec,
    "waveform": DataSpec(kind="waveform", shape=(1, 64), sample_rate=8000, num_classes=4, vocabulary=WORDS),
}


@pytest.mark.parametrize("name", MODELS.files())
def test_a_model_can_be_built_for_the_kinds_of_data_that_it_says_and_for_no_other(name):
    kind = MODELS.get(name)
    assert kinds_taken(MODELS.files()[name], name) == kind.takes
    for data, spec in SPECS.items():
        preset = "vector" if data == "vector" and "vector" in kind.presets else "smoke"
        build = functools.partial(build_model, kind, spec, preset=preset, settings={}, owner=name)
        if data in kind.takes:
            build()
        else:
            with pytest.raises((SettingError, ValueError)):
                build()


@pytest.mark.parametrize("name", DATASETS.files())
def test_the_kind_that_plans_read_off_a_dataset_is_that_of_its_examples(name):
    found = kind_of_data(DATASETS.files()[name], name)
    if DATASETS.get(name).takes_argument:  # files of pictures, each of them
        assert found == "image"
    else:
        assert found == build_dataset(Ref(name=name)).spec.kind


@pytest.mark.parametrize("name", DATASETS.files())
def test_a_dataset_that_needs_files_says_in_plain_text_how_to_get_them(name):
    kind = DATASETS.get(name)
    assert bool(kind.folders) == bool(kind.how)
    assert all(not folder.startswith("/") for folder in kind.folders)
