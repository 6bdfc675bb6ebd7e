"""What is read off the source of a dataset is what its class says."""

import pytest

from genbench.core.data_kinds import kind_of_data, says_nothing_of
from genbench.core.dataset import DATASETS

BUILT_IN = [name for name in DATASETS.files() if not DATASETS.get(name).takes_argument]


@pytest.mark.parametrize("name", BUILT_IN)
def test_kind_classes_and_captions_are_read_as_the_spec_has_them(name):
    path, spec = DATASETS.files()[name], DATASETS.get(name)().spec
    assert kind_of_data(path, name) == spec.kind
    assert says_nothing_of(path, name, "num_classes") == (spec.num_classes == 0)
    assert says_nothing_of(path, name, "vocabulary") == (not spec.vocabulary)


@pytest.mark.parametrize(("name", "captions"), [("folder", False), ("npz", False), ("zip", True), ("tar", True)])
def test_of_a_users_data_it_is_told_whether_they_can_have_captions(name, captions):
    path = DATASETS.files()[name]
    assert says_nothing_of(path, name, "vocabulary") == (not captions)
    assert not says_nothing_of(path, name, "num_classes")
