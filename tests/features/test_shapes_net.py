import json
import shutil

import numpy as np
import pytest
import torch

from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError
from genbench.core.features import FactorPredictions, FactorReader, build_features, extract, load_statistics
from genbench.core.metric import Evidence, FactorEvidence, FeatureEvidence, build_metric
from genbench.core.shipped import shipped
from genbench.core.spec import Ref, parse_ref
from genbench.features.shapes_net import SHIPPED, ShapesNet
from genbench.harness.controls import control_samples

METRICS = ("frechet_distance", "kernel_distance", "precision_recall", "mode_coverage")
CONTROLS = ("real", "blur", "jpeg", "mean_image", "noise")


@pytest.fixture(scope="module")
def extractor():
    return build_features(Ref(name="shapes_net"))


def _dataset(resolution):
    return build_dataset(parse_ref(f"shapes[resolution={resolution}]"))


def test_it_gives_64_finite_features_for_images_of_any_size(extractor):
    for side in (8, 16, 28, 32, 64):
        images = torch.randint(256, (3, 3, side, side), dtype=torch.uint8)
        features = extractor(images)
        assert features.shape == (3, extractor.num_features) == (3, 64)
        assert features.dtype == torch.float32
        assert features.isfinite().all()


def test_features_do_not_depend_on_the_batch_they_are_made_in(extractor):
    images = _dataset(16).load("test", range(40)).x
    torch.testing.assert_close(extract(extractor, images, batch_size=40), extract(extractor, images, batch_size=7))


def test_its_protocol_names_the_weights_that_ship(extractor):
    described = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert extractor.protocol()["sha256"] == described["sha256"][:16]
    assert extractor.protocol()["extractor"] == "shapes_net"
    assert SHIPPED.stat().st_size < 2**20


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_it_reads_every_factor_of_unseen_pictures(extractor, resolution):
    assert isinstance(extractor, FactorReader)
    dataset = _dataset(resolution)
    assert extractor.factors == dataset.spec.factors
    for split in ("test", "novel"):
        batch = dataset.load(split, range(5_000_000, 5_000_500))
        read = extractor.read_factors(batch.x)
        assert (read.values == batch.factors).double().mean(dim=0).min() > (0.99 if resolution > 8 else 0.98)
        assert (read.confidence > 0.5).double().mean() > 0.99


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
def test_it_is_unsure_of_noise_and_of_plain_colour(extractor, resolution):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (200, 3, resolution, resolution), generator=generator, dtype=torch.uint8)
    plain = torch.randint(256, (200, 3, 1, 1), generator=generator, dtype=torch.uint8).expand_as(noise)
    assert extractor.read_factors(noise).confidence.max() < 0.5
    assert (extractor.read_factors(plain).confidence < 0.5).double().mean() > 0.95


def _scores(extractor, resolution, control, num):
    dataset = _dataset(resolution)
    train, held_out = dataset.load("train", range(num)).x, dataset.load("test", range(num)).x
    samples = control_samples(control, held_out, train, dataset.spec, generator=torch.Generator().manual_seed(0))
    read = extractor.read_factors(samples)
    evidence = Evidence(
        features=FeatureEvidence(
            samples=extract(extractor, samples),
            reference=extract(extractor, train),
            statistics=load_statistics(shipped("reference_stats") / f"shapes-{resolution}" / "shapes_net-train.npz"),
            extractor="shapes_net",
            protocol=extractor.protocol(),
        ),
        factors=FactorEvidence(
            samples=FactorPredictions(read.values, read.confidence, read.factors),
            training=torch.from_numpy(dataset.combinations("train")),
        ),
    )
    found = [score for name in METRICS for score in build_metric(Ref(name=name)).compute(evidence)]
    return {score.name: score.value if score.better == "higher" else -score.value for score in found}


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [8, 16, 32])
def test_every_metric_puts_real_data_first_and_noise_last(extractor, resolution):
    table = {control: _scores(extractor, resolution, control, 512) for control in CONTROLS}
    for name, real in table["real"].items():
        damaged = [table[control][name] for control in ("blur", "jpeg")]
        mean_image, noise = table["mean_image"][name], table["noise"][name]
        readable = name in ("mode_coverage", "recognised")  # light damage leaves the factors as they were
        assert real > max(damaged) or (readable and real >= max(damaged) - 0.01), name
        assert min(damaged) > mean_image, name
        assert mean_image >= noise, name
    for name in ("fd_shapes_net", "kd_shapes_net"):
        assert table["noise"][name] < 1.5 * table["mean_image"][name], name


@pytest.mark.parametrize("resolution", [8, 16, 32])
@pytest.mark.parametrize("num", [64, 256])
def test_pictures_without_an_object_are_in_no_neighbourhood_of_few_real_ones(extractor, resolution, num):
    for control in ("mean_image", "noise"):
        found = _scores(extractor, resolution, control, num)
        for name in ("precision", "recall", "density", "coverage", "mode_coverage", "recognised"):
            assert found[name] == 0.0, (control, name)


def test_weights_that_do_not_match_their_description_are_refused(tmp_path):
    path = tmp_path / "shapes_net.safetensors"
    shutil.copy(SHIPPED.with_suffix(".json"), path.with_suffix(".json"))
    path.write_bytes(SHIPPED.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(DataError, match="SHA-256"):
        ShapesNet(ShapesNet.Config(weights=str(path)))


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(DataError, match="genbench features train shapes_net"):
        ShapesNet(ShapesNet.Config(weights=str(tmp_path / "shapes_net.safetensors")))


def test_a_copy_of_the_weights_gives_the_same_features(extractor, tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), tmp_path / f"copy{suffix}")
    copy = build_features(Ref(name="shapes_net", config={"weights": str(tmp_path / "copy.safetensors")}))
    images = _dataset(8).load("test", np.arange(5)).x
    assert torch.equal(copy(images), extractor(images))
