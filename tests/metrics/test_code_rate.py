"""Rates of codes: books whose cost is known, an entropy coder by hand, and the jackknife by loop."""

import math

import numpy as np
import pytest
import torch

from genbench.core.metric import CodeEvidence, Evidence
from genbench.metrics.code_rate import CodeRate, code_entropy_rate, code_rate
from genbench.metrics.codebook_usage import codebook_perplexity


def test_a_byte_for_every_dimension_costs_8_bits_per_dimension():
    assert code_rate(768, 256, 768) == 8.0
    assert code_rate(1, 2, 1) == 1.0
    assert code_rate(16, 1, 768) == 0.0


def test_codes_used_alike_cost_as_much_under_their_frequencies_as_without():
    codes = torch.arange(512).repeat(3).reshape(24, 8, 8)
    found = code_entropy_rate(codes, 512, 768)
    assert found.value == pytest.approx(code_rate(64, 512, 768), rel=1e-12)
    assert found.ci95[1] <= code_rate(64, 512, 768)


def test_half_a_book_in_use_saves_one_bit_a_code():
    codes = torch.arange(256).repeat(2).reshape(32, 16)
    assert code_rate(16, 512, 192) - code_entropy_rate(codes, 512, 192).value == pytest.approx(16 / 192, rel=1e-12)


def test_a_collapsed_book_costs_nothing():
    found = code_entropy_rate(np.full((10, 4), 7), 64, 48)
    assert (found.value, found.stderr) == (0.0, 0.0)


def test_the_entropy_rate_is_the_length_of_an_ideal_code_for_these_very_codes():
    codes = np.random.default_rng(0).choice(5, p=[0.5, 0.25, 0.125, 0.0625, 0.0625], size=(40, 3, 2))
    shares = np.bincount(codes.ravel(), minlength=5) / codes.size
    lengths = [sum(-math.log2(shares[code]) for code in example.ravel()) for example in codes]
    assert code_entropy_rate(codes, 5, 12).value == pytest.approx(np.mean(lengths) / 12, rel=1e-12)


def test_the_error_is_the_jackknife_that_leaves_out_examples():
    rng = np.random.default_rng(0)
    codes = (rng.integers(4, size=(50, 1)) * 4 + rng.integers(8, size=(50, 6))) % 16
    left_out = np.array([code_entropy_rate(np.delete(codes, n, axis=0), 16, 48).value for n in range(50)])
    expected = math.sqrt(49 / 50 * ((left_out - left_out.mean()) ** 2).sum())
    found = code_entropy_rate(codes, 16, 48)
    assert found.stderr == pytest.approx(expected, rel=1e-10)
    assert found.ci95[0] < found.value < found.ci95[1]


def test_the_entropy_rate_is_the_logarithm_of_the_perplexity():
    codes = np.random.default_rng(0).integers(6, size=(30, 5)) ** 2 % 6
    perplexity, found = codebook_perplexity(codes, 6), code_entropy_rate(codes, 6, 20)
    assert found.value == pytest.approx(5 / 20 * math.log2(perplexity.value), rel=1e-12)
    assert found.stderr == pytest.approx(5 / 20 * perplexity.stderr / perplexity.value / math.log(2), rel=1e-10)


@pytest.mark.parametrize(("codes", "book", "dims"), [(0, 8, 4), (4, 0, 4), (4, 8, 0)])
def test_rates_of_nothing_are_refused(codes, book, dims):
    with pytest.raises(ValueError, match="at least 1"):
        code_rate(codes, book, dims)


@pytest.mark.parametrize(
    "codes", [torch.zeros(1, 4, dtype=torch.int64), torch.full((4, 4), 9), torch.zeros(4, 0, dtype=torch.int64)]
)
def test_codes_that_are_none_are_refused(codes):
    with pytest.raises(ValueError, match="a code rate needs"):
        code_entropy_rate(codes, 8, 48)


def test_the_scores_say_what_they_counted_and_share_a_protocol_whatever_the_book():
    codes = torch.arange(32).reshape(4, 8) % 16
    book, larger = (CodeEvidence(codes=codes, num_codes=size, num_dims=192) for size in (16, 1024))
    stored, coded = CodeRate().compute(Evidence(codes=book))
    assert (stored.name, stored.value, stored.stderr, stored.unit) == ("code_rate", 8 * 4 / 192, None, "bits/dim")
    assert stored.interval == "none: counted, 8 codes from a book of 16"
    assert coded.name == "code_entropy_rate"
    assert coded.value == pytest.approx(8 * 4 / 192)
    again = CodeRate().compute(Evidence(codes=larger))
    assert again[0].value == 8 * 10 / 192
    assert again[1].value == pytest.approx(coded.value)
    assert again[0].protocol == stored.protocol == {"num_dims": 192, "num_examples": 4}


def test_two_books_cost_the_sum_of_both_and_nothing_tells_the_coder_which_is_meant():
    rng = np.random.default_rng(0)
    top, bottom = rng.choice(4, p=[0.7, 0.1, 0.1, 0.1], size=(30, 2)), rng.integers(16, size=(30, 8))
    together = np.concatenate([top, 4 + bottom], axis=1)
    apart = [code_entropy_rate(top, 4, 48).value, code_entropy_rate(bottom, 16, 48).value]
    found = code_entropy_rate(together, 20, 48, books=[(2, 4), (8, 16)])
    assert found.value == pytest.approx(sum(apart), rel=1e-12)
    left_out = [
        code_entropy_rate(np.delete(together, n, axis=0), 20, 48, books=[(2, 4), (8, 16)]).value for n in range(30)
    ]
    expected = math.sqrt(29 / 30 * ((left_out - np.mean(left_out)) ** 2).sum())
    assert found.stderr == pytest.approx(expected, rel=1e-10)
    which = -(0.2 * math.log2(0.2) + 0.8 * math.log2(0.8)) * 10 / 48
    assert code_entropy_rate(together, 20, 48).value == pytest.approx(found.value + which, rel=1e-12)
    evidence = CodeEvidence(codes=torch.from_numpy(together), num_codes=20, num_dims=48, books=((2, 4), (8, 16)))
    stored, coded = CodeRate().compute(Evidence(codes=evidence))
    assert stored.value == pytest.approx((2 * 2 + 8 * 4) / 48, rel=1e-12)
    assert coded.value == found.value
    assert stored.interval == "none: counted, 2 codes from a book of 4 and 8 codes from a book of 16"


def test_books_that_leave_positions_out_are_refused():
    with pytest.raises(ValueError, match="books for all 6 positions"):
        code_entropy_rate(np.zeros((4, 6), dtype=np.int64), 8, 48, books=[(2, 4), (3, 4)])


def test_without_codes_or_dimensions_there_is_a_reason():
    with pytest.raises(ValueError, match="found none"):
        CodeRate().compute(Evidence())
    with pytest.raises(ValueError, match="number of dimensions"):
        CodeRate().compute(Evidence(codes=CodeEvidence(codes=torch.zeros(4, 4, dtype=torch.int64), num_codes=8)))
