"""Sounds as files and pictures: what scipy reads back, and where a tone stands in its spectrogram."""

import io

import numpy as np
import pytest
from scipy.io import wavfile

from genbench.prob import mu_law
from genbench.report.sounds import COLUMNS, NUM_SOUNDS, WINDOW, save_sounds, spectrograms, wav

RATE = 8000


def sine(hertz, length=4096, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(length) / RATE)


def test_a_wav_file_is_read_by_scipy_as_the_sound_that_was_written():
    amplitudes = sine(440.0)
    rate, found = wavfile.read(io.BytesIO(wav(mu_law.encode(amplitudes), levels=256, sample_rate=RATE)))
    assert rate == RATE
    assert found.dtype == np.int16
    assert found.shape == (4096,)
    assert np.abs(found / (2**15 - 1) - amplitudes).max() < 0.012  # half a step of the companded axis at 0.5


def test_codes_of_another_alphabet_fill_the_same_range():
    _, found = wavfile.read(io.BytesIO(wav(np.array([0, 16], dtype=np.uint8), levels=17, sample_rate=RATE)))
    assert found.tolist() == [-(2**15 - 1), 2**15 - 1]


def test_the_first_sounds_of_a_cell_are_written_under_their_numbers(tmp_path):
    codes = mu_law.encode(np.stack([sine(100.0 * k, length=600) for k in range(1, NUM_SOUNDS + 4)]))
    paths = save_sounds(codes, tmp_path, levels=256, sample_rate=RATE)
    assert [path.name for path in paths][:2] == ["00.wav", "01.wav"]
    assert len(paths) == NUM_SOUNDS == len(list((tmp_path / "sounds").iterdir()))
    for row, path in zip(codes, paths, strict=False):
        assert len(wavfile.read(path)[1]) == len(row)


@pytest.mark.parametrize("hertz", [500.0, 1000.0, 3000.0])
def test_a_tone_is_a_dark_line_at_its_frequency_from_the_bottom(hertz):
    (picture,) = spectrograms(mu_law.encode(sine(hertz))[None], levels=256)
    assert picture.shape == (1, WINDOW // 2, COLUMNS)
    middle = picture[0, :, COLUMNS // 4 : 3 * COLUMNS // 4].astype(float).mean(1)
    row = int(middle.argmin())
    assert WINDOW // 2 - 1 - row == pytest.approx(hertz / RATE * WINDOW, abs=1.0)
    # half of full scale is 6 dB below black, of 70
    assert middle[row] == pytest.approx(255 * 6.02 / 70, abs=4.0)


def test_silence_is_white_and_a_beginning_is_on_the_left():
    quiet = np.zeros(2048)
    quiet[:1024] = sine(1000.0, length=1024)
    (picture,) = spectrograms(mu_law.encode(quiet)[None], levels=256)
    assert picture[0, :, :40].min() < 40
    assert picture[0, :, 60:].min() > 225


@pytest.mark.parametrize("codes", [np.zeros((2, 8)), np.zeros(8, dtype=np.uint8), np.zeros((2, 0), dtype=np.uint8)])
def test_what_is_no_waveform_is_refused(codes):
    with pytest.raises(ValueError, match="expected uint8 codes"):
        spectrograms(codes, levels=256)
