"""A user's own model file: what it may return, what it may not, what it unlocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import ModelError, SampleError
from genbench.core.model import Likelihood, SelfTraining
from genbench.core.spec import Ref, TimingEffort
from genbench.harness.external import external_model, is_external
from genbench.harness.train import train

SPEC = DataSpec(shape=(3, 8, 8), levels=17)
HEAD = "import torch\n"
SAMPLE = "def sample(n, seed, device):\n    g = torch.Generator(device).manual_seed(seed)\n    "


def _model(tmp_path: Path, text: str, argument: str | None = None):
    path = tmp_path / "mine.py"
    path.write_text(HEAD + text)
    return external_model(Ref(name=str(path), argument=argument), SPEC, preset="smoke", settings={})


def _sample(model, seed: int = 0) -> torch.Tensor:
    return model.sample(5, generator=torch.Generator().manual_seed(seed))


def test_floats_in_0_to_1_become_levels(tmp_path):
    model = _model(tmp_path, SAMPLE + "return torch.rand(n, 3, 8, 8, generator=g)\n")
    drawn = _sample(model)
    assert drawn.dtype == torch.uint8
    assert drawn.max() == 16
    assert torch.equal(drawn, _sample(model))
    assert not torch.equal(drawn, _sample(model, seed=1))


def test_integers_pass_unchanged(tmp_path):
    model = _model(tmp_path, SAMPLE + "return torch.full((n, 3, 8, 8), 16, dtype=torch.uint8)\n")
    assert set(_sample(model).unique().tolist()) == {16}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("torch.rand(n, 3, 8, 8) * 2 - 1", "expected \\[0, 1\\]"),
        ("torch.rand(n, 3, 8, 8) * 255", "expected \\[0, 1\\]"),
        ("torch.full((n, 3, 8, 8), float('nan'))", "not finite"),
        ("torch.zeros(n, 3, 8, 8, dtype=torch.int64)", "torch.int64"),
        ("[1, 2]", "returned list"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, returned, message):
    with pytest.raises(SampleError, match=message):
        _sample(_model(tmp_path, SAMPLE + f"return {returned}\n"))


def test_a_file_without_sample_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no function `sample"):
        _model(tmp_path, "x = 1\n")


def test_train_step_and_nll_unlock_training_and_likelihood(tmp_path):
    text = (
        SAMPLE + "return torch.zeros(n, 3, 8, 8, dtype=torch.uint8)\n"
        "steps = []\n"
        "def train_step(batch):\n    steps.append(len(batch))\n    return torch.tensor(1.0)\n"
        "def nll(x):\n    return torch.full((len(x),), 3.0)\n"
    )
    model = _model(tmp_path, text)
    assert isinstance(model, SelfTraining)
    assert isinstance(model, Likelihood)
    data = Batch(torch.zeros(128, 3, 8, 8, dtype=torch.uint8))
    effort = TimingEffort(warmup_steps=1, min_block_seconds=0.001, latency_requests=0)
    assert train(model, data, samples_seen=640, seed=0, effort=effort).samples_seen == 640
    assert model.log_likelihood(data.x, generator=torch.Generator()).tolist() == [-3.0] * 128


def test_a_file_with_sample_alone_promises_neither(tmp_path):
    model = _model(tmp_path, SAMPLE + "return torch.zeros(n, 3, 8, 8, dtype=torch.uint8)\n")
    assert not isinstance(model, SelfTraining)
    assert not isinstance(model, Likelihood)
    assert model.phases() == ()


def test_nll_of_the_wrong_shape_is_refused(tmp_path):
    model = _model(tmp_path, SAMPLE + "return None\ndef nll(x):\n    return torch.tensor(1.0)\n")
    with pytest.raises(ModelError, match="one number per example"):
        model.log_likelihood(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), generator=torch.Generator())


CLASSES = """
from genbench import GenerativeModel
class A(GenerativeModel):
    def loss(self, batch, player): ...
    def phases(self): return ()
    def sample(self, num_samples, *, generator): return torch.zeros(num_samples, 3, 8, 8, dtype=torch.uint8)
class B(A):
    pass
"""


def test_one_of_several_classes_must_be_named(tmp_path):
    with pytest.raises(ModelError, match="several model classes: A, B"):
        _model(tmp_path, CLASSES)
    assert type(_model(tmp_path, CLASSES, "B")).__name__ == "B"
    with pytest.raises(ModelError, match="no model class `C`"):
        _model(tmp_path, CLASSES, "C")


def test_files_and_modules_are_told_from_registered_names():
    assert is_external(Ref(name="mine.py"))
    assert is_external(Ref(name="package.module", argument="Class"))
    assert not is_external(Ref(name="ddpm"))
