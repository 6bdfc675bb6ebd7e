"""Agreement with torch-fidelity and pytorch-fid on one randomly initialised file: no download, same network."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from genbench.core.errors import DataError, SettingError
from genbench.core.features import build_features, extract
from genbench.core.spec import Ref
from genbench.features.inception_v3 import FILENAMES, URL

sys.path.insert(0, str(Path(__file__).parent))
from random_inception import write_random_inception

LAYERS = ("features", "spatial", "logits")
LENGTHS = {"features": 2048, "spatial": 2023, "logits": 1008}
FLOAT32_NORM = 5e-5  # relative; torch-fidelity's own float32 is 1.3e-5 from float64 on these weights and pictures


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return write_random_inception(tmp_path_factory.mktemp("inception") / "random.pth")


@pytest.fixture(scope="module")
def built(weights):
    """Extractors by their settings, built once."""
    made = {}

    def build(**config):
        key = tuple(sorted(config.items()))
        if key not in made:
            made[key] = build_features(Ref(name="inception_v3", config={"weights": str(weights), **config}))
        return made[key]

    return build


@pytest.fixture(scope="module")
def peer(weights):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    return module.FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )


def _pictures(num, side=32, seed=0):
    """Noise of every roughness, so that features differ."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, max(2, side // 8), max(2, side // 8), generator=generator)
    fine = torch.rand(num, 3, side, side, generator=generator)
    share = torch.rand(num, 1, 1, 1, generator=generator)
    mixed = share * torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear") + (1 - share) * fine
    return (mixed * 255).round().to(torch.uint8)


def _norm_error(found, expected):
    """Largest over pictures of |found - expected| / |expected|."""
    found, expected = found.double(), expected.double()
    return ((found - expected).norm(dim=1) / expected.norm(dim=1)).max().item()


@contextlib.contextmanager
def _threads(num):
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_missing_weights_name_the_address_and_are_no_other_network(tmp_path, monkeypatch):
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    with (
        mock.patch("urllib.request.urlopen", side_effect=OSError("offline")),
        pytest.raises(DataError, match="offline") as caught,
    ):
        build_features(Ref(name="inception_v3"))
    assert URL in str(caught.value)
    assert str(tmp_path / "weights") in str(caught.value)


def test_a_resize_that_nobody_uses_is_refused():
    with pytest.raises(SettingError, match="resize"):
        build_features(Ref(name="inception_v3", config={"resize": "nearest"}))


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 299])
def test_exact_features_and_logits_equal_torch_fidelitys(built, peer, side):
    images = _pictures(6, side)
    features, logits = peer(images)
    ours = built().outputs(images, ("features", "logits"))
    assert _norm_error(ours["features"], features) < FLOAT32_NORM
    assert _norm_error(ours["logits"], logits) < FLOAT32_NORM


@pytest.mark.slow
def test_fast_features_are_within_float32_rounding_of_exact_ones(built, record_property):
    images = _pictures(6)
    truth = built(dtype="float64").outputs(images, LAYERS)
    fast = built(arithmetic="fast").outputs(images, LAYERS)
    for layer in LAYERS:
        error = _norm_error(fast[layer], truth[layer])
        record_property(f"fast_norm_error_{layer}", error)
        assert error < FLOAT32_NORM, layer


@pytest.mark.slow
def test_folding_is_exact_in_exact_arithmetic(built):
    images = _pictures(2)
    fast = built(arithmetic="fast", dtype="float64")(images)
    assert _norm_error(fast, built(dtype="float64")(images)) < 1e-12


@pytest.mark.slow
def test_float64_runs_in_float64_where_torch_fidelity_silently_runs_float32(built, weights):
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    peer = module.FeatureExtractorInceptionV3(
        "peer", ["2048"], feature_extractor_weights_path=str(weights), feature_extractor_internal_dtype="float64"
    )
    images = _pictures(2, side=299)
    ours = built(dtype="float64")
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float64}
    assert {parameter.dtype for parameter in peer.parameters()} == {torch.float32}  # the defect
    assert all(made.dtype == torch.float64 for made in ours.outputs(images, LAYERS).values())
    # the judge: the peer's own layers made float64 by hand; at 299 pixels no resize stands between
    peer.feature_extractor_internal_dtype = torch.float64
    peer.double()
    handmade = {}
    peer.AvgPool.register_forward_hook(lambda _, __, pooled: handmade.update(features=pooled.flatten(1)))
    peer(images)
    assert handmade["features"].dtype == torch.float64
    assert _norm_error(ours(images), handmade["features"]) < 1e-12
    assert 1e-7 < _norm_error(built()(images), handmade["features"]) < FLOAT32_NORM


