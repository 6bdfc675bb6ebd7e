"""Counters against closed forms, and the same to the bit in every run."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tiny_data import batch_of, data_for
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from genbench.core.model import MODELS, GenerativeModel, build_model
from genbench.timing.counters import count


def test_a_matrix_product_is_two_flops_for_each_multiply_add_and_makes_its_result():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    found = count(lambda: a @ b, parameters=12)
    assert (found.flops, found.operators, found.bytes_allocated) == (2 * 3 * 5 * 7, 1, 4 * 3 * 7)
    assert (found.parameters, found.uncounted, found.network_evaluations) == (12, (), None)


def test_a_product_in_place_is_counted_like_any_other():
    a, b, out = torch.randn(3, 5), torch.randn(5, 7), torch.zeros(3, 7)
    found = count(lambda: out.addmm_(a, b), parameters=0)
    assert (found.flops, found.uncounted, found.bytes_allocated) == (2 * 3 * 5 * 7, (), 0)


def test_a_matrix_times_a_vector_is_counted_like_a_matrix_of_one_column():
    a, v = torch.randn(3, 5), torch.randn(5)
    found = count(lambda: a @ v, parameters=0)
    assert found.flops == count(lambda: a @ v[:, None], parameters=0).flops == 2 * 3 * 5
    assert found.uncounted == ()


def test_a_product_of_two_vectors_is_counted_like_matrices_of_one_row_and_one_column():
    a, b = torch.randn(5), torch.randn(5)
    found = count(lambda: a @ b, parameters=0)
    assert found.flops == count(lambda: a[None] @ b[:, None], parameters=0).flops == 2 * 5
    assert found.uncounted == ()


def test_a_convolution_is_counted_by_its_kernel_at_every_place():
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    found = count(lambda: F.conv2d(x, w, padding=1), parameters=0)
    assert found.flops == 2 * (2 * 8 * 8) * (4 * 3 * 3 * 3)
    assert found.bytes_allocated == 4 * 2 * 4 * 8 * 8


def test_the_backward_pass_is_counted_too():
    layer, x = nn.Linear(5, 7, bias=False), torch.randn(3, 5)
    forward = count(lambda: layer(x), parameters=35).flops
    assert count(lambda: layer(x).sum().backward(), parameters=35).flops == 2 * forward  # the weight's gradient
    x.requires_grad_(True)
    assert count(lambda: layer(x).sum().backward(), parameters=35).flops == 3 * forward  # and the input's


def test_attention_on_a_cpu_is_counted_forward_and_backward():
    B, heads, T, D = 2, 3, 16, 8
    q, k, v = (torch.randn(B, heads, T, D, requires_grad=True) for _ in range(3))
    forward = count(lambda: F.scaled_dot_product_attention(q, k, v), parameters=0)
    assert forward.flops == 2 * 2 * B * heads * T * T * D  # scores, and the mean of the values
    both = count(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward(), parameters=0)
    assert both.flops == forward.flops + 5 * 2 * B * heads * T * T * D  # the scores again, and four gradients
    assert both.uncounted == ()


def test_views_and_work_in_place_allocate_nothing():
    x = torch.randn(4, 6)
    found = count(lambda: x.t().reshape(-1)[:3].mul_(2.0), parameters=0)
    assert found.bytes_allocated == 4 * 24  # `reshape` of a transpose copies; all else is views, and `mul_`
    assert count(lambda: x[1:].view(-1).add_(1.0), parameters=0).bytes_allocated == 0


def test_a_piece_of_memory_with_many_views_is_counted_once():
    x = torch.randn(8, 4)
    assert count(lambda: torch.unbind(x + 1), parameters=0).bytes_allocated == 4 * 32


def test_every_operator_call_counts():
    x = torch.randn(3)
    assert count(lambda: x.sin().cos().add_(1), parameters=0).operators == 3


def test_element_wise_operators_and_reductions_are_no_flops_and_not_missing():
    x = torch.randn(4, 8, 4, 4)
    found = count(
        lambda: F.silu(F.group_norm(x, 2)).softmax(-1).square().mean() + torch.linalg.vector_norm(x), parameters=0
    )
    assert (found.flops, found.uncounted) == (0, ())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: torch.fft.rfft(torch.ones(8)), "aten::_fft_r2c"),
        (lambda: torch.linalg.inv(torch.eye(3)), "aten::linalg_inv_ex"),
        (lambda: torch.vdot(torch.ones(3) + 1j, torch.ones(3) + 1j), "aten::vdot"),
        (lambda: torch.cdist(torch.ones(4, 3), torch.ones(4, 3)), "aten::_cdist_forward"),
        (lambda: torch.cdist(torch.ones(40, 3), torch.ones(40, 3)), "aten::_euclidean_dist"),
    ],
)
def test_arithmetic_without_a_formula_is_named(call, name):
    assert name in count(call, parameters=0).uncounted


@torch.library.custom_op("genbench_tests::cube", mutates_args=())
def _cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


def test_an_operator_of_another_library_is_named():
    found = count(lambda: _cube(torch.ones(3)), parameters=0)
    assert found.uncounted == ("genbench_tests::cube",)


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 5))


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_flops_are_those_of_the_counter_of_torch_in_every_mode(context):
    network, x = _network(), torch.randn(2, 3, 8, 8)

    def call() -> None:
        with context():
            out = network(x) @ torch.ones(5, 5)
        if out.requires_grad:
            out.sum().backward()

    theirs = FlopCounterMode(display=False)
    with theirs:
        call()
    assert count(call, parameters=0).flops == theirs.get_total_flops() > 0


def test_operators_are_the_same_in_inference_mode_as_without_gradients():
    network, x = _network(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = count(lambda: network(x), parameters=0)
    with torch.inference_mode():
        assert count(lambda: network(x), parameters=0) == expected


def _model(name: str) -> GenerativeModel:
    torch.manual_seed(0)
    kind = MODELS.get(name)
    model = build_model(kind, data_for(kind), preset="smoke", settings={}, owner=name)
    model.prepare(batch_of(model.spec, torch.Generator().manual_seed(1)))
    return model


def _training_step(model: GenerativeModel):
    """One turn of each player of each phase, as a call."""
    players = [player for phase in model.phases() for player in phase.players]
    weights = [[p for module in player.modules for p in module.parameters()] for player in players]
    optimisers = [torch.optim.AdamW(own, fused=True) for own in weights]
    batch = batch_of(model.spec, torch.Generator().manual_seed(2))

    def step() -> None:
        model.train()
        for player, optimiser in zip(players, optimisers, strict=True):
            optimiser.zero_grad(set_to_none=True)
            model.loss(batch, player.name).total.backward()
            optimiser.step()

    return step


@pytest.fixture(scope="module", autouse=True)
def _solver():
    """What the first solve of an equation imports runs operators of its own, once in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchdiffeq  # noqa: F401


