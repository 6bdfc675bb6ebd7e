import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError, SampleError, StaleStatistics
from genbench.core.features import build_features, save_statistics
from genbench.core.spec import parse_ref
from genbench.harness.evaluate import evaluate
from genbench.harness.reference import compute_statistics

REFERENCE = "shapes[resolution=8]"
FAST = ("frechet_distance", "kernel_distance", "precision_recall", "mode_coverage")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("GENBENCH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return build_dataset(parse_ref(REFERENCE)).load("test", range(200)).x


def _png_folder(path, images):
    path.mkdir(parents=True)
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(path / f"{index:04d}.png")
    return path


def _values(done):
    return {score.name: score.value for score in done.scores}


def test_arrays_folders_and_archives_of_the_same_pictures_get_the_same_scores(images, tmp_path):
    channels_last = images.permute(0, 2, 3, 1).contiguous().numpy()
    np.savez(tmp_path / "adm.npz", channels_last)
    np.save(tmp_path / "images.npy", channels_last)
    torch.save(images, tmp_path / "images.pt")
    folder = _png_folder(tmp_path / "folder", images)
    expected = _values(evaluate(images, REFERENCE, metrics=FAST, num_reference=500))
    for given in (channels_last, folder, tmp_path / "adm.npz", tmp_path / "images.npy", tmp_path / "images.pt"):
        found = _values(evaluate(given, REFERENCE, metrics=FAST, num_reference=500))
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6), (given, name)


def test_every_score_has_an_interval_that_holds_it(images):
    done = evaluate(images, REFERENCE, metrics=FAST, num_reference=500)
    assert len(done.scores) == 8
    for score in done.scores:
        assert score.ci95 is not None
        assert score.ci95[0] <= score.value <= score.ci95[1]
        assert score.interval != "none"


def test_a_metric_that_does_not_apply_says_why(images):
    done = evaluate(
        images, REFERENCE, metrics=("frechet_distance", "bits_per_dim", "inception_score"), num_reference=99
    )
    assert done.skipped["bits_per_dim"] == "samples alone have no likelihood"
    assert done.skipped["inception_score"] == "extractor `shapes_net` has no layer `logits`"


def test_other_pictures_under_the_same_name_are_looked_at_again(images, tmp_path):
    path = tmp_path / "same.npy"
    scores = []
    for part in (images, 255 - images):
        np.save(path, part.permute(0, 2, 3, 1).numpy())
        found = evaluate(path, REFERENCE, metrics=("frechet_distance",), num_reference=100)
        scores.append(found.score("fd_shapes_net").value)
    assert scores[1] > 2 * scores[0]


def test_the_cache_changes_no_number(images, cache):
    first = _values(evaluate(images, REFERENCE, metrics=FAST, num_reference=500))
    assert list((cache / "features").glob("*.npy"))
    assert _values(evaluate(images, REFERENCE, metrics=FAST, num_reference=500)) == first
    assert _values(evaluate(images, REFERENCE, metrics=FAST, num_reference=500, caching=False)) == first


def test_statistics_stand_in_for_pictures_on_either_side(images, tmp_path):
    folder = _png_folder(tmp_path / "samples", images)
    ref, extractor = parse_ref(f"folder:{folder}"), build_features(parse_ref("shapes_net"))
    dataset = build_dataset(ref)
    statistics = compute_statistics(ref, dataset, extractor, splits=dataset.splits)
    save_statistics(statistics, tmp_path / "samples_stats.npz")
    expected = evaluate(folder, REFERENCE, metrics=("frechet_distance",)).score("fd_shapes_net")
    found = evaluate(tmp_path / "samples_stats.npz", REFERENCE, metrics=("frechet_distance", "kernel_distance"))
    assert found.score("fd_shapes_net").value == pytest.approx(expected.value, rel=1e-9)
    assert found.skipped["kernel_distance"] == "only moments of the samples are known; give pictures or features"
    turned = evaluate(images, tmp_path / "samples_stats.npz", metrics=("frechet_distance",))
    assert turned.score("fd_shapes_net").value == pytest.approx(0.0, abs=1e-6)


