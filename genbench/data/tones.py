"""Synthesised notes of one instrument, without end: a waveform whose pitch, timbre, envelope and loudness are known.

Every example has four ground-truth factors, a class (its timbre), and continuous jitter of tuning, loudness, decay and
starting phase that never blurs a factor. A note is a sum of partials,

    x(t) = A e(t) sum_n a_n sin(2 pi r_n (f t + s)),    sum_n a_n = 1

with frequency f, start s, relative frequencies r_n and weights a_n of the timbre, and the envelope e over the length
of the example, so that the same note is drawn out where an example is longer. Triangular dither makes the last bits
uncertain, as in a recording; what is stored are mu-law codes of the amplitudes. Example i is a function of the split,
the length and i alone. Four of the 24 pairs of timbre and pitch never occur in `train` and `test`; they make up
`novel`.

The splits are disjoint by construction: the starting phase takes values on a lattice whose even points belong to
`train` and `novel` and whose odd points belong to `test`, and `novel` has its own pairs of timbre and pitch. The
lattice is 1/8192 of a period fine, so no model can tell the splits apart by it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from genbench.core.dataset import Batch, Dataset, DataSpec, Factor, Split, register_dataset
from genbench.data._access import checked_indices, checked_split
from genbench.data._counter import key_of, uniforms, words
from genbench.prob import mu_law

SPLITS: tuple[Split, ...] = ("train", "test", "novel")
SAMPLE_RATE = 8_000
Length = Literal[512, 1024, 2048, 4096, 8192]
LENGTHS: tuple[Length, ...] = get_args(Length)
FACTORS = (
    Factor("timbre", ("flute", "clarinet", "violin", "bell")),
    Factor("pitch", ("C4", "D4", "E4", "G4", "A4", "C5")),
    Factor("envelope", ("pluck", "swell", "steady")),
    Factor("loudness", ("soft", "loud")),
)
FREQUENCIES = 440.0 * 2.0 ** (np.array([-9, -7, -5, -2, 0, 3]) / 12.0)
"""Hertz, equal temperament; two semitones or more apart."""
_BAR = 3.0112  # modes of a free bar: squares of 3.0112, 5, 7 (Fletcher and Rossing, The Physics of Musical Instruments)
_HARMONICS = np.arange(1, 8)
RATIOS = np.array(
    [
        [1, 2, 3, 0, 0, 0, 0],
        [1, 3, 5, 7, 0, 0, 0],
        _HARMONICS,
        [1, (5 / _BAR) ** 2, (7 / _BAR) ** 2, 0, 0, 0, 0],
    ],
    dtype=np.float64,
)
"""Frequencies of the partials of each timbre over that of the first, 0 where there is none; all below 4 kHz."""
_WEIGHTS = np.array(
    [
        [1, 0.25, 0.06, 0, 0, 0, 0],
        [1, 1 / 3, 1 / 5, 1 / 7, 0, 0, 0],
        1 / _HARMONICS,
        [1, 0.6, 0.4, 0, 0, 0, 0],
    ],
    dtype=np.float64,
)
WEIGHTS = _WEIGHTS / _WEIGHTS.sum(axis=1, keepdims=True)
AMPLITUDES = np.array([0.2, 0.8])
"""Greatest amplitude of a soft and of a loud note."""
HELD_OUT = ((0, 1), (1, 4), (2, 2), (3, 5))
"""Pairs (timbre, pitch) of `novel`: flute D4, clarinet A4, violin E4, bell C5."""

DETUNING_CENTS = 8.0
"""Greatest change of the pitch; neighbours are 200 cents apart or more."""
LOUDNESS_JITTER = 0.1
"""Greatest relative change of the amplitude."""
DECAY = 5.0
"""A pluck falls to exp(-5) over the length of the example, a tenth of that rate more or less."""
DECAY_JITTER = 0.1
RAMP_SECONDS = 0.002
"""Of every attack and release, so that no note begins or ends with a click."""
DITHER = 0.004
"""Greatest amplitude of the dither, one part in 250 of full scale."""
LATTICE = 4096
"""Starting phases per split within a period."""
_AT_ONCE = 256  # notes rendered together


@register_dataset("tones")
@dataclass(frozen=True)
class Tones(Dataset):
    """One note of one instrument; (1, length) mu-law codes at 8 kHz, four classes."""

    source = "synthesised on the spot; no licence needed"

    length: Length = 2048
    """Samples in time, of 8000 a second."""

    def __post_init__(self) -> None:
        if self.length not in LENGTHS:
            raise ValueError(f"length is {self.length}, expected one of {', '.join(map(str, LENGTHS))}")

    @property
    def spec(self) -> DataSpec:
        """Waveforms of 256 mu-law codes, four classes and four factors."""
        return DataSpec(
            kind="waveform",
            shape=(1, self.length),
            sample_rate=SAMPLE_RATE,
            num_classes=len(FACTORS[0].values),
            factors=FACTORS,
        )

    @property
    def splits(self) -> tuple[Split, ...]:
        """Train and test share their combinations of factors; novel has its own."""
        return SPLITS

    def size(self, split: Split) -> int | None:
        """None: there is no end to the examples."""
        checked_split(split, SPLITS, owner="tones")
        return None

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Waveforms with timbre as label and all factors."""
        checked_split(split, SPLITS, owner="tones")
        rows = checked_indices(indices, size=None, owner=f"tones, {split}")
        factors, notes = notes_of(split, rows)
        x = mu_law.encode(render(notes, self.length) + dither(split, rows, self.length))
        return Batch(
            x=torch.from_numpy(x[:, None]),
            y=torch.from_numpy(factors[:, 0].copy()),
            factors=torch.from_numpy(factors),
        )

    def fingerprint(self) -> str:
        """Digest of the first 64 examples of every split, as rendered."""
        return _fingerprint(self)

    def combinations(self, split: Split) -> np.ndarray:
        """Every combination of factor values: (120, 4) for train and test, (24, 4) for novel."""
        return _combinations(checked_split(split, SPLITS, owner="tones")).copy()


