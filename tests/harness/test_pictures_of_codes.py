"""Pictures of codes, by a coder whose every pixel is known, and of a model built again from its weights."""

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_cells import cell_of
from torch import nn

from genbench.core.dataset import Batch, Dataset, DataSpec, build_dataset
from genbench.core.errors import DataError
from genbench.core.model import ContinuousLatents, DiscreteLatents, GenerativeModel, Loss, Phase, Player
from genbench.core.spec import Ref, parse_ref
from genbench.data.shapes import Shapes
from genbench.data.toy2d import Toy2D
from genbench.harness.building import build
from genbench.harness.evidence import subset
from genbench.harness.pictures_of_codes import NUM_CODED, Rebuilt, pictures_of_codes, rebuilt, why_not

SHAPES = Shapes(resolution=8)
SCALES = torch.tensor([1.0, 4.0, 0.5])
"""Of the three codes of `CornerCoder`."""


class _Still(GenerativeModel):
    """Nothing that learns."""

    def loss(self, batch, player):
        return Loss(torch.zeros(()))

    def sample(self, num_samples, *, generator):
        return torch.zeros(num_samples, *self.spec.shape, dtype=torch.uint8)

    def phases(self):
        return ()


class CornerCoder(_Still, ContinuousLatents):
    """The three channels of the first pixel, scaled, are the code, and a picture is this pixel on black."""

    def encode(self, x):
        return x[:, :, 0, 0].float() * SCALES

    def decode(self, z):
        images = torch.zeros(len(z), *self.spec.shape, dtype=torch.uint8)
        images[:, :, 0, 0] = (z / SCALES).round().clamp(0, 255).to(torch.uint8)
        return images

    def reconstruct(self, x):
        return self.decode(self.encode(x))


class ByteCoder(_Still, DiscreteLatents):
    """Every byte is its own code."""

    num_codes = 256

    def encode(self, x):
        return x.long()

    def decode(self, codes):
        return codes.to(torch.uint8)

    def reconstruct(self, x):
        return self.decode(self.encode(x))


class Learner(_Still):
    """One weight and no codes."""

    def __init__(self, spec):
        super().__init__(spec)
        self.weight = nn.Parameter(torch.zeros(1))

    def phases(self):
        return (Phase(name="fit", share=1.0, players=(Player(name="all", modules=(self,), lr=0.1),), batch_size=4),)


class _Grey(Dataset):
    """Grey pictures of 17 levels, all of one value: example i has the value i mod 17."""

    @property
    def spec(self):
        return DataSpec(shape=(1, 8, 8), levels=17)

    def size(self, split):
        return None

    def load(self, split, indices):
        values = torch.as_tensor(np.asarray(indices)) % 17
        return Batch(x=values.to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous())

    def fingerprint(self):
        return "grey"


def _drawn(kind, model=None, dataset=SHAPES, *, columns=5, rows=10):
    model = CornerCoder(dataset.spec) if model is None else model
    return pictures_of_codes(kind, Rebuilt(model, dataset), columns=columns, rows=rows)


def test_reconstructions_stand_below_the_originals_that_the_metrics_see():
    found = _drawn("reconstructions", ByteCoder(SHAPES.spec), columns=7)
    x = subset(SHAPES, "test", 7).x.numpy()
    assert list(found) == ["original", "reconstruction"]
    np.testing.assert_array_equal(found["original"], x)
    np.testing.assert_array_equal(found["reconstruction"], x)
    blind = _drawn("reconstructions", columns=7)["reconstruction"]
    np.testing.assert_array_equal(blind[:, :, 0, 0], x[:, :, 0, 0])
    assert (blind[:, :, 1:] == 0).all()


def test_levels_are_stretched_and_grey_is_repeated_for_showing():
    found = _drawn("reconstructions", ByteCoder(_Grey().spec), _Grey(), columns=17)
    expected = np.rint(np.arange(17) * 255 / 16)
    assert found["original"].shape == (17, 3, 8, 8)
    np.testing.assert_array_equal(found["original"][:, 0, 0, 0], expected)
    np.testing.assert_array_equal(found["reconstruction"], found["original"])


