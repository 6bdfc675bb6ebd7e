"""What the plain functions take: arrays, lists and tensors alike, and nothing that is not finite."""

import warnings

import numpy as np
import pytest
import torch

from genbench.metrics._features import finite_features, finite_rows
from genbench.metrics.alpha_precision import alpha_precision, beta_recall
from genbench.metrics.authenticity import authentic_samples, authenticity
from genbench.metrics.class_accuracy import class_accuracy
from genbench.metrics.classifier_two_sample import classifier_two_sample
from genbench.metrics.clip_score import clip_score, ref_clip_score
from genbench.metrics.cmmd import cmmd
from genbench.metrics.copying_test import copying_test
from genbench.metrics.duplicates import duplicates
from genbench.metrics.feature_likelihood_divergence import feature_likelihood_divergence
from genbench.metrics.frechet_distance import frechet_distance
from genbench.metrics.frechet_infinity import frechet_infinity
from genbench.metrics.inception_score import inception_score
from genbench.metrics.kernel_distance import RULES, kernel_distance, kernel_distance_of_subsets
from genbench.metrics.mifid import cosine_distances, mifid
from genbench.metrics.mind import mind
from genbench.metrics.neighbour_ratio import neighbour_ratio
from genbench.metrics.precision_recall import precision_recall
from genbench.metrics.realism import realism, realism_of_samples
from genbench.metrics.sinkhorn_divergence import sinkhorn_divergence
from genbench.metrics.sliced_wasserstein import sliced_wasserstein
from genbench.metrics.spatial_frechet_distance import spatial_frechet_distance
from genbench.metrics.vector_wasserstein import vector_wasserstein
from genbench.metrics.vendi_score import vendi_score

PAIR = ("samples", "reference")
TRIPLE = (*PAIR, "held_out")
POINTS = ("x", "y")
LABELS = np.arange(40) % 4

FUNCTIONS = {
    "alpha_precision": (alpha_precision, PAIR),
    "beta_recall": (beta_recall, PAIR),
    "authentic_samples": (authentic_samples, PAIR),
    "authenticity": (authenticity, PAIR),
    "class_accuracy": (lambda logits: class_accuracy(LABELS, logits), ("logits",)),
    "classifier_two_sample": (classifier_two_sample, POINTS),
    "clip_score": (clip_score, ("images", "texts")),
    "cmmd": (cmmd, PAIR),
    "copying_test": (lambda *sets: copying_test(*sets, num_cells=1), TRIPLE),
    "cosine_distances": (cosine_distances, PAIR),
    "duplicates": (duplicates, TRIPLE),
    "feature_likelihood_divergence": (feature_likelihood_divergence, TRIPLE),
    "frechet_distance": (frechet_distance, PAIR),
    "frechet_distance[fourth_moment]": (lambda *sets: frechet_distance(*sets, bias="fourth_moment"), PAIR),
    "frechet_infinity": (lambda *sets: frechet_infinity(*sets, min_samples=20), PAIR),
    "inception_score": (inception_score, ("logits",)),
    "kernel_distance": (kernel_distance, PAIR),
    "kernel_distance[rbf]": (lambda *sets: kernel_distance(*sets, kernel="rbf"), PAIR),
    "kernel_distance_of_subsets": (lambda *sets: kernel_distance_of_subsets(*sets, rule=RULES["fld"]), PAIR),
    "mifid": (mifid, PAIR),
    "mind": (mind, PAIR),
    "neighbour_ratio": (neighbour_ratio, TRIPLE),
    "precision_recall": (precision_recall, PAIR),
    "realism": (realism, PAIR),
    "realism_of_samples": (realism_of_samples, PAIR),
    "ref_clip_score": (lambda x, y: ref_clip_score(x, y, np.asarray(y)[:, None]), ("images", "texts")),
    "sinkhorn_divergence": (lambda x, y: sinkhorn_divergence(x, y, epsilon=2.0), POINTS),
    "sliced_wasserstein": (sliced_wasserstein, PAIR),
    "spatial_frechet_distance": (spatial_frechet_distance, PAIR),
    "vector_wasserstein": (vector_wasserstein, POINTS),
    "vendi_score": (vendi_score, ("samples",)),
}


