import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genbench
from genbench.core.dataset import build_dataset
from genbench.core.errors import DataError, SampleError, SettingError, StaleStatistics
from genbench.core.features import build_features, save_statistics
from genbench.core.spec import Ref, parse_ref
from genbench.evaluation.evaluate import by_reason, chosen_metrics, evaluate
from genbench.evaluation.reference import compute_statistics

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


@pytest.mark.parametrize("role", ["samples", "reference", "held_out", "originals"])
def test_what_is_of_no_type_that_samples_have_is_refused_without_its_values(role, images):
    given = {"samples": images, "reference": REFERENCE, role: [np.full((8, 8, 3), 77)] * 3}
    with pytest.raises(SampleError, match=rf"`{role}` is a list of 3, expected a path") as caught:
        evaluate(**given)
    assert "77" not in str(caught.value)
    assert "np.stack" in caught.value.hint


@pytest.mark.parametrize("given", [None, 3, b"folder"])
def test_no_samples_and_samples_that_are_no_data_are_refused(given):
    with pytest.raises(SampleError, match=f"`samples` is a {type(given).__name__}, expected"):
        evaluate(given, REFERENCE)


def test_metrics_in_one_text_are_those_of_the_list():
    listed = chosen_metrics(["frechet_distance", "precision_recall[k=3]"])
    assert list(chosen_metrics("frechet_distance, precision_recall[k=3]")) == list(listed)
    assert list(chosen_metrics("all")) == list(chosen_metrics(("all",)))


@pytest.mark.parametrize("metrics", ["", ",", (), []])
def test_no_metric_at_all_is_an_error(metrics, images):
    with pytest.raises(SettingError, match="no metric was named") as caught:
        evaluate(images, REFERENCE, metrics=metrics)
    assert "frechet_distance" in caught.value.hint


def test_one_reason_of_several_metrics_stands_once_before_them():
    skipped = {"bits_per_dim": "no likelihood", "codebook_usage": "no codes", "exact_kl": "no likelihood"}
    assert by_reason(skipped) == {"no likelihood": ["bits_per_dim", "exact_kl"], "no codes": ["codebook_usage"]}


def test_features_are_not_called_pictures_in_the_reasons():
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    done = evaluate(x[:30], x[30:], features="given", metrics="frechet_distance,codebook_usage,mig")
    assert done.skipped["codebook_usage"] == "the samples are features, not codes"
    assert all("are pictures" not in reason for reason in done.skipped.values())


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


def _reference_batch(path, images, *, num_moments=500, width=64):
    """As guided diffusion writes it: moments of many training pictures, and some of them."""
    ref, extractor = parse_ref(REFERENCE), build_features(parse_ref("shapes_net"))
    made = compute_statistics(ref, build_dataset(ref), extractor, num_examples=num_moments)
    moments = {"mu": made.mean[:width], "sigma": made.covariance[:width, :width]}
    pictures = images.permute(0, 2, 3, 1).numpy()
    np.savez(path / "both.npz", arr_0=pictures, **moments)
    np.savez(path / "moments.npz", **moments)
    np.savez(path / "pictures.npz", arr_0=pictures)


def test_a_reference_batch_gives_its_moments_to_the_frechet_distance_and_its_pictures_to_the_others(images, tmp_path):
    train = build_dataset(parse_ref(REFERENCE)).load("train", range(150)).x
    _reference_batch(tmp_path, train)
    both, moments, pictures = (
        evaluate(images, tmp_path / f"{name}.npz", metrics=FAST[:3]) for name in ("both", "moments", "pictures")
    )
    distance = both.score("fd_shapes_net")
    assert distance.value == moments.score("fd_shapes_net").value != pictures.score("fd_shapes_net").value
    assert distance.num_reference in (None, 0)  # the file does not say of how many its moments are
    assert distance.protocol["reference_identity"] == "not recorded"
    others = {name: value for name, value in _values(pictures).items() if name != "fd_shapes_net"}
    assert {name: value for name, value in _values(both).items() if name != "fd_shapes_net"} == others
    assert both.score("precision").num_reference == 150
    assert "kernel_distance" in moments.skipped
    assert not both.skipped
    assert both.warnings == pictures.warnings


def test_moments_alone_are_asked_of_a_reference_batch_without_a_look_at_its_pictures(images, tmp_path):
    _reference_batch(tmp_path, images)
    looked = []
    evaluate(images, tmp_path / "both.npz", metrics=FAST[:1], tell=lambda what, *_: looked.append(what))
    assert set(looked) == {"samples"}


def test_moments_of_another_network_beside_pictures_are_not_used_and_that_is_said(images, tmp_path):
    _reference_batch(tmp_path, images, width=32)
    done = evaluate(images, tmp_path / "both.npz", metrics=FAST[:2])
    plain = evaluate(images, tmp_path / "pictures.npz", metrics=FAST[:2])
    assert _values(done) == _values(plain)
    (said,) = set(done.warnings) - set(plain.warnings)
    assert "are of 32 features and `shapes_net` has 64" in said