def test_a_traversal_moves_one_code_by_its_own_standard_deviations_and_no_other():
    x = subset(SHAPES, "test", NUM_CODED).x[:, :, 0, 0].double()
    spread = x.std(0)
    order = (spread * SCALES).argsort(descending=True).tolist()
    found = _drawn("traversals")
    assert list(found) == [f"z{d}  sd {float(spread[d] * SCALES[d]):.2f}" for d in order]
    for d, images in zip(order, found.values(), strict=True):
        for column, step in enumerate((-2.0, -1.0, 0.0, 1.0, 2.0)):
            expected = x[0].clone()
            expected[d] += step * spread[d]
            pixel = torch.from_numpy(images[column, :, 0, 0]).double()
            assert (pixel - expected.clamp(0, 255)).abs().max() <= 0.51  # rounded to a level


def test_as_many_traversals_are_drawn_as_were_asked_for_from_the_most_varied_on():
    everything = _drawn("traversals")
    some = _drawn("traversals", rows=2)
    assert list(some) == list(everything)[:2]


def test_an_interpolation_is_a_straight_line_between_two_codes_with_the_originals_beside_it():
    x = subset(SHAPES, "test", 4).x
    found = _drawn("interpolations", columns=6, rows=2)
    assert list(found) == ["pair 1", "pair 2"]
    for pair, images in enumerate(found.values()):
        first, second = x[2 * pair], x[2 * pair + 1]
        np.testing.assert_array_equal(images[0], first.numpy())
        np.testing.assert_array_equal(images[-1], second.numpy())
        for column, t in enumerate((0.0, 1 / 3, 2 / 3, 1.0)):
            expected = (1 - t) * first[:, 0, 0].double() + t * second[:, 0, 0].double()
            pixel = torch.from_numpy(images[1 + column, :, 0, 0]).double()
            assert (pixel - expected).abs().max() <= 0.51


@pytest.mark.parametrize("kind", ["reconstructions", "traversals", "interpolations"])
def test_what_has_no_such_pictures_says_why(kind):
    assert why_not(kind, CornerCoder(SHAPES.spec), SHAPES) is None
    assert why_not(kind, Learner(SHAPES.spec), SHAPES) == "nothing is encoded and decoded"
    plane = Toy2D("gaussians8")
    assert why_not(kind, CornerCoder(plane.spec), plane) == "the data are of kind `vector`, not images"
    discrete = why_not(kind, ByteCoder(SHAPES.spec), SHAPES)
    assert discrete == (None if kind == "reconstructions" else "codes from a finite alphabet have nothing in between")


@pytest.mark.parametrize(("kind", "columns", "rows"), [("traversals", 2, 1), ("interpolations", 5, 0)])
def test_too_few_columns_or_rows_are_refused(kind, columns, rows):
    with pytest.raises(ValueError, match="columns or more"):
        _drawn(kind, columns=columns, rows=rows)


def _cell(preset="smoke"):
    changed = {"subject": Ref(name="vae", preset=preset), "dataset": parse_ref("shapes[resolution=8]"), "seed": 3}
    return cell_of(SHAPES).model_copy(update=changed)


def test_a_model_built_again_has_the_weights_of_its_file_and_no_dropout(tmp_path):
    torch.manual_seed(99)
    trained = build(_cell(), build_dataset(_cell().dataset)).eval()
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "model.safetensors")
    found = rebuilt(_cell(), tmp_path / "model.safetensors")
    assert found.dataset == SHAPES
    assert not found.model.training
    x = subset(SHAPES, "test", 4).x
    assert torch.equal(found.model.encode(x), trained.encode(x))
    untrained = build(_cell(), SHAPES)
    assert not torch.equal(untrained.encode(x), trained.encode(x))


def test_weights_that_are_missing_or_of_another_model_are_an_error(tmp_path):
    file = tmp_path / "model.safetensors"
    with pytest.raises(DataError, match="no weights"):
        rebuilt(_cell(), file)
    other = build(_cell(preset="small"), SHAPES)
    safetensors.torch.save_file(other.state_dict(), file)
    with pytest.raises(DataError, match="does not fit the model"):
        rebuilt(_cell(), file)
    file.write_bytes(b"torn")
    with pytest.raises(DataError, match="does not fit the model"):
        rebuilt(_cell(), file)
