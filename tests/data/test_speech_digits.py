"""Spoken digits: made-up recordings in a folder or an archive, damaged and missing ones, and the real ones."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError, SettingError
from genbench.core.spec import parse_ref
from genbench.data import speech_digits
from genbench.data.speech_digits import SPEAKERS, TAKES, SpeechDigits
from genbench.prob import mu_law


def recorded(samples, *, channels=1, rate=8000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, dtype="<i2").tobytes())
    return buffer.getvalue()


def files():
    """All 3,000 names; a recording is a constant that says whose it is, and lasts 600 or 3000 samples."""
    for digit, (number, speaker), take in itertools.product(range(10), enumerate(SPEAKERS), range(TAKES)):
        value = 1000 + 300 * digit + 40 * number + take % 2
        yield f"{digit}_{speaker}_{take}.wav", recorded(np.full(3000 if take == 7 else 600, value))


def in_folder(root: Path, name: str = "speech_digits/recordings") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for file, content in files():
        (folder / file).write_bytes(content)
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_DATA", str(tmp_path))
    return build_dataset(parse_ref("speech_digits[length=1024]"))


def test_recordings_are_cut_or_end_in_silence_and_carry_digit_and_speaker(data, tmp_path):
    in_folder(tmp_path)
    batch = data.load("train", range(data.size("train")))
    assert batch.x.shape == (2700, 1, 1024)
    assert torch.equal(batch.y, batch.factors[:, 0])
    assert batch.y.bincount().tolist() == [270] * 10
    amplitudes = mu_law.decode(batch.x[:, 0].numpy())
    expected = (1000 + 300 * batch.factors[:, 0] + 40 * batch.factors[:, 1]).numpy() / 2**15
    assert np.abs(amplitudes[:, :600] / expected[:, None] - 1.0).max() < 0.04
    silent = np.abs(amplitudes[:, 600:]).max(axis=1) < 1e-4
    assert silent.sum() == 2700 - 60  # take 7 of each digit and speaker goes on


def test_test_takes_are_the_first_five_of_each_digit_and_speaker(data, tmp_path):
    in_folder(tmp_path, "fsdd/recordings")
    batch = data.load("test", range(300))
    assert {tuple(row) for row in batch.factors.tolist()} == {tuple(row) for row in data.combinations("test").tolist()}
    assert (batch.x[:, :, 600:] == 128).all()  # take 7 is not among them


def test_an_archive_is_read_as_the_folder_in_it(data, tmp_path, monkeypatch):
    in_folder(tmp_path / "a")
    (tmp_path / "b").mkdir()
    with tarfile.open(tmp_path / "b" / "fsdd.tar.xz", "w:xz") as archive:
        for name, content in files():
            member = tarfile.TarInfo(f"anything/recordings/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    prints = []
    for root in ("a", "b"):
        monkeypatch.setenv("GENBENCH_DATA", str(tmp_path / root))
        prints.append(data.fingerprint())
    assert prints[0] == prints[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RIFF nothing", "no WAV file"),
        (recorded(np.zeros(8), channels=2), "2 channels"),
        (recorded(np.zeros(8), rate=16000), "16000 Hz"),
        (recorded(np.zeros(0)), "0 samples"),
        (recorded(np.zeros(8))[:-4], "12 bytes for 8 samples"),
    ],
)
def test_a_file_that_is_no_such_recording_is_named(data, tmp_path, content, message):
    (in_folder(tmp_path) / "3_theo_12.wav").write_bytes(content)
    with pytest.raises(DataError, match=rf"3_theo_12.wav: .*{message}"):
        data.load("train", [0])


def test_recordings_of_others_are_left_out_and_missing_ones_are_counted(data, tmp_path):
    folder = in_folder(tmp_path)
    (folder / "3_somebody_1.wav").write_bytes(b"whatever")
    assert len(data.load("test", [0])) == 1
    (folder / "9_lucas_49.wav").unlink()
    speech_digits._read.cache_clear()
    with pytest.raises(DataError, match="found 2999 recordings of 2999 names, expected 3000"):
        data.load("test", [0])


def test_a_damaged_archive_is_named(data, tmp_path):
    (tmp_path / "fsdd.tar.xz").write_bytes(b"\xfd7zXZ\0 and no more")
    with pytest.raises(DataError, match=r"fsdd.tar.xz: cannot be read"):
        data.load("train", [0])


def test_what_is_not_there_says_where_it_was_looked_for_and_how_to_get_it(data):
    with pytest.raises(DataError, match="`speech_digits` is not there") as caught:
        data.load("train", [0])
    assert "free-spoken-digit-dataset" in caught.value.hint


def test_a_length_that_is_not_offered_is_refused():
    with pytest.raises(SettingError, match="`length` is 100, expected one of 1024"):
        build_dataset(parse_ref("speech_digits[length=100]"))
    with pytest.raises(ValueError, match="length is 100, expected one of 1024"):
        SpeechDigits(length=100)


@pytest.mark.slow
def test_the_real_recordings_are_speech_of_the_usual_length():
    root = os.environ.get("GENBENCH_DATA", "")
    there = [root and (Path(root) / name).exists() for name in speech_digits.SpeechDigits.folders]
    if not any(there):
        pytest.skip("GENBENCH_DATA has no speech_digits")
    data = build_dataset(parse_ref("speech_digits[length=8192]"))
    batch = data.load("test", range(300))
    amplitudes = mu_law.decode(batch.x[:, 0].numpy())
    lasts = np.array([np.flatnonzero(np.abs(row) > 1e-3).max() for row in amplitudes]) / 8000
    assert 0.3 < np.median(lasts) < 0.6
    assert 0.02 < np.sqrt((amplitudes**2).mean()) < 0.3
    assert abs(amplitudes.mean()) < 0.01