def _counted(name: str) -> dict[str, object]:
    model = _model(name)
    step = _training_step(model)
    step()
    train = count(step, parameters=sum(p.numel() for p in model.parameters()))
    model.eval()
    sample = count(lambda: model.sample(1, generator=torch.Generator().manual_seed(3)), parameters=0)
    return {"train": train.model_dump(mode="json"), "sample": sample.model_dump(mode="json")}


def _check_bit_identical(name: str) -> None:
    first = _counted(name)
    assert first == _counted(name)
    assert first["train"]["flops"] > 0
    assert first["train"]["operators"] > 0
    assert first["train"]["bytes_allocated"] > 0
    assert first["train"]["uncounted"] == []


def test_training_and_sampling_of_a_model_count_the_same_again():
    _check_bit_identical("vae")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(MODELS.names()) - {"vae"}))
def test_training_and_sampling_of_every_other_model_count_the_same_again(name):
    _check_bit_identical(name)


@pytest.mark.slow
def test_another_process_counts_the_same():
    code = (
        "import json, sys, torch; torch.set_num_threads(1); sys.path.insert(0, sys.argv[1]); import test_counters; "
        "print(json.dumps(test_counters._counted('ddpm')))"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == _counted("ddpm")


def test_one_more_layer_is_counted():
    model = _model("ddpm")
    step = _training_step(model)
    step()
    before = count(step, parameters=0)
    extra = nn.Conv2d(3, 3, 1, bias=False)
    unet, forward = model.network, model.network.forward
    vars(unet)["forward"] = lambda x, t: extra(forward(x, t))
    after = count(step, parameters=0)
    layer = 2 * 8 * 64 * 9  # FLOPs of 1x1 convolutions from 3 to 3 channels at 64 places of 8 images
    assert after.flops == before.flops + 3 * layer  # forward, and both gradients
    assert after.operators > before.operators
    assert after.bytes_allocated > before.bytes_allocated
