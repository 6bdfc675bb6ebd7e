"""Statistics files, ours and others', good and bad."""

import json
import pickle

import numpy as np
import pytest

from genbench.core.errors import DataError, StaleStatistics
from genbench.core.features import Statistics, load_statistics, save_statistics
from genbench.core.statistics import check_comparable, read_statistics

INCEPTION = {"extractor": "inception_v3", "resize": "tf1"}


@pytest.fixture
def moments():
    rows = np.random.default_rng(0).normal(size=(50, 5))
    return rows.mean(axis=0), np.cov(rows, rowvar=False)


@pytest.fixture
def ours(moments):
    protocol = {"extractor": "inception_v3", "sha256": "ab" * 8, "resize": "tf1", "quantised": True, "dtype": "float32"}
    return Statistics(*moments, 50, protocol, "cifar10", "train", "f" * 16)


def test_our_file_comes_back_as_it_was(tmp_path, ours):
    save_statistics(ours, tmp_path / "a.npz")
    for read in (load_statistics, read_statistics):
        found = read(tmp_path / "a.npz")
        assert found.sha256 == ours.sha256
        assert (found.num_samples, found.protocol, found.dataset) == (50, ours.protocol, "cifar10")


def test_our_file_says_what_made_it_wherever_it_goes(tmp_path, ours):
    save_statistics(ours, tmp_path / "a.npz")
    moved = tmp_path / "elsewhere" / "b.npz"
    moved.parent.mkdir()
    moved.write_bytes((tmp_path / "a.npz").read_bytes())
    found = read_statistics(moved, assume={"extractor": "clip"})
    assert found.protocol == ours.protocol
    assert (found.sha256, found.num_samples) == (ours.sha256, 50)


def test_moments_that_are_not_those_described_inside_are_refused(tmp_path, ours):
    save_statistics(ours, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        np.savez(tmp_path / "b.npz", **{**arrays, "mu": arrays["mu"] + 1.0})
    with pytest.raises(StaleStatistics, match="moments do not match"):
        read_statistics(tmp_path / "b.npz")


def test_a_file_of_another_kind_is_not_overwritten(tmp_path, ours):
    (tmp_path / "a.json").write_text('{"precious": 1}')
    with pytest.raises(DataError, match="would be overwritten"):
        save_statistics(ours, tmp_path / "a.npz")
    assert (tmp_path / "a.json").read_text() == '{"precious": 1}'
    assert not (tmp_path / "a.npz").exists()
    (tmp_path / "a.json").unlink()
    save_statistics(ours, tmp_path / "a.npz")
    save_statistics(ours, tmp_path / "a.npz")  # its own may be renewed


def test_our_file_is_refused_once_a_byte_or_its_description_is_changed(tmp_path, ours):
    path = tmp_path / "a.npz"
    save_statistics(ours, path)
    payload = bytearray(path.read_bytes())
    payload[200] ^= 1
    path.write_bytes(payload)
    with pytest.raises(StaleStatistics, match="SHA-256"):
        read_statistics(path)
    for text in ("[]", "{", json.dumps({"schema": "other/1"})):
        path.with_suffix(".json").write_text(text)
        with pytest.raises(StaleStatistics):
            read_statistics(path)


def test_files_of_other_programs_are_read_once_someone_says_what_made_them(tmp_path, moments):
    np.savez(tmp_path / "fid.npz", mu=moments[0], sigma=moments[1])
    found = read_statistics(tmp_path / "fid.npz", assume=INCEPTION)
    np.testing.assert_array_equal(found.mean, moments[0])
    np.testing.assert_allclose(found.covariance, moments[1], rtol=1e-15)
    assert found.num_samples == 0
    assert found.protocol == {**INCEPTION, "identity": "not recorded"}
    for assume in (None, {"resize": "tf1"}):
        with pytest.raises(StaleStatistics, match="which extractor made it"):
            read_statistics(tmp_path / "fid.npz", assume=assume)


def test_a_file_with_pictures_and_two_layers_gives_either_layer(tmp_path, moments):
    mean, covariance = moments
    pictures = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "adm.npz", arr_0=pictures, mu=mean, sigma=covariance, mu_s=mean[:3], sigma_s=np.eye(3))
    spatial = read_statistics(tmp_path / "adm.npz", assume=INCEPTION, layer="spatial")
    assert spatial.covariance.shape == (3, 3)
    assert spatial.protocol["layer"] == "spatial"
    assert read_statistics(tmp_path / "adm.npz", assume=INCEPTION).mean.shape == (5,)
    np.savez(tmp_path / "edm.npz", mu=mean, sigma=covariance)
    with pytest.raises(StaleStatistics, match="has no `mu_s`, `sigma_s` but mu, sigma"):
        read_statistics(tmp_path / "edm.npz", assume=INCEPTION, layer="spatial")