def test_a_reference_batch_as_samples_is_its_pictures(images, tmp_path):
    _reference_batch(tmp_path, images)
    done = evaluate(tmp_path / "both.npz", REFERENCE, metrics=FAST[:2], num_reference=500)
    assert _values(done) == _values(evaluate(tmp_path / "pictures.npz", REFERENCE, metrics=FAST[:2], num_reference=500))
    assert any("the moments in" in warning for warning in done.warnings)


def test_given_features_meet_moments_that_were_given(tmp_path):
    rng = np.random.default_rng(0)
    x, mu, root = rng.normal(size=(500, 4)), rng.normal(size=4), rng.normal(size=(4, 4))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "moments.npz", mu=mu, sigma=root @ root.T)
    done = evaluate(tmp_path / "x.npy", tmp_path / "moments.npz", metrics=("frechet_distance",), features="given")
    product = np.cov(x, rowvar=False) @ (root @ root.T)
    expected = (
        ((x.mean(axis=0) - mu) ** 2).sum()
        + np.trace(np.cov(x, rowvar=False))
        + np.trace(root @ root.T)
        - 2.0 * np.sqrt(np.linalg.eigvals(product).real).sum()
    )
    assert done.score("fd_given").value == pytest.approx(expected, rel=1e-9)


def test_a_mistake_in_a_network_that_was_named_is_an_error_and_missing_weights_are_a_reason(
    images, tmp_path, monkeypatch
):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "nothing.pth"))
    options = {"metrics": ("kernel_distance", "clip_score"), "captions": ["a red circle"] * 200, "num_reference": 100}
    with pytest.raises(SettingError, match="no model `no_such_model`"):
        evaluate(images, REFERENCE, text_encoder="clip[model=no_such_model]", **options)
    for text_encoder in (None, "clip"):
        done = evaluate(images, REFERENCE, text_encoder=text_encoder, **options)
        assert "nothing.pth" in done.skipped["clip_score"]
        assert "kd_shapes_net" in _values(done)


def test_what_is_odd_is_said_of_samples_that_were_scored_before(images):
    odd = images.clone()
    odd[3], odd[4] = 9, odd[5]
    first, again = (evaluate(odd, REFERENCE, metrics=("kernel_distance",), num_reference=100) for _ in range(2))
    assert "1 of 200 samples are of one value throughout" in first.warnings
    assert again.warnings == first.warnings


def test_folders_named_for_classes_are_the_classes_that_were_asked_for(tmp_path):
    batch = build_dataset(parse_ref(REFERENCE)).load("test", range(200))
    done = evaluate(_class_folder(tmp_path, batch), REFERENCE, metrics=("class_accuracy",), num_reference=100)
    assert done.score("class_accuracy").value > 0.95


def _class_folder(path, batch):
    """A folder for each class, named so that their order is that of the classes."""
    for index, (image, label) in enumerate(zip(batch.x.permute(0, 2, 3, 1).numpy(), batch.y.tolist(), strict=True)):
        place = path / "drawn" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index:04d}.png")
    return path / "drawn"


def test_a_reference_known_by_its_moments_is_enough_for_what_looks_at_samples_alone(images, tmp_path):
    np.savez(tmp_path / "moments.npz", mu=np.zeros(64), sigma=np.eye(64))
    found = evaluate(images, tmp_path / "moments.npz", metrics=("vendi_score",)).score("vendi_shapes_net")
    assert found.value == evaluate(images, images, metrics=("vendi_score",)).score("vendi_shapes_net").value


@pytest.mark.slow
def test_moments_of_the_spatial_layer_are_those_of_the_reference_batch(images, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "features"))
    from random_inception import write_random_inception

    weights = write_random_inception(tmp_path / "random.pth")
    rng = np.random.default_rng(0)
    mu, mu_s = rng.normal(size=2048), rng.normal(size=2023)
    moments = {"mu": mu, "sigma": np.eye(2048), "mu_s": mu_s, "sigma_s": np.eye(2023)}
    np.savez(tmp_path / "adm.npz", arr_0=images[:8].permute(0, 2, 3, 1).numpy(), **moments)
    looked = []
    done = evaluate(
        images[:16],
        tmp_path / "adm.npz",
        metrics=("spatial_frechet_distance", "frechet_distance"),
        features=f"inception_v3[weights={weights}]",
        tell=lambda what, *_: looked.append(what),
    )
    extractor = build_features(Ref(name="inception_v3", config={"weights": str(weights)}))
    with torch.no_grad():
        layers = extractor.outputs(images[:16], ("features", "spatial"))
    for name, layer, mean in (("fid", "features", mu), ("sfid", "spatial", mu_s)):
        x = layers[layer].double().numpy()
        centred = x - x.mean(axis=0)
        roots = np.sqrt(np.linalg.eigvalsh(centred @ centred.T / 15).clip(0.0))  # sigma is the identity
        expected = ((x.mean(axis=0) - mean) ** 2).sum() + (roots**2).sum() + len(mean) - 2.0 * roots.sum()
        assert done.score(name).value == pytest.approx(expected, rel=1e-6)
    assert set(looked) == {"samples"}