def test_statistics_of_another_extractor_are_refused(images, tmp_path):
    ref, extractor = parse_ref(REFERENCE), build_features(parse_ref("shapes_net"))
    made = compute_statistics(ref, build_dataset(ref), extractor, num_examples=200)
    other = dataclasses.replace(made, protocol={**made.protocol, "sha256": "0123"})
    save_statistics(other, tmp_path / "other.npz")
    with pytest.raises(StaleStatistics, match="sha256"):
        evaluate(images, tmp_path / "other.npz", metrics=("frechet_distance",))


def test_moments_of_another_program_are_taken_for_those_of_the_extractor_that_is_named(images, tmp_path):
    ref, extractor = parse_ref(REFERENCE), build_features(parse_ref("shapes_net"))
    made = compute_statistics(ref, build_dataset(ref), extractor, num_examples=2000)
    np.savez(tmp_path / "plain.npz", mu=made.mean, sigma=made.covariance)
    save_statistics(made, tmp_path / "ours.npz")
    plain, ours = (
        evaluate(images, tmp_path / name, metrics=("frechet_distance",)).score("fd_shapes_net")
        for name in ("plain.npz", "ours.npz")
    )
    assert plain.value == pytest.approx(ours.value, rel=1e-12)
    assert plain.protocol["reference_identity"] == "not recorded"


def test_given_features_are_scored_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", rng.normal(size=(300, 5)) + 1.0)
    np.save(tmp_path / "b.npy", rng.normal(size=(400, 5)))
    done = evaluate(tmp_path / "a.npy", tmp_path / "b.npy", metrics=("frechet_distance",), features="given")
    assert done.score("fd_given").value == pytest.approx(5.0, rel=0.15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full((5, 3), np.nan), "5 of 5 rows hold NaN"),
        (np.zeros((5, 3, 2)), "expected features"),
        (np.zeros((5, 3), dtype=np.int64), "expected features"),
    ],
)
def test_broken_features_are_refused(given, message):
    with pytest.raises(SampleError, match=message):
        evaluate(given, np.ones((9, 3)), features="given")


@pytest.mark.parametrize(
    "given", [np.zeros((4, 8, 8, 3)), np.zeros((4, 5, 8, 8), dtype=np.uint8), np.zeros((4, 8, 8), dtype=np.uint8)]
)
def test_arrays_that_are_no_uint8_images_are_refused(given):
    with pytest.raises(SampleError, match="expected uint8 images"):
        evaluate(given, REFERENCE)


def test_pictures_of_another_size_are_refused(images):
    with pytest.raises(SampleError, match="the reference"):
        evaluate(images, "shapes[resolution=16]")


def test_a_path_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        evaluate(tmp_path / "nothing.npz", REFERENCE)


def test_captions_are_scored_and_must_be_as_many_as_samples(images):
    dataset = build_dataset(parse_ref(REFERENCE))
    batch = dataset.load("test", range(200))
    captions = [dataset.spec.caption(tokens) for tokens in batch.text]
    options = {"metrics": ("clip_score", "caption_accuracy"), "text_encoder": "shapes_clip"}
    done = evaluate(images, REFERENCE, captions=captions, **options)
    assert done.score("caption_accuracy").value > 0.95
    turned = evaluate(images, REFERENCE, captions=captions[::-1], **options)
    assert turned.score("clip_score").value < done.score("clip_score").value
    assert turned.score("caption_accuracy").value < 0.1
    with pytest.raises(SampleError, match="199 captions stand beside 200 samples"):
        evaluate(images, REFERENCE, captions=captions[:-1], **options)


def test_the_package_offers_evaluation_and_its_document_is_json(images):
    done = genbench.evaluate(images, REFERENCE, metrics=("frechet_distance",))
    document = json.loads(json.dumps(done.document()))
    assert document["schema"] == "genbench.evaluate/1"
    score = document["scores"]["fd_shapes_net"]
    assert {"value", "ci95", "kind", "better", "num_samples", "num_reference", "protocol"} <= set(score)
    assert score["protocol"]["extractor"] == "shapes_net"
