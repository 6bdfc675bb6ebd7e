"""Sounds in the harness: controls, a cell from beginning to end, what does not apply, how fast against real time."""

import numpy as np
import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.errors import SettingError
from genbench.core.features import build_features
from genbench.core.metric import build_metric
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation.networks import Networks, Roles
from genbench.evaluation.reference import compute_statistics
from genbench.harness.applicable import why_not
from genbench.harness.cell import run_cell
from genbench.harness.controls import control_samples
from genbench.plan import Selection, load_suite, make_plan
from genbench.prob import mu_law

TONES = build_dataset(parse_ref("tones[length=512]"))


@pytest.fixture(scope="module")
def networks():
    return Networks(Roles(features=Ref(name="tones_net")))


def _control(name, held_out):
    train = TONES.load("train", range(8)).x
    return control_samples(name, held_out, train, TONES.spec, generator=torch.Generator().manual_seed(0))


def test_blur_of_a_waveform_leaves_what_its_formula_says_of_each_frequency():
    """A Gaussian of standard deviation s leaves exp(-(2 pi f s)^2 / 2) of a sine."""
    for hertz in (250.0, 1000.0):
        sine = 0.7 * np.sin(2 * np.pi * hertz * np.arange(512) / 8000)
        found = mu_law.decode(_control("blur", torch.from_numpy(mu_law.encode(sine))[None, None]).numpy())[0, 0]
        left = np.sqrt(2 * (found[100:420] ** 2).mean()) / 0.7
        assert left == pytest.approx(np.exp(-0.5 * (2 * np.pi * hertz * 2.5e-4) ** 2), abs=0.01)


def test_other_controls_of_sounds_are_codes_and_those_of_images_are_refused():
    held_out = TONES.load("test", range(6)).x
    for name in ("real", "train_copy", "noise"):
        found = _control(name, held_out)
        assert (found.shape, found.dtype) == (held_out.shape, torch.uint8)
    for name in ("jpeg", "mean_image"):
        with pytest.raises(ValueError, match=f"`{name}` is of images"):
            _control(name, held_out)


def test_metrics_of_features_apply_where_the_extractor_looks_at_such_data(networks):
    pictures = build_dataset(parse_ref("shapes[resolution=8]"))
    metric = build_metric(Ref(name="frechet_distance"))
    assert why_not(metric, None, TONES, networks) is None
    assert why_not(metric, None, pictures, networks) == "features are of waveforms, the data are of kind `image`"
    of_images = Networks(Roles(features=Ref(name="shapes_net")))
    assert why_not(metric, None, TONES, of_images) == "features are of images, the data are of kind `waveform`"
    assert why_not(build_metric(Ref(name="mode_coverage")), None, TONES, networks) is None
    diversity = why_not(build_metric(Ref(name="lpips_diversity")), None, TONES, networks)
    assert diversity == "perceptual distances are of images, the data are of kind `waveform`"


def test_statistics_by_an_extractor_of_another_kind_are_refused():
    with pytest.raises(SettingError, match="looks at data of kind `image`, `tones` has kind `waveform`"):
        compute_statistics(Ref(name="tones"), TONES, build_features(Ref(name="shapes_net")), num_examples=4)


SUITE = """\
schema: genbench.suite/1
name: tiny_audio
version: 1
description: for tests
features: tones_net
metrics: [bits_per_dim, frechet_distance, class_accuracy, mode_coverage]
models: ["wavenet[condition=class,width=4,skip_width=8,layers_per_cycle=3]"]
controls: [real, blur]
tiers:
  smoke:
    dataset: tones[length=512]
    preset: smoke
    samples_seen: 64
    num_samples: 16
    num_reference: 70
    num_likelihood: 16
    train_size: 64
    timing: {warmup_steps: 1, min_block_seconds: 0.01, latency_requests: 2}
"""


@pytest.mark.slow
def test_a_cell_of_sounds_is_scored_timed_and_kept_with_its_sample_rate(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SUITE)
    model, *controls = make_plan(load_suite(str(tmp_path / "tiny.yaml")), Selection(), version="1").cells
    record = run_cell(model, tmp_path, weights_folder=None, report=lambda phase, progress: None)
    assert (record.status, record.skipped) == ("ok", {}), record.error
    names = [score.name for score in record.scores]
    assert names == ["bits_per_dim", "fd_tones_net", "class_accuracy", "mode_coverage", "recognised"]
    assert 0 < record.score("bits_per_dim").value < 9
    factor, latency = record.timing.real_time_factor, record.timing.latency_seconds
    assert factor.median == pytest.approx(latency.median / 0.064)
    with np.load(tmp_path / "samples.npz") as kept:
        assert (int(kept["sample_rate"]), kept["samples"].shape) == (8000, (16, 1, 512))
    for cell in controls:
        done = run_cell(cell, tmp_path, weights_folder=None, report=lambda phase, progress: None)
        assert done.status == "ok", done.error
        assert done.timing.real_time_factor is None
