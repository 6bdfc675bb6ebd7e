"""Variants run the same model, and never the eager one in silence."""

from __future__ import annotations

import pytest
import torch
from tiny_data import PICTURES, data_for
from torch import nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import MODELS, GenerativeModel, IterativeSampler, Loss, build_model
from genbench.timing import variants
from genbench.timing.variants import as_variant, check_variant, networks_of

CPU = torch.device("cpu")


def _model(name: str) -> GenerativeModel:
    torch.manual_seed(0)
    kind = MODELS.get(name)
    return build_model(kind, data_for(kind), preset="smoke", settings={}, owner=name)


def _sample(model: GenerativeModel) -> torch.Tensor:
    return model.eval().sample(2, generator=torch.Generator().manual_seed(1))


def test_the_eager_variant_is_the_model_itself():
    model = _model("vae")
    with as_variant(model, "eager") as same:
        assert same is model
        assert "forward" not in vars(model.encoder)


@pytest.mark.parametrize("name", MODELS.names())
def test_every_registered_model_has_networks_with_a_forward_pass(name):
    model = _model(name)
    networks = networks_of(model)
    assert networks
    assert all(type(network).forward is not nn.Module.forward for network in networks)
    if isinstance(model, IterativeSampler):
        assert networks == (model.network,)
    else:  # all that players train
        players = [player for phase in model.phases() for player in phase.players]
        played = {p for player in players for module in player.modules for p in module.parameters()}
        covered = {p for network in networks for p in network.parameters()}
        assert covered <= played
        assert sum(p.numel() for p in covered) > 0.9 * sum(p.numel() for p in played)


def test_a_model_without_a_network_says_so():
    class Nothing(GenerativeModel):
        def loss(self, batch, player):
            raise NotImplementedError

        def sample(self, num_samples, *, generator):
            raise NotImplementedError

        def phases(self):
            return ()

    with pytest.raises(SettingError, match="`Nothing` has no network to compile"):
        networks_of(Nothing(PICTURES))


def test_graphs_are_captured_on_cuda_only():
    message = "variant `cudagraph` on device `cpu`: graphs are captured on CUDA devices only"
    with pytest.raises(SettingError, match=message), as_variant(_model("vae"), "cudagraph"):
        raise AssertionError("never begun")


@pytest.mark.slow
def test_a_missing_compiler_is_named_before_anything_is_measured():
    import torch._inductor.config as inductor

    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(SettingError, match=r"variant `compile` on a CPU needs a C\+\+ compiler, found none"),
    ):
        check_variant("compile", CPU)


@pytest.fixture
def _compiler():
    """A C++ compiler, or a skip that says that there is none."""
    try:
        check_variant("compile", CPU)
    except SettingError as error:
        pytest.skip(error.message)


@pytest.mark.slow  # imports the compiler, which takes seconds
@pytest.mark.usefixtures("_compiler")
def test_a_variant_whose_networks_are_not_called_is_no_result():
    model = _model("gated_pixelcnn")  # draws pixel by pixel through caches, not through `forward`
    message = "no changed network was called, so the eager model ran"
    with pytest.raises(SettingError, match=message), as_variant(model, "compile"):
        _sample(model)


@pytest.mark.slow  # imports the compiler, which takes seconds
@pytest.mark.usefixtures("_compiler")
def test_an_error_inside_is_not_hidden_and_the_model_is_eager_again():
    model = _model("vae")
    with pytest.raises(ZeroDivisionError, match="True"), as_variant(model, "compile"):
        raise ZeroDivisionError("forward" in vars(model.encoder))
    assert "forward" not in vars(model.encoder)


class Iterative(GenerativeModel, IterativeSampler):
    """Three calls of a small network: the smallest model worth compiling."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        width = spec.shape[0]
        self.net = nn.Sequential(nn.Conv2d(width, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, width, 3, padding=1))

    @property
    def network(self) -> nn.Module:
        return self.net

    def phases(self):
        return ()

    def loss(self, batch, player):
        x = batch.x / 255
        return Loss((self.net(x) - x).square().mean())

    @torch.no_grad()
    def sample(self, num_samples, *, generator):
        x = torch.randn((num_samples, *self.spec.shape), generator=generator)
        for _ in range(3):
            x = x + self.net(x)
        return (x.sigmoid() * 255).to(torch.uint8)


@pytest.mark.slow  # imports the compiler, which takes seconds
@pytest.mark.usefixtures("_compiler")
@pytest.mark.timeout(900)
def test_a_compiled_model_samples_and_trains_as_the_eager_one():
    torch.manual_seed(0)
    model = Iterative(PICTURES)
    eager = _sample(model)
    batch = Batch(x=torch.randint(256, (4, *PICTURES.shape), dtype=torch.uint8))
    expected = model.loss(batch, "").total
    with as_variant(model, "compile"):
        compiled = _sample(model)
        loss = model.loss(batch, "").total
        loss.backward()
    assert "forward" not in vars(model.net)
    assert (compiled.int() - eager.int()).abs().max() <= 1  # the order of sums may round another way
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert all(p.grad is not None for p in model.net.parameters())


@pytest.mark.slow  # imports the compiler, which takes seconds
@pytest.mark.usefixtures("_compiler")
def test_a_network_that_would_need_too_many_compilations_does_not_turn_eager(monkeypatch):
    monkeypatch.setitem(variants._BACKENDS, "compile", "eager")  # traces and guards, and then compiles nothing
    torch._dynamo.reset()
    model = Iterative(PICTURES)

    def call(sizes: range) -> None:
        for size in sizes:
            model.net(torch.zeros(size, *PICTURES.shape))

    with as_variant(model, "compile"):
        call(range(1, 9))
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            call(range(9, 12))


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["compile", "cudagraph"])
def test_variants_on_a_device_sample_as_the_eager_model(variant):
    model = _model("ddpm").to("cuda").eval()

    def draw() -> torch.Tensor:
        return model.sample(2, generator=torch.Generator("cuda").manual_seed(1))

    eager = draw()
    with as_variant(model, variant):
        assert (draw().int() - eager.int()).abs().max() <= 2
        assert torch.equal(draw(), draw())
