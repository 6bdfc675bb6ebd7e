"""Random numbers by counter: what example i holds depends on (key, i) alone, never on the order of asking."""

from __future__ import annotations

import hashlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # odd integer nearest 2^64 / golden ratio, the step of SplitMix64


def key_of(*names: str) -> np.ndarray:
    """One 64-bit key (1,) for a stream of random numbers, from the words that name it."""
    return np.frombuffer(hashlib.sha256("/".join(names).encode()).digest()[:8], dtype="<u8").astype(np.uint64)


def words(key: np.ndarray, indices: np.ndarray, num_words: int) -> np.ndarray:
    """Independent 64-bit words for every index: (N, num_words) uint64.

    Row i runs SplitMix64 (Steele, Lea and Flood, 2014) from a state that hashes (key, index).
    """
    start = _mix(key + indices.astype(np.uint64) * GOLDEN)  # (N,)
    steps = np.arange(1, num_words + 1, dtype=np.uint64) * GOLDEN
    return _mix(start[:, None] + steps)


def uniforms(key: np.ndarray, indices: np.ndarray, num_words: int) -> np.ndarray:
    """Independent uniforms in [0, 1) for every index: (N, num_words) float64 with 53 random bits."""
    return np.asarray((words(key, indices, num_words) >> np.uint64(11)) * 2.0**-53)


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: a bijection of 64-bit words that flips half the bits on average."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
