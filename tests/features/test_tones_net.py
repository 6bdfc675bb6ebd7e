"""The shipped extractor of sounds: what it reads, what it is unsure of, and the order of the controls."""

import json
import shutil

import numpy as np
import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError
from genbench.core.features import FactorReader, build_features, extract
from genbench.core.metric import Evidence, FactorEvidence, FeatureEvidence, build_metric
from genbench.core.spec import Ref, parse_ref
from genbench.features.tones_net import HOP, SHIPPED, WINDOW, TonesNet
from genbench.harness.controls import control_samples
from genbench.prob import mu_law

LENGTHS = (512, 1024, 2048, 4096)


@pytest.fixture(scope="module")
def extractor():
    return build_features(Ref(name="tones_net"))


def _dataset(length):
    return build_dataset(parse_ref(f"tones[length={length}]"))


def test_it_gives_64_finite_features_for_sounds_of_any_length(extractor):
    assert extractor.kind == "waveform"
    for length in (512, 1000, 4096, 8192):
        features = extractor(torch.randint(256, (3, 1, length), dtype=torch.uint8))
        assert features.shape == (3, extractor.num_features) == (3, 64)
        assert features.dtype == torch.float32
        assert features.isfinite().all()
        assert features.min() >= 0


def test_features_do_not_depend_on_the_batch_they_are_made_in(extractor):
    sounds = _dataset(1024).load("test", range(40)).x
    torch.testing.assert_close(extract(extractor, sounds, batch_size=40), extract(extractor, sounds, batch_size=7))


def test_the_spectrogram_of_a_full_sine_is_one_at_its_frequency_and_silence_is_low(extractor):
    bins = 40
    sine = np.sin(2 * np.pi * bins / WINDOW * np.arange(2048))
    codes = torch.from_numpy(mu_law.encode(np.stack([sine, np.zeros(2048)])))[:, None]
    found = extractor.network.spectrogram(codes)
    assert found.shape == (2, WINDOW // 2 + 1, 2048 // HOP + 1)
    assert found[0, :, 8].argmax() == bins
    assert found[0, bins, 8].item() == pytest.approx(1.0, abs=0.005)
    quiet = found[1, :, 2:-2]  # columns whose window does not reach over the ends
    assert quiet[2:].max() == -1.0
    # the code of silence is an amplitude of 9e-5, and of a constant the lowest column has twice the share of a sine
    level = 2.0 * mu_law.decode(np.array([128]))[0]
    assert quiet[0, 4].item() == pytest.approx(1.0 + 0.4 * np.log10(level), abs=1e-3)


def test_its_protocol_names_the_weights_that_ship(extractor):
    described = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert extractor.protocol()["sha256"] == described["sha256"][:16]
    assert extractor.protocol()["extractor"] == "tones_net"
    assert extractor.protocol()["sample_rate"] == 8000
    assert SHIPPED.stat().st_size < 2**20


@pytest.mark.parametrize("length", LENGTHS)
def test_it_reads_every_factor_of_unseen_notes(extractor, length):
    assert isinstance(extractor, FactorReader)
    dataset = _dataset(length)
    assert extractor.factors == dataset.spec.factors
    for split in ("test", "novel"):
        batch = dataset.load(split, range(5_000_000, 5_000_400))
        read = extractor.read_factors(batch.x)
        assert (read.values == batch.factors).double().mean(dim=0).min() > 0.97
        assert (read.confidence > 0.5).double().mean() > 0.95


@pytest.mark.parametrize("length", LENGTHS)
def test_it_is_unsure_of_noise_and_of_silence(extractor, length):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (200, 1, length), generator=generator, dtype=torch.uint8)
    silence = torch.randint(118, 138, (200, 1, length), generator=generator, dtype=torch.uint8)
    for sounds in (noise, silence):
        assert (extractor.read_factors(sounds).confidence < 0.5).double().mean() > 0.95


def _scores(extractor, length, control, num):
    dataset = _dataset(length)
    train, held_out = dataset.load("train", range(num)).x, dataset.load("test", range(num)).x
    samples = control_samples(control, held_out, train, dataset.spec, generator=torch.Generator().manual_seed(0))
    evidence = Evidence(
        features=FeatureEvidence(
            samples=extract(extractor, samples),
            reference=extract(extractor, dataset.load("train", range(num, 3 * num)).x),
            statistics=None,
            extractor="tones_net",
            protocol=extractor.protocol(),
        ),
        factors=FactorEvidence(
            samples=extractor.read_factors(samples), training=torch.from_numpy(dataset.combinations("train"))
        ),
    )
    names = ("frechet_distance", "kernel_distance", "precision_recall", "mode_coverage")
    found = [score for name in names for score in build_metric(Ref(name=name)).compute(evidence)]
    return {score.name: score.value if score.better == "higher" else -score.value for score in found}


@pytest.mark.slow
@pytest.mark.parametrize("length", [512, 2048])
def test_every_metric_puts_real_sounds_first_and_noise_last(extractor, length):
    table = {control: _scores(extractor, length, control, 400) for control in ("real", "blur", "noise")}
    assert "fd_tones_net" in table["real"]
    for name, real in table["real"].items():
        assert real >= table["blur"][name] - 0.01, name
        assert table["blur"][name] >= table["noise"][name], name
    for name in ("fd_tones_net", "kd_tones_net"):
        assert table["real"][name] > table["blur"][name] > table["noise"][name]


def test_weights_that_do_not_match_their_description_are_refused(tmp_path):
    path = tmp_path / "tones_net.safetensors"
    shutil.copy(SHIPPED.with_suffix(".json"), path.with_suffix(".json"))
    path.write_bytes(SHIPPED.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DataError, match="SHA-256"):
        TonesNet(TonesNet.Config(weights=str(path)))


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match="genbench features train tones_net"):
        TonesNet(TonesNet.Config(weights=str(tmp_path / "tones_net.safetensors")))