@dataclass(frozen=True)
class Notes:
    """What N notes sound like, whatever their length."""

    timbre: np.ndarray
    """(N,) int64."""
    frequency: np.ndarray
    """(N,), hertz."""
    start: np.ndarray
    """(N,), periods of the first partial that lie before the beginning."""
    envelope: np.ndarray
    """(N,) int64."""
    decay: np.ndarray
    """(N,), of a pluck, over the length of the example."""
    amplitude: np.ndarray
    """(N,)."""


def notes_of(split: Split, indices: np.ndarray) -> tuple[np.ndarray, Notes]:
    """Factors (N, 4) int64 and notes at the given indices; the length plays no part.

    Every combination of factors is equally likely, every jitter uniform.
    """
    u = uniforms(key_of("tones", split), indices, 5)
    table = _combinations(split)
    factors = table[(u[:, 0] * len(table)).astype(np.int64)]
    timbre, pitch, envelope, loudness = factors.T
    jitter = 2.0 * u[:, 2:] - 1.0  # (N, 3) in [-1, 1)
    notes = Notes(
        timbre=timbre,
        frequency=FREQUENCIES[pitch] * 2.0 ** (DETUNING_CENTS * jitter[:, 0] / 1200.0),
        start=(2.0 * np.floor(u[:, 1] * LATTICE) + (split == "test")) / (2 * LATTICE),
        envelope=envelope,
        decay=DECAY * (1.0 + DECAY_JITTER * jitter[:, 1]),
        amplitude=AMPLITUDES[loudness] * (1.0 + LOUDNESS_JITTER * jitter[:, 2]),
    )
    return factors, notes


def render(notes: Notes, length: int) -> np.ndarray:
    """Amplitudes (N, length) of notes at 8 kHz, without dither."""
    found = np.empty((len(notes.timbre), length))
    for first in range(0, len(found), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        found[rows] = _partials(notes, rows, length) * _envelopes(notes, rows, length)
    return found


def dither(split: Split, indices: np.ndarray, length: int) -> np.ndarray:
    """Noise (N, length) of triangular law, the difference of two uniforms; independent for every sample in time."""
    found = np.empty((len(indices), length))
    for first in range(0, len(found), _AT_ONCE):
        drawn = words(key_of("tones", "dither", split), indices[first : first + _AT_ONCE], length)
        high, low = (drawn >> np.uint64(32)).astype(np.float64), (drawn & np.uint64(2**32 - 1)).astype(np.float64)
        found[first : first + _AT_ONCE] = (DITHER * 2.0**-32) * (high - low)
    return found


def _partials(notes: Notes, rows: slice, length: int) -> np.ndarray:
    """The sum over partials, at most 1: (n, length)."""
    periods = notes.frequency[rows, None] / SAMPLE_RATE * np.arange(length) + notes.start[rows, None]
    found: np.ndarray = np.zeros_like(periods)
    for ratios, weights in zip(RATIOS[notes.timbre[rows]].T, WEIGHTS[notes.timbre[rows]].T, strict=True):
        there = weights > 0.0  # (n,)
        found[there] += weights[there, None] * np.sin(2.0 * np.pi * ratios[there, None] * periods[there])
    return found


def _envelopes(notes: Notes, rows: slice, length: int) -> np.ndarray:
    """Amplitude over time, with a ramp at both ends: (n, length)."""
    place = np.arange(length) / length
    shapes = np.stack(
        [
            np.exp(-notes.decay[rows, None] * place),
            np.broadcast_to(place, (len(notes.decay[rows]), length)),
            np.ones((len(notes.decay[rows]), length)),
        ]
    )  # (3, n, length): pluck, swell, steady
    ramp = RAMP_SECONDS * SAMPLE_RATE
    sample = np.arange(length)
    edges = np.minimum(1.0, np.minimum(sample + 1, length - sample) / ramp)
    chosen = shapes[notes.envelope[rows], np.arange(shapes.shape[1])]
    return np.asarray(notes.amplitude[rows, None] * chosen * edges)


@functools.cache
def _combinations(split: Split) -> np.ndarray:
    every = itertools.product(*(range(len(factor.values)) for factor in FACTORS))
    return np.array([row for row in every if (row[:2] in HELD_OUT) == (split == "novel")], dtype=np.int64)


@functools.cache
def _fingerprint(dataset: Tones) -> str:
    digest = hashlib.sha256(repr(dataset).encode())
    for split in dataset.splits:
        batch = dataset.load(split, range(64))
        for tensor in (batch.x, batch.factors):
            assert tensor is not None
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
