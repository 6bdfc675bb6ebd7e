"""Accuracy of each factor over the texts that name it, by hand."""

import pytest
import torch
from six_texts import six_texts

from genbench.core.metric import build_metric
from genbench.core.spec import Ref


def test_a_factor_counts_where_the_true_text_names_it():
    found = {s.name: (s.value, s.num_samples) for s in build_metric(Ref(name="text_accuracy")).compute(six_texts())}
    assert found == {
        "text_accuracy_shape_1shot": (0.5, 4),  # right, wrong, right, not said
        "text_accuracy_colour_1shot": (1.0, 3),
        "text_accuracy_shape_0shot": (0.5, 4),
        "text_accuracy_colour_0shot": (pytest.approx(1 / 3), 3),
    }


def test_texts_that_name_nothing_give_a_reason():
    with pytest.raises(ValueError, match="names a factor"):
        build_metric(Ref(name="text_accuracy")).compute(six_texts(named=torch.full((6, 2), -1)))
