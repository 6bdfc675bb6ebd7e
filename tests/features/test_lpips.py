"""The perceptual distance against its authors' package, on backbones of random weights."""

import warnings

import pytest
import torch

from genbench.core.errors import DataError, SampleError
from genbench.core.features import build_features
from genbench.core.spec import Ref
from genbench.features.lpips import BACKBONES, LPIPS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("lpips")


def _peer(net):
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision in a way of the past
        return peer.LPIPS(net=net, pnet_rand=True, verbose=False)


@pytest.fixture(scope="module")
def alex(tmp_path_factory):
    """A random backbone as saved by the authors' class, the class itself, and ours."""
    theirs = _peer("alex")
    path = tmp_path_factory.mktemp("lpips") / "lpips_alex.pth"
    torch.save(theirs.state_dict(), path)
    return path, theirs, build_features(Ref(name="lpips", config={"weights": str(path)}))


def _pictures(num, side=64, *, seed=0):
    return torch.randint(0, 256, (num, 3, side, side), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def _scaled(images):
    return images.float() / 127.5 - 1.0


def test_distances_are_those_of_the_authors_package(alex):
    _, theirs, ours = alex
    x, y = _pictures(5, seed=0), _pictures(5, seed=1)
    y[0] = x[0]
    y[1] = x[1] // 2
    with torch.no_grad():
        expected = theirs(_scaled(x), _scaled(y)).flatten()
    found = ours.distances(x, y)
    assert found.shape == (5,)
    assert found.dtype == torch.float32
    assert found[0] == 0.0
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_signed_distances_are_the_same_and_so_are_their_gradients(alex):
    _, theirs, ours = alex
    x, y = _pictures(3, seed=0), _pictures(3, seed=1)
    torch.testing.assert_close(ours.signed_distances(_scaled(x), _scaled(y)), ours.distances(x, y), rtol=0, atol=0)
    a, b = _scaled(x).requires_grad_(), _scaled(x).requires_grad_()
    (found,) = torch.autograd.grad(ours.signed_distances(a, _scaled(y)).sum(), a)
    (expected,) = torch.autograd.grad(theirs(b, _scaled(y)).sum(), b)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("net", ["vgg", "squeeze"])
def test_the_other_backbones_are_those_of_the_authors_package_too(net, tmp_path):
    theirs = _peer(net)
    slim = {name: value for name, value in theirs.state_dict().items() if name.startswith("net.")}
    torch.save(slim, tmp_path / "backbone.pth")
    ours = build_features(Ref(name="lpips", config={"net": net, "weights": str(tmp_path / "backbone.pth")}))
    x, y = _pictures(2, 48, seed=0), _pictures(2, 48, seed=1)
    with torch.no_grad():
        expected = theirs(_scaled(x), _scaled(y)).flatten()
    torch.testing.assert_close(ours.distances(x, y), expected, rtol=1e-6, atol=1e-7)
    squared = (ours(x).double() - ours(y).double()).square().sum(dim=1)
    torch.testing.assert_close(squared.float(), expected, rtol=1e-5, atol=1e-7)


def test_the_squared_distance_of_two_vectors_is_the_perceptual_distance(alex):
    _, _, ours = alex
    x, y = _pictures(4, seed=2), _pictures(4, seed=3)
    squared = (ours(x).double() - ours(y).double()).square().sum(dim=1)
    torch.testing.assert_close(squared.float(), ours.distances(x, y), rtol=1e-5, atol=1e-7)


def test_a_picture_of_the_stated_resolution_gives_as_many_features_as_promised(alex):
    path, _, ours = alex
    assert ours(_pictures(1)).shape == (1, ours.num_features)
    small = LPIPS(LPIPS.Config(weights=str(path), resolution=40))
    assert small(_pictures(1, 40)).shape == (1, small.num_features)
    assert small.num_features < ours.num_features


def test_half_the_range_cannot_be_given_by_mistake(alex):
    """The package takes [0, 1] for [-1, 1] without a word and answers with another number."""
    _, theirs, ours = alex
    x, y = _pictures(2, seed=4), _pictures(2, seed=5)
    with torch.no_grad():
        wrong = theirs(x.float() / 255.0, y.float() / 255.0).flatten()
    assert (wrong - ours.distances(x, y)).abs().min() > 1e-3
    with pytest.raises(ValueError, match=r"uint8 with values 0 \.\. 255.*float32"):
        ours.distances(x.float() / 255.0, y.float() / 255.0)
    with pytest.raises(ValueError, match="float32"):
        ours(_scaled(x))


def test_torchvisions_file_and_the_authors_file_are_read_alike(alex, tmp_path):
    path, _, ours = alex
    renamed = {
        "features." + name.split(".", 2)[2]: value
        for name, value in torch.load(path).items()
        if name.startswith("net.slice")
    }
    torch.save({**renamed, "classifier.1.weight": torch.zeros(2, 2)}, tmp_path / BACKBONES["alex"].filename)
    again = LPIPS(LPIPS.Config(weights=str(tmp_path)))
    x, y = _pictures(2, seed=6), _pictures(2, seed=7)
    assert torch.equal(again.distances(x, y), ours.distances(x, y))
    assert again.protocol()["sha256"] != ours.protocol()["sha256"]


@pytest.mark.parametrize("net", ["alex", "squeeze", pytest.param("vgg", marks=pytest.mark.slow)])
def test_the_least_side_is_the_least_one_that_the_backbone_can_read(net, tmp_path):
    torch.save({k: v for k, v in _peer(net).state_dict().items() if k.startswith("net.")}, tmp_path / "x.pth")
    ours = LPIPS(LPIPS.Config(net=net, weights=str(tmp_path / "x.pth")))
    side = BACKBONES[net].least_side
    assert ours.distances(_pictures(1, side), _pictures(1, side, seed=1)).item() > 0.0
    with pytest.raises(SampleError, match=f"at least {side} pixels"):
        ours(_pictures(1, side - 1))
    with pytest.raises(RuntimeError):
        ours.backbone(torch.zeros(1, 3, side - 1, side - 1))


def test_missing_weights_are_refused_with_address_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    _go_offline(monkeypatch)
    with pytest.raises(DataError) as caught:
        build_features(Ref(name="lpips", config={}))
    assert "alexnet-owt-7be5be79.pth" in caught.value.message
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in str(caught.value.hint)
    assert str(tmp_path) in str(caught.value.hint)
    assert "--weights FILE" in str(caught.value.hint)


def _go_offline(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_weights_of_another_backbone_or_with_negative_heads_are_refused(alex, tmp_path):
    path, _, _ = alex
    with pytest.raises(DataError, match="not the weights of `lpips\\[net=vgg\\]`"):
        LPIPS(LPIPS.Config(net="vgg", weights=str(path)))
    state = torch.load(path)
    state["lin2.model.1.weight"] = -state["lin2.model.1.weight"]
    torch.save(state, tmp_path / "negative.pth")
    with pytest.raises(DataError, match="head 2 of `lpips` has negative weights"):
        LPIPS(LPIPS.Config(weights=str(tmp_path / "negative.pth")))