@pytest.mark.slow
def test_features_do_not_depend_on_the_batch(built):
    images = _pictures(11)
    for config, bound in (({}, 1e-6), ({"arithmetic": "fast"}, FLOAT32_NORM)):
        whole = extract(built(**config), images, batch_size=11)
        for batch_size in (1, 3, 7):
            assert _norm_error(extract(built(**config), images, batch_size=batch_size), whole) < bound


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-10)])
def test_features_do_not_depend_on_the_number_of_threads(built, dtype, bound):
    images = _pictures(5)
    with _threads(1):
        one = built(dtype=dtype).outputs(images, LAYERS)
    for num in (2, 4):
        with _threads(num):
            several = built(dtype=dtype).outputs(images, LAYERS)
        for layer in LAYERS:
            assert _norm_error(several[layer], one[layer]) < bound, (num, layer)


@pytest.mark.slow
def test_one_pass_gives_what_each_layer_alone_gives(built):
    images = _pictures(3)
    together = built().outputs(images, LAYERS)
    assert tuple(together) == LAYERS
    for layer in LAYERS:
        alone = built().outputs(images, (layer,))
        assert alone.keys() == {layer}
        assert alone[layer].shape == (3, LENGTHS[layer])
        assert alone[layer].dtype == torch.float32
        torch.testing.assert_close(alone[layer], together[layer], rtol=1e-6, atol=1e-6)
    assert torch.equal(built()(images), together["features"])
    assert built().num_features == 2048


@pytest.mark.slow
def test_spatial_is_the_first_branch_of_mixed_6d_with_the_channel_fastest(built, peer):
    images = _pictures(2)
    seen = []
    handle = peer.Mixed_6d.branch1x1.register_forward_hook(lambda _, __, made: seen.append(made.clone()))
    peer(images)
    handle.remove()
    expected = np.stack([picture.numpy().transpose(1, 2, 0)[..., :7].reshape(-1) for picture in seen[0]])
    assert _norm_error(built().outputs(images, ("spatial",))["spatial"], torch.from_numpy(expected)) < FLOAT32_NORM


@pytest.mark.slow
def test_spatial_alone_stops_before_the_blocks_it_does_not_need(built):
    network = built().network
    seen = []
    handles = [
        block.register_forward_pre_hook(lambda *_: seen.append(1)) for block in (network.Mixed_6d, network.Mixed_6e)
    ]
    built().outputs(_pictures(1), ("spatial",))
    assert not seen
    built().outputs(_pictures(1), ("features",))
    assert len(seen) == 2
    for handle in handles:
        handle.remove()


@pytest.mark.slow
def test_legacy_equals_pytorch_fid(built, weights):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("pytorch_fid.inception")
        state = torch.load(weights, weights_only=True)
        with mock.patch.object(module, "load_state_dict_from_url", return_value=state):
            network = module.InceptionV3([3]).eval()
        images = _pictures(3)
        expected = network(images.float() / 255)[0].flatten(1).detach()
    assert _norm_error(built(resize="legacy")(images), expected) < FLOAT32_NORM


