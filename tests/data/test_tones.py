"""The synthesised notes: labels against what the waveform shows, splits, lengths."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.errors import SettingError
from genbench.core.spec import parse_ref
from genbench.data import tones
from genbench.data.tones import FACTORS, SAMPLE_RATE, Tones, dither, notes_of, render
from genbench.prob import mu_law

NUM = 400


@pytest.fixture(scope="module")
def drawn():
    """400 notes of one second, their factors and their amplitudes."""
    batch = Tones(8192).load("train", range(NUM))
    return batch, mu_law.decode(batch.x[:, 0].numpy())


def _value(batch, name):
    return batch.factors[:, [factor.name for factor in FACTORS].index(name)].numpy()


def test_the_strongest_partial_of_a_steady_note_stands_at_its_pitch(drawn):
    batch, amplitudes = drawn
    steady = _value(batch, "envelope") == 2
    spectrum = np.abs(np.fft.rfft(amplitudes[steady] * np.hanning(8192), axis=1))
    found = spectrum.argmax(axis=1) * SAMPLE_RATE / 8192
    cents = 1200.0 * np.log2(found / tones.FREQUENCIES[_value(batch, "pitch")[steady]])
    assert np.abs(cents).max() < tones.DETUNING_CENTS + 4.0  # a bin is a hertz wide, 6 cents at the lowest pitch
    assert cents.std() > 2.0


def test_each_timbre_has_the_partials_of_its_table(drawn):
    batch, amplitudes = drawn
    steady = np.flatnonzero(_value(batch, "envelope") == 2)
    _, notes = notes_of("train", np.arange(NUM))
    time = np.arange(8192) / SAMPLE_RATE
    window = np.hanning(8192)
    for row in steady[:40]:
        timbre = notes.timbre[row]
        for ratio, weight in zip(tones.RATIOS[timbre], tones.WEIGHTS[timbre], strict=True):
            if weight:
                wave = np.exp(-2j * np.pi * ratio * notes.frequency[row] * time)
                found = 2.0 * abs((amplitudes[row] * window * wave).sum()) / window.sum()
                assert found == pytest.approx(weight * notes.amplitude[row], abs=0.004)


def test_an_envelope_falls_rises_or_stays_and_loud_is_louder_than_soft(drawn):
    batch, amplitudes = drawn
    early, late = (np.abs(amplitudes[:, part]).max(axis=1) for part in (slice(0, 2048), slice(6144, 8192)))
    envelope, loudness = _value(batch, "envelope"), _value(batch, "loudness")
    assert (early[envelope == 0] > 5.0 * late[envelope == 0]).all()
    assert (late[envelope == 1] > 2.0 * early[envelope == 1]).all()
    assert (np.abs(late / early - 1.0)[envelope == 2] < 0.15).all()
    peak = np.abs(amplitudes).max(axis=1)
    assert peak[loudness == 1].min() > 1.5 * peak[loudness == 0].max()
    assert peak.max() < 1.0


def test_a_note_is_the_same_at_every_length_but_for_its_duration():
    _, notes = notes_of("test", np.arange(20))
    short, long = render(notes, 1024), render(notes, 4096)
    steady = notes.envelope == 2
    inside = slice(32, 900)  # away from the ramps
    np.testing.assert_allclose(short[steady, inside], long[steady, inside], atol=1e-12)
    assert torch.equal(Tones(1024).load("test", range(20)).factors, Tones(4096).load("test", range(20)).factors)


def test_dither_is_triangular_and_independent_from_sample_to_sample():
    found = dither("train", np.arange(200), 2048) / tones.DITHER
    assert np.abs(found).max() < 1.0
    assert found.mean() == pytest.approx(0.0, abs=5 * (6 * found.size) ** -0.5)
    assert found.var() == pytest.approx(1 / 6, rel=0.02)
    assert (np.abs(found) < 0.5).mean() == pytest.approx(0.75, abs=0.005)
    assert np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1] == pytest.approx(0.0, abs=0.01)


def test_train_and_test_start_on_disjoint_lattices():
    starts = {split: notes_of(split, np.arange(20_000))[1].start * 2 * tones.LATTICE for split in ("train", "test")}
    for split, start in starts.items():
        assert np.array_equal(start, start.round())
        assert set(np.unique(start % 2)) == {float(split == "test")}
        assert start.min() >= 0
        assert start.max() < 2 * tones.LATTICE


def test_factors_are_uniform_and_novel_has_its_own_pairs():
    data = Tones(512)
    shown = {split: {tuple(row) for row in data.combinations(split)} for split in data.splits}
    every = set(itertools.product(*(range(len(factor.values)) for factor in FACTORS)))
    assert shown["train"] == shown["test"]
    assert len(shown["train"]) == 120
    assert shown["train"] | shown["novel"] == every
    assert not shown["train"] & shown["novel"]
    factors, _ = notes_of("train", np.arange(24_000))
    found, counts = np.unique(factors, axis=0, return_counts=True)
    assert {tuple(row) for row in found} == shown["train"]
    assert np.abs(counts - 200).max() < 5.5 * 200**0.5
    assert {tuple(row) for row in notes_of("novel", np.arange(2000))[0]} == shown["novel"]


def test_the_label_is_the_timbre_and_the_spec_says_what_the_numbers_mean():
    data = build_dataset(parse_ref("tones"))
    batch = data.load("test", range(50))
    assert torch.equal(batch.y, batch.factors[:, 0])
    assert (data.spec.kind, data.spec.shape, data.spec.levels) == ("waveform", (1, 2048), 256)
    assert (data.spec.sample_rate, data.spec.seconds) == (8000, 0.256)
    assert data.spec.num_classes == 4
    assert batch.text is None


def test_a_length_that_is_not_offered_is_refused():
    with pytest.raises(SettingError, match="`length` is 1000, expected one of 512"):
        build_dataset(parse_ref("tones[length=1000]"))
    with pytest.raises(ValueError, match="length is 1000, expected one of 512"):
        Tones(length=1000)