def test_population_covariance_is_converted_where_the_count_is_known(tmp_path, moments):
    np.savez(tmp_path / "a.npz", mu=moments[0], sigma=moments[1] * (49 / 50))
    found = read_statistics(tmp_path / "a.npz", assume={**INCEPTION, "ddof": 0, "num_samples": 50})
    np.testing.assert_allclose(found.covariance, moments[1], rtol=1e-14)
    assert found.num_samples == 50
    assert "ddof" not in found.protocol
    with pytest.raises(DataError, match="num_samples"):
        read_statistics(tmp_path / "a.npz", assume={**INCEPTION, "ddof": 0})


def test_single_precision_files_are_symmetric_in_double(tmp_path):
    rows = np.random.default_rng(1).normal(size=(40, 30)).astype(np.float32)
    sigma = np.cov(rows, rowvar=False).astype(np.float32)
    sigma[2, 3] *= 1 + 1e-7
    np.savez(tmp_path / "a.npz", mu=rows.mean(0), sigma=sigma)
    found = read_statistics(tmp_path / "a.npz", assume=INCEPTION)
    assert found.covariance.dtype == np.float64
    np.testing.assert_array_equal(found.covariance, found.covariance.T)


def test_pickles_are_refused_unread(tmp_path):
    (tmp_path / "edm2.pkl").write_bytes(pickle.dumps({"mu": 0}))
    with pytest.raises(StaleStatistics, match="pickle runs code"):
        read_statistics(tmp_path / "edm2.pkl", assume=INCEPTION)
    np.savez(tmp_path / "a.npz", mu=np.array([{"a": 1}], dtype=object), sigma=np.eye(1))
    with pytest.raises(StaleStatistics, match="cannot be read"):
        read_statistics(tmp_path / "a.npz", assume=INCEPTION)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read"), (b"PK\x03\x04 and then nothing", "cannot be read"), (None, "cannot be read")],
    ids=["empty", "cut short", "missing"],
)
def test_files_that_are_no_archive_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(StaleStatistics, match=message):
        read_statistics(tmp_path / "a.npz", assume=INCEPTION)


def test_a_truncated_or_flipped_archive_is_refused(tmp_path, moments):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, mu=moments[0], sigma=moments[1])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StaleStatistics, match="cannot be read"):
        read_statistics(path, assume=INCEPTION)
    path.write_bytes(whole[:120] + bytes(40) + whole[160:])
    with pytest.raises(StaleStatistics, match="cannot be read"):
        read_statistics(path, assume=INCEPTION)


def test_a_lone_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    with pytest.raises(StaleStatistics, match="single array"):
        read_statistics(tmp_path / "a.npy", assume=INCEPTION)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        (np.zeros(3), np.full((3, 3), np.nan), "NaN"),
        (np.array([0.0, np.inf, 0.0]), np.eye(3), "NaN or infinity"),
        (np.zeros(3), np.eye(4), "shape"),
        (np.zeros((3, 1)), np.eye(3), "shape"),
        (np.zeros(3), np.zeros((3, 4)), "shape"),
        (np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]), "negative eigenvalues"),
        (np.zeros(2), -np.eye(2), "negative eigenvalues"),
        (np.zeros(2, dtype=int), np.eye(2), "expected floats"),
    ],
)
def test_numbers_that_are_no_mean_and_covariance_are_refused(tmp_path, mean, covariance, message):
    np.savez(tmp_path / "a.npz", mu=mean, sigma=covariance)
    with pytest.raises(DataError, match=message):
        read_statistics(tmp_path / "a.npz", assume=INCEPTION)


def test_a_singular_covariance_is_welcome(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.ones((2, 2)))
    np.savez(tmp_path / "b.npz", mu=np.zeros(2), sigma=np.zeros((2, 2)))
    assert read_statistics(tmp_path / "a.npz", assume=INCEPTION).covariance.sum() == 4.0
    assert read_statistics(tmp_path / "b.npz", assume=INCEPTION).covariance.sum() == 0.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sha256", "cd" * 8),
        ("resize", "clean"),
        ("quantised", False),
        ("dtype", "float16"),
        ("extractor", "clip"),
        ("layer", "spatial"),
    ],
)
def test_statistics_made_in_another_way_are_refused_and_the_difference_named(ours, key, value):
    with pytest.raises(StaleStatistics, match=rf"{key} `.*` against `{value}`"):
        check_comparable(ours, {**ours.protocol, key: value})


def test_statistics_of_the_same_make_are_accepted_and_counts_only_compared_on_demand(ours):
    check_comparable(ours, ours.protocol, num_features=5)
    with pytest.raises(StaleStatistics, match="num_features `5` against `2048`"):
        check_comparable(ours, ours.protocol, num_features=2048)
    with pytest.raises(StaleStatistics, match="num_samples `50` against `100`"):
        check_comparable(ours, ours.protocol, num_samples=100)


def test_a_file_without_identity_is_held_to_what_was_said_of_it(tmp_path, ours):
    np.savez(tmp_path / "a.npz", mu=ours.mean, sigma=ours.covariance)
    found = read_statistics(tmp_path / "a.npz", assume=INCEPTION)
    check_comparable(found, ours.protocol)
    with pytest.raises(StaleStatistics, match="resize `tf1` against `clean`"):
        check_comparable(found, {**ours.protocol, "resize": "clean"})