@pytest.mark.slow
def test_clean_equals_clean_fids_resize_before_the_same_network(built, peer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    images = _pictures(3, side=48)
    resized = np.stack([clean(image.permute(1, 2, 0).numpy()).transpose(2, 0, 1) for image in images])
    with mock.patch(
        "torch_fidelity.feature_extractor_inceptionv3.interpolate_bilinear_2d_like_tensorflow1x",
        return_value=torch.from_numpy(resized),
    ):
        expected = peer(images)[0]
    assert _norm_error(built(resize="clean")(images), expected) < FLOAT32_NORM


@pytest.mark.slow
def test_the_protocol_tells_every_setting_apart(built, weights):
    from genbench.features._weights import digest

    settings = [{}, {"resize": "clean"}, {"resize": "legacy"}, {"arithmetic": "fast"}, {"dtype": "float64"}]
    protocols = [built(**config).protocol() for config in settings]
    assert len({tuple(sorted(protocol.items())) for protocol in protocols}) == len(settings)
    assert all(protocol["sha256"] == digest(weights)[:16] for protocol in protocols)
    assert all(protocol["quantisation"] == "uint8" for protocol in protocols)


@pytest.mark.slow
def test_the_environment_names_the_weights_by_file_and_by_folder(weights, tmp_path, monkeypatch):
    for name in FILENAMES:
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(weights)
        monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
        from_folder = build_features(Ref(name="inception_v3")).protocol()
        monkeypatch.setenv("GENBENCH_WEIGHTS", str(weights))
        assert build_features(Ref(name="inception_v3")).protocol() == from_folder
        (tmp_path / name).unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    "images", [torch.rand(2, 3, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8).byte()]
)
def test_what_is_not_an_8_bit_colour_picture_is_refused(built, images):
    with pytest.raises(ValueError, match="uint8"):
        built()(images)


@pytest.mark.slow
def test_a_layer_that_it_does_not_have_is_refused(built):
    with pytest.raises(ValueError, match="features, spatial, logits"):
        built().outputs(_pictures(1), ("768",))


def _frechet(first, second):
    """Exact for fewer samples than features: the nuclear norm of the product of centred features."""
    first, second = first.double(), second.double()
    shift = first.mean(0) - second.mean(0)
    a = (first - first.mean(0)) / (len(first) - 1) ** 0.5
    b = (second - second.mean(0)) / (len(second) - 1) ** 0.5
    return (shift @ shift + (a * a).sum() + (b * b).sum() - 2 * torch.linalg.svdvals(a @ b.T).sum()).item()


@pytest.mark.slow
def test_scores_equal_torch_fidelitys_end_to_end_on_folders_of_pngs(built, weights, tmp_path):
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

    sets = {"samples": _pictures(24, seed=1), "reference": _pictures(20, side=40, seed=2) // 2}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{index:03d}.png")
    kid = {"kid_subsets": 5, "kid_subset_size": 15}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fidelity.calculate_metrics(
            input1=str(tmp_path / "samples"), input2=str(tmp_path / "reference"), batch_size=16, cuda=False,
            isc=True, fid=True, kid=True, prc=True, cache=False, verbose=False, save_cpu_ram=True,
            feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights), **kid,
        )  # fmt: skip
    made = {name: built().outputs(images, ("features", "logits")) for name, images in sets.items()}
    samples, reference = made["samples"]["features"], made["reference"]["features"]
    ours = {
        "frechet_inception_distance": _frechet(samples, reference),
        **isc_features_to_metric(made["samples"]["logits"]),
        **kid_features_to_metric(samples, reference, verbose=False, **kid),
        **prc_features_to_metric(samples, reference, verbose=False, save_cpu_ram=True),
    }
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-4), name
    fast = {name: built(arithmetic="fast")(images) for name, images in sets.items()}
    assert _frechet(fast["samples"], fast["reference"]) == pytest.approx(_frechet(samples, reference), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_on_a_gpu_hold_to_half_precision_in_fast_and_to_rounding_in_exact(built, weights):
    """Float16 rounds by 2^-11, and the distance is quadratic in the features of two sets."""
    sets = _pictures(40, seed=1), _pictures(30, side=40, seed=2)
    on_cpu = _frechet(*(built()(images) for images in sets))
    for arithmetic, bound in (("exact", 1e-4), ("fast", 4.0 * 2.0**-11)):
        config = {"weights": str(weights), "arithmetic": arithmetic}
        extractor = build_features(Ref(name="inception_v3", config=config)).cuda()
        on_gpu = _frechet(*(extractor(images.cuda()).cpu() for images in sets))
        assert on_gpu == pytest.approx(on_cpu, rel=bound), arithmetic
