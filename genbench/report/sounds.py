"""Waveforms to be seen and heard: spectrograms as pictures, and WAV files that any player opens.

A spectrogram shows time to the right, frequency upwards from 0 to half the sample rate in even steps, and the level
from white, `RANGE_DB` or more below a sine at full scale, to black.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genbench.core.files import write_atomically
from genbench.prob import mu_law

WINDOW = 256
"""Samples behind one column, weighted by a Hann window; a picture is half as high."""
COLUMNS = 96
"""Of a spectrogram, whatever its length."""
RANGE_DB = 70.0
SOUND_FOLDER = "sounds"
NUM_SOUNDS = 16
"""Samples of a cell that are written as WAV files."""


def spectrograms(codes: npt.NDArray[np.uint8], *, levels: int) -> npt.NDArray[np.uint8]:
    """Pictures of waveforms: (N, 1, WINDOW // 2, COLUMNS) uint8, dark where there is sound.

    Args:
        codes: (N, T), mu-law codes with values 0 .. levels-1.
        levels: size of the alphabet.

    Raises:
        ValueError: codes of another type or shape.
    """
    if codes.dtype != np.uint8 or codes.ndim != 2 or not codes.shape[1]:
        raise ValueError(f"expected uint8 codes (N, T), found {codes.dtype} {codes.shape}")
    amplitudes = mu_law.decode(codes, levels=levels)
    padded = np.pad(amplitudes, ((0, 0), (WINDOW // 2, WINDOW // 2)))  # column k stands in the middle of its window
    starts = np.linspace(0, codes.shape[1] - 1, COLUMNS).astype(np.int64)
    window = np.hanning(WINDOW + 1)[:-1]
    frames = padded[:, starts[:, None] + np.arange(WINDOW)] * window  # (N, COLUMNS, WINDOW)
    magnitude = np.abs(np.fft.rfft(frames, axis=2))[:, :, : WINDOW // 2] / (0.5 * window.sum())  # 1 for a full sine
    decibels = 20.0 * np.log10(np.maximum(magnitude, 1e-12))
    dark = np.clip(1.0 + decibels / RANGE_DB, 0.0, 1.0)
    upright = dark.transpose(0, 2, 1)[:, None, ::-1]  # low frequencies at the bottom
    shown: npt.NDArray[np.uint8] = np.rint(255.0 * (1.0 - upright)).astype(np.uint8)
    return shown


def wav(codes: npt.NDArray[np.uint8], *, levels: int, sample_rate: int) -> bytes:
    """One waveform (T,) of mu-law codes as the content of a WAV file: mono, 16 bits."""
    steps = np.rint(mu_law.decode(codes, levels=levels) * (2**15 - 1)).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(steps.tobytes())
    return buffer.getvalue()


def save_sounds(codes: npt.NDArray[np.uint8], folder: Path, *, levels: int, sample_rate: int) -> list[Path]:
    """Write the first waveforms of (N, T) as `sounds/00.wav`, `sounds/01.wav`, ... and return where.

    Raises:
        StoreError: the folder cannot be written.
    """
    paths = [folder / SOUND_FOLDER / f"{number:02d}.wav" for number in range(min(len(codes), NUM_SOUNDS))]
    for path, sound in zip(paths, codes, strict=False):
        write_atomically(path, wav(sound, levels=levels, sample_rate=sample_rate))
    return paths
