"""The samples nearest to training data, through `evaluate`: who they are, how far, and what stands beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.dataset import build_dataset
from genbench.core.errors import SampleError
from genbench.core.spec import parse_ref
from genbench.evaluation.evaluate import evaluate
from genbench.evaluation.nearest import NUM_NEIGHBOURS, NUM_SHOWN

METRIC = ("frechet_distance",)
COPIES = {5: 7, 31: 0, 59: 119}
"""Sample -> the training picture that it is."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def pictures():
    shapes = build_dataset(parse_ref("shapes[resolution=8]"))
    train, drawn = shapes.load("train", range(120)).x, shapes.load("test", range(60)).x
    drawn[list(COPIES)] = train[list(COPIES.values())]
    return train, drawn, shapes.load("test", range(5000, 5080)).x


def _folder(path, images, *, first=0):
    path.mkdir(parents=True)
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy(), start=first):
        Image.fromarray(image).save(path / f"{index:04d}.png")
    return path


def test_planted_copies_come_first_with_the_training_pictures_that_they_are(pictures, tmp_path):
    train, drawn, held = pictures
    reference, samples = _folder(tmp_path / "train", train), _folder(tmp_path / "drawn", drawn)
    found = evaluate(samples, reference, metrics=METRIC, held_out=held, num_nearest=40).nearest
    first = {row.sample: row.neighbours[0].reference for row in found.rows[:3]}
    assert first == {f"{copy:04d}.png": f"{original:04d}.png" for copy, original in COPIES.items()}
    assert all(row.distance == pytest.approx(0.0, abs=1e-4) for row in found.rows[:3])
    assert found.rows[3].distance > 1e-2
    assert (found.num_samples, found.num_reference, found.num_held_out) == (60, 120, 80)


def test_rows_are_in_order_and_distances_those_of_all_pairs():
    rng = np.random.default_rng(0)
    x, y, held = rng.normal(size=(50, 6)), rng.normal(size=(70, 6)), rng.normal(size=(30, 6))
    found = evaluate(x, y, metrics=METRIC, features="given", held_out=held, num_nearest=20).nearest
    pairs = np.linalg.norm(x[:, None] - y[None], axis=2)
    order = np.argsort(pairs.min(axis=1))[:20]
    assert [int(row.sample) for row in found.rows] == order.tolist()
    for row, place in zip(found.rows, order, strict=True):
        near = np.argsort(pairs[place])[:NUM_NEIGHBOURS]
        assert [int(neighbour.reference) for neighbour in row.neighbours] == near.tolist()
        np.testing.assert_allclose([one.distance for one in row.neighbours], pairs[place][near], rtol=1e-12)
        assert row.held_out_distance == pytest.approx(np.linalg.norm(x[place] - held, axis=1).min(), rel=1e-12)
    assert found.sample_images is None
    assert found.reference_images is None


def test_pictures_are_those_of_the_rows_and_of_their_neighbours(pictures, tmp_path):
    train, drawn, _ = pictures
    reference = _folder(tmp_path / "train", train)
    found = evaluate(drawn, reference, metrics=METRIC, num_nearest=30).nearest
    assert found.sample_images.shape == (NUM_SHOWN, 3, 8, 8)
    assert found.reference_images.shape == (NUM_SHOWN, NUM_NEIGHBOURS, 3, 8, 8)
    for row, sample, neighbours in zip(found.rows, found.sample_images, found.reference_images, strict=False):
        assert torch.equal(sample, drawn[int(row.sample.removeprefix("train/"))])
        for neighbour, picture in zip(row.neighbours, neighbours, strict=True):
            assert torch.equal(picture, train[int(neighbour.reference.removesuffix(".png"))])
    assert all(row.held_out_distance is None for row in found.rows)


def test_every_training_picture_is_looked_at_however_few_stand_behind_the_metrics(pictures, tmp_path):
    train, drawn, _ = pictures
    reference = _folder(tmp_path / "train", train)
    found = evaluate(drawn, reference, metrics=METRIC, num_reference=10, num_nearest=3).nearest
    assert found.num_reference == 120
    assert {int(row.neighbours[0].reference.removesuffix(".png")) for row in found.rows} == set(COPIES.values())


def test_a_reference_by_name_brings_its_held_out_split(pictures):
    _, drawn, _ = pictures
    found = evaluate(drawn, "shapes[resolution=8]", metrics=METRIC, num_reference=120, num_nearest=5).nearest
    assert {row.neighbours[0].reference for row in found.rows[:3]} == {"train/7", "train/0", "train/119"}
    assert found.num_held_out == 120
    assert all(row.held_out_distance > row.distance for row in found.rows[:3])


def test_fewer_training_pictures_than_neighbours_are_all_of_them():
    rng = np.random.default_rng(0)
    found = evaluate(rng.normal(size=(9, 2)), rng.normal(size=(3, 2)), metrics=METRIC, features="given", num_nearest=99)
    assert [len(row.neighbours) for row in found.nearest.rows] == [3] * 9


def test_nothing_is_listed_unless_asked():
    rng = np.random.default_rng(0)
    assert evaluate(rng.normal(size=(9, 2)), rng.normal(size=(9, 2)), metrics=METRIC, features="given").nearest is None


def test_moments_alone_cannot_say_what_is_near(pictures, tmp_path):
    np.savez(tmp_path / "moments.npz", mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(SampleError, match="cannot be listed: only moments of the reference are known"):
        evaluate(pictures[1], tmp_path / "moments.npz", metrics=METRIC, num_nearest=3)


def test_held_out_data_known_by_moments_alone_leave_the_column_empty(pictures, tmp_path):
    np.savez(tmp_path / "moments.npz", mu=np.zeros(64), sigma=np.eye(64))
    train, drawn, _ = pictures
    done = evaluate(drawn, train, metrics=METRIC, held_out=tmp_path / "moments.npz", num_nearest=3)
    assert [row.held_out_distance for row in done.nearest.rows] == [None] * 3


def test_the_document_says_of_how_many_and_how(pictures):
    train, drawn, held = pictures
    document = evaluate(drawn, train, metrics=METRIC, held_out=held, num_nearest=2).nearest.document()
    assert document["schema"] == "genbench.nearest/1"
    assert document["num_reference"] == 120
    assert document["protocol"]["extractor"] == "shapes_net"
    assert [row["distance"] for row in document["rows"]] == [
        row["neighbours"][0]["distance"] for row in document["rows"]
    ]
