"""Codebook usage and perplexity: books whose use is known, the jackknife by loop, and their intervals."""

import math

import numpy as np
import pytest
import torch

from genbench.core.metric import CodeEvidence, Evidence
from genbench.metrics.codebook_usage import CodebookUsage, codebook_perplexity, codebook_usage


def _codes(num=60, positions=8, *, seed=0):
    """Positions of one example resemble each other."""
    rng = np.random.default_rng(seed)
    shares = np.exp(-np.arange(64) / 8.0)
    drawn = rng.choice(64, p=shares / shares.sum(), size=(num, positions))
    own = (rng.integers(4, size=(num, 1)) * 16 + drawn % 16) % 64
    return np.where(rng.random((num, positions)) < 0.5, drawn, own)


def test_a_book_used_alike_has_as_much_perplexity_as_codes():
    codes = torch.arange(512).repeat(3).reshape(24, 8, 8)
    assert codebook_usage(codes, 512).value == 1.0
    assert codebook_perplexity(codes, 512).value == pytest.approx(512.0, rel=1e-12)
    assert codebook_usage(codes, 1024).value == 0.5
    assert codebook_perplexity(codes, 1024).value == pytest.approx(512.0, rel=1e-12)


def test_a_collapsed_book_uses_one_code():
    codes = torch.full((10, 4), 7)
    assert codebook_usage(codes, 64).value == 1 / 64
    assert codebook_perplexity(codes, 64).value == 1.0


def test_perplexity_is_the_exponential_of_the_entropy():
    codes = np.array([[0, 0], [0, 0], [1, 1], [2, 3]])
    entropy = 0.5 * math.log(2) + 0.25 * math.log(4) + 0.25 * math.log(8)
    assert codebook_perplexity(codes, 5).value == pytest.approx(math.exp(entropy), rel=1e-14)
    assert codebook_usage(codes, 5).value == 0.8


def test_the_error_of_usage_is_the_jackknife_that_takes_examples_out_one_by_one_and_one_code():
    codes = _codes(20)
    left_out = np.array([codebook_usage(np.delete(codes, n, axis=0), 64).value for n in range(20)])
    expected = math.sqrt(19 / 20 * ((left_out - left_out.mean()) ** 2).sum() + 1 / 64**2)
    assert codebook_usage(codes, 64).stderr == pytest.approx(expected, rel=1e-10)


def test_the_error_of_perplexity_is_the_jackknife_of_its_logarithm():
    codes = _codes(50)
    left_out = np.log([codebook_perplexity(np.delete(codes, n, axis=0), 64).value for n in range(50)])
    found = codebook_perplexity(codes, 64)
    expected = found.value * math.sqrt(49 / 50 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.stderr == pytest.approx(expected, rel=1e-10)


def test_copies_within_an_example_do_not_sharpen_the_interval():
    codes = _codes(60, 1)
    once, often = (codebook_perplexity(np.repeat(codes, times, axis=1), 64) for times in (1, 50))
    assert often.stderr == pytest.approx(once.stderr, rel=1e-12)
    assert codebook_usage(np.repeat(codes, 50, axis=1), 64) == codebook_usage(codes, 64)


@pytest.mark.slow
@pytest.mark.parametrize("measure", [codebook_usage, codebook_perplexity])
@pytest.mark.parametrize("num", [40, 120])
def test_the_interval_holds_the_mean_estimate_95_times_in_100(measure, num):
    found = [measure(_codes(num, seed=seed), 64) for seed in range(600)]
    middle = np.mean([one.value for one in found])
    covered = np.mean([one.ci95[0] <= middle <= one.ci95[1] for one in found])
    assert 0.92 <= covered <= (1.0 if measure is codebook_usage else 0.98)  # usage errs upwards near a full book


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((1, 4), dtype=int), "at least 2 examples"),
        (np.zeros((5, 0), dtype=int), "at least 2 examples"),
        (np.zeros((5, 4)), "whole numbers, found float64"),
        (np.full((5, 4), 64), "codes 0 .. 63, found 64 .. 64"),
        (np.full((5, 4), -1), "codes 0 .. 63, found -1 .. -1"),
    ],
)
def test_codes_outside_the_book_or_too_few_are_refused(codes, message):
    for measure in (codebook_usage, codebook_perplexity):
        with pytest.raises(ValueError, match=message):
            measure(codes, 64)


def test_two_scores_come_with_the_size_of_the_book():
    found = CodeEvidence(codes=torch.from_numpy(_codes()), num_codes=64)
    usage, perplexity = CodebookUsage().compute(Evidence(codes=found))
    assert (usage.name, usage.unit) == ("codebook_usage", "share")
    assert (perplexity.name, perplexity.unit) == ("codebook_perplexity", "codes")
    assert usage.protocol == perplexity.protocol == {"num_examples": 60}
    with pytest.raises(ValueError, match="discrete codes of at least 2 examples, found none"):
        CodebookUsage().compute(Evidence())


def test_several_books_count_as_one_in_which_each_weighs_by_its_positions():
    rng = np.random.default_rng(2)
    sizes, positions = (7, 12), (4, 16)
    books = [
        rng.choice(size, (50, count), p=rng.dirichlet(np.ones(size)))
        for size, count in zip(sizes, positions, strict=True)
    ]
    joined = np.concatenate([books[0], books[1] + sizes[0]], axis=1)
    usages = [codebook_usage(codes, size).value for codes, size in zip(books, sizes, strict=True)]
    entropies = np.log([codebook_perplexity(codes, size).value for codes, size in zip(books, sizes, strict=True)])
    share = np.array(positions) / sum(positions)
    expected = float(np.dot(sizes, usages)) / sum(sizes)
    assert codebook_usage(joined, sum(sizes)).value == pytest.approx(expected, abs=1e-12)
    entropy = float((share * (entropies - np.log(share))).sum())
    assert codebook_perplexity(joined, sum(sizes)).value == pytest.approx(math.exp(entropy), rel=1e-12)