def _sets(num, *, dtype=np.float64):
    random = np.random.default_rng(0)
    return [(random.normal(size=(40, 4)) + 0.1 * index).astype(dtype) for index in range(num)]


def _said(found):
    """What a function gave, so that equal numbers read equal (NaN does not equal itself)."""
    return str(found.tolist()) if isinstance(found, torch.Tensor) else repr(found)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_lists_and_tensors_give_one_answer_and_a_row_of_nan_none(name):
    function, arguments = FUNCTIONS[name]
    for dtype in (np.float32, np.float64):
        arrays = _sets(len(arguments), dtype=dtype)
        assert _said(function(*arrays)) == _said(function(*map(torch.from_numpy, arrays)))
    assert _said(function(*(part.tolist() for part in arrays))) == _said(function(*arrays))
    for place, argument in enumerate(arguments):
        broken = [part.copy() for part in arrays]
        broken[place][7] = np.nan
        for kind in (np.asarray, torch.from_numpy):
            with pytest.raises(ValueError, match=f"`{argument}` has NaN or infinity in 1 of 40 rows, expected finite"):
                function(*map(kind, broken))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.float16, torch.float32),
        (np.float32, torch.float32),
        (np.float64, torch.float64),
        (">f4", torch.float32),
        (">f8", torch.float64),
        (np.longdouble, torch.float64),
        (np.int64, torch.float64),
        (np.bool_, torch.float64),
    ],
)
def test_precision_is_kept_and_half_promoted(given, kept):
    rows = finite_rows(np.eye(3).astype(given), name="samples")
    assert rows.dtype == kept
    assert torch.equal(rows, torch.eye(3, dtype=kept))


def test_half_tensors_are_promoted_and_others_are_not_copied():
    for dtype in (torch.float16, torch.bfloat16):
        assert finite_rows(torch.eye(2, dtype=dtype), name="x").dtype == torch.float32
    tensor, array = torch.eye(2), np.eye(2)
    assert finite_rows(tensor, name="x") is tensor
    assert finite_rows(array, name="x").data_ptr() == array.ctypes.data
    assert not finite_rows(tensor.clone().requires_grad_(), name="x").requires_grad


def test_arrays_that_torch_cannot_share_are_copied_without_a_warning():
    frozen = np.arange(6.0).reshape(3, 2)
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (frozen, frozen[::-1], frozen[:, ::-1], frozen.T, np.broadcast_to(frozen[0], (3, 2))):
            assert finite_rows(array, name="x").tolist() == array.tolist()


def test_finite_numbers_whose_sum_is_not_finite_pass():
    huge = torch.full((4, 3), 3e38)
    assert finite_rows(huge, name="x") is huge
    with pytest.raises(ValueError, match="2 of 4 rows"):
        finite_rows(torch.tensor([[torch.inf], [0.0], [-torch.inf], [3e38]]), name="x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(4), r"`samples` has shape \(4,\), expected features \(N, F\)"),
        (np.zeros((4, 3, 2)), r"`samples` has shape \(4, 3, 2\)"),
        (np.zeros((4, 0)), "F at least 1"),
        ([], r"`samples` has shape \(0,\)"),
        ([[1.0, 2.0], [3.0]], "`samples` is no matrix"),
        ([["a", "b"]], "`samples` is an array of <U1, expected features as numbers"),
        (np.zeros((2, 2), dtype=complex), "`samples` is an array of complex128"),
        (torch.zeros(2, 2, dtype=torch.complex64), "`samples` is a tensor of torch.complex64, expected real"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        finite_rows(values, name="samples")


def test_sets_of_unequal_width_are_refused():
    with pytest.raises(ValueError, match=r"found 3 in `samples`, 2 in `reference` features of a row.*one width"):
        finite_features(samples=np.zeros((4, 3)), reference=np.zeros((4, 2)))
