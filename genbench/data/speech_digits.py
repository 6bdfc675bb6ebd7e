"""Free Spoken Digit Dataset: 3,000 recordings of the ten digits by six speakers, mono, 16 bits, 8 kHz.

Read from `GENBENCH_DATA`: the WAV files `{digit}_{speaker}_{index}.wav` in a folder `speech_digits/recordings`,
`fsdd/recordings` or `free-spoken-digit-dataset/recordings`, or packed as `fsdd.tar.xz`. They are never downloaded
silently. Zohar Jackson and others, "Free Spoken Digit Dataset", 2018, doi:10.5281/zenodo.1342401.

Recordings have lengths of their own. An example is the first `length` samples of one; a shorter recording ends in
silence.  Amplitudes are kept as they were recorded and stored as mu-law codes. As the authors say, recordings 0 .. 4
of every digit and speaker are the test set and 5 .. 49 the training set.
"""

from __future__ import annotations

import functools
import hashlib
import io
import lzma
import re
import tarfile
import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from genbench.core.data_root import data_root, missing
from genbench.core.dataset import Batch, Dataset, DataSpec, Factor, Split, register_dataset
from genbench.core.errors import DataError
from genbench.data._access import checked_indices, checked_split
from genbench.prob import mu_law

SAMPLE_RATE = 8_000
Length = Literal[1024, 2048, 4096, 8192]
LENGTHS: tuple[Length, ...] = get_args(Length)
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
FACTORS = (Factor("digit", tuple("0123456789")), Factor("speaker", SPEAKERS))
TAKES = 50
"""Recordings of each digit by each speaker."""
TEST_TAKES = 5
SIZES: dict[Split, int] = {"train": 60 * (TAKES - TEST_TAKES), "test": 60 * TEST_TAKES}
LARGEST_FILE = 1 << 20
"""Bytes of a recording, at most: a minute; the longest there is has some two seconds."""
_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.wav")


@register_dataset("speech_digits")
@dataclass(frozen=True)
class SpeechDigits(Dataset):
    """Spoken digits; (1, length) mu-law codes at 8 kHz; the label is the digit."""

    source = "https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0"
    folders = (
        "speech_digits/recordings",
        "fsdd/recordings",
        "free-spoken-digit-dataset/recordings",
        "fsdd.tar.xz",  # all recordings in one archive
    )
    how = "clone https://github.com/Jakobovski/free-spoken-digit-dataset"

    length: Length = 4096
    """Samples kept of a recording, of 8000 a second."""

    def __post_init__(self) -> None:
        if self.length not in LENGTHS:
            raise ValueError(f"length is {self.length}, expected one of {', '.join(map(str, LENGTHS))}")

    @property
    def spec(self) -> DataSpec:
        """Waveforms of 256 mu-law codes, ten classes, and the speaker as a second factor."""
        return DataSpec(
            kind="waveform", shape=(1, self.length), sample_rate=SAMPLE_RATE, num_classes=10, factors=FACTORS
        )

    def size(self, split: Split) -> int:
        """2,700 for train, 300 for test."""
        return SIZES[checked_split(split, self.splits, owner="speech_digits")]

    def load(self, split: Split, indices: Sequence[int] | np.ndarray) -> Batch:
        """Waveforms with digit as label, and digit and speaker as factors, in the order of digit, speaker and take."""
        rows = checked_indices(indices, size=self.size(split), owner=f"speech_digits, {split}")
        codes, factors = self._arrays(split)
        return Batch(
            x=torch.from_numpy(codes[rows][:, None]),
            y=torch.from_numpy(factors[rows, 0]),
            factors=torch.from_numpy(factors[rows]),
        )

    def fingerprint(self) -> str:
        """Digest of the length and of every waveform and factor."""
        digest = hashlib.sha256(f"speech_digits {self.length}".encode())
        for split in self.splits:
            for array in self._arrays(split):
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def combinations(self, split: Split) -> np.ndarray:
        """Every digit by every speaker: (60, 2)."""
        checked_split(split, self.splits, owner="speech_digits")
        return np.array([(digit, speaker) for digit in range(10) for speaker in range(len(SPEAKERS))], dtype=np.int64)

    def _arrays(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Codes (N, length) uint8 and factors (N, 2) int64 of a split."""
        codes, factors, takes = _read(data_root(), self.length)
        chosen = (takes < TEST_TAKES) == (split == "test")
        return codes[chosen], factors[chosen]


class _Recording(NamedTuple):
    digit: int
    speaker: int
    take: int
    amplitudes: np.ndarray
    """(T,) float64 in [-1, 1)."""


@functools.lru_cache(maxsize=2)
def _read(root: Path, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (N, length), factors (N, 2) and takes (N,) of all recordings, by digit, speaker and take."""
    where = _found(root)
    recordings = sorted(
        (recording for name, content in _files(where) if (recording := _recording(name, content, where)) is not None),
        key=lambda recording: recording[:3],
    )
    names = {recording[:3] for recording in recordings}
    if len(names) != sum(SIZES.values()) or len(recordings) != len(names):
        raise DataError(
            f"{where}: found {len(recordings)} recordings of {len(names)} names, expected {sum(SIZES.values())}",
            hint=SpeechDigits.how,
        )
    amplitudes = np.zeros((len(recordings), length))
    for row, recording in zip(amplitudes, recordings, strict=True):
        kept = recording.amplitudes[:length]
        row[: len(kept)] = kept
    factors = np.array([recording[:2] for recording in recordings], dtype=np.int64)
    return mu_law.encode(amplitudes), factors, np.array([recording.take for recording in recordings])


def _found(root: Path) -> Path:
    """The folder of the recordings, or the archive that holds them."""
    places = [root / name for name in SpeechDigits.folders]
    found = next((place for place in places if (place.is_file() if place.suffix else place.is_dir())), None)
    if found is None:
        raise missing("speech_digits", looked=places, how=SpeechDigits.how)
    return found


def _files(where: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every WAV file in the folder or the archive."""
    if where.is_dir():
        for path in sorted(where.glob("*.wav")):
            yield path.name, path.read_bytes()[: LARGEST_FILE + 1]
        return
    try:
        with tarfile.open(where, "r:xz") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and name.endswith(".wav") and not name.startswith("."):
                    file = archive.extractfile(member)
                    assert file is not None  # it is a file
                    yield name, file.read(LARGEST_FILE + 1)
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise DataError(f"{where}: cannot be read: {error}", hint="delete the file and get it again") from error


def _recording(name: str, content: bytes, where: Path) -> _Recording | None:
    """One recording, None for a file of another name or by another speaker, which later versions may add."""
    match = _NAME.fullmatch(name)
    if match is None or match["speaker"] not in SPEAKERS or int(match["take"]) >= TAKES:
        return None
    try:
        with wave.open(io.BytesIO(content)) as file:
            form = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            told, frames = file.getnframes(), file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{where}: {name}: no WAV file: {error}", hint=SpeechDigits.how) from error
    if form != (1, 16, SAMPLE_RATE) or not frames or len(frames) != 2 * told:
        channels, bits, rate = form
        raise DataError(
            f"{where}: {name}: {channels} channels, {bits} bits, {rate} Hz, {len(frames)} bytes for {told} samples; "
            f"expected sound of 1 channel, 16 bits, {SAMPLE_RATE} Hz",
            hint=SpeechDigits.how,
        )
    amplitudes = np.frombuffer(frames, dtype="<i2").astype(np.float64) / 2.0**15
    return _Recording(int(match["digit"]), SPEAKERS.index(match["speaker"]), int(match["take"]), amplitudes)
