"""The contract test catches what it is for: each way of breaking the contract turns its own finding red."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from genbench.conformance import check_model, check_reference
from genbench.core.dataset import Batch, Dataset, DataSpec
from genbench.core.errors import UnknownName
from genbench.core.model import ContinuousLatents, ExactLikelihood, GenerativeModel, Loss, Phase, Player
from genbench.core.spec import parse_ref

SPEC = DataSpec(shape=(1, 8, 8), levels=4)


class Stripes(Dataset):
    """Dark pictures with one bright row."""

    @property
    def spec(self):
        return SPEC

    def size(self, split):
        return None

    def load(self, split, indices):
        x = torch.zeros(len(indices), 1, 8, 8, dtype=torch.uint8)
        x[:, :, 3] = 3
        return Batch(x, y=torch.zeros(len(indices), dtype=torch.int64))

    def fingerprint(self):
        return "stripes"


class PixelHistogram(GenerativeModel, ExactLikelihood, ContinuousLatents):
    """A softmax over levels for every pixel on its own."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        lr: float = 0.05

    presets = {"smoke": Config(), "small": Config(), "paper": Config()}  # noqa: RUF012

    def __init__(self, spec, config):
        super().__init__(spec)
        self.config = config
        self.table = nn.Embedding(spec.num_dims, spec.levels)

    def _log_probabilities(self, x):
        log_p = self.table.weight.log_softmax(1).expand(len(x), -1, -1)
        return log_p.gather(2, x.flatten(1).long()[..., None])[..., 0].sum(1)

    def loss(self, batch, player):
        return Loss(-self._log_probabilities(batch.x).mean())

    @torch.no_grad()
    def sample(self, num_samples, *, generator):
        drawn = torch.multinomial(self.table.weight.softmax(1), num_samples, replacement=True, generator=generator)
        return drawn.T.reshape(num_samples, *self.spec.shape).to(torch.uint8)

    def phases(self):
        player = Player(name="table", modules=(self.table,), lr=self.config.lr)
        return (Phase(name="fit", share=1.0, players=(player,), batch_size=64),)

    @torch.no_grad()
    def log_likelihood(self, x, *, generator):
        return self._log_probabilities(x)

    def encode(self, x):
        return x.flatten(1).float()

    def decode(self, z):
        return z.reshape(-1, *self.spec.shape).to(torch.uint8)

    def reconstruct(self, x):
        return x


class Orphan(PixelHistogram):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.unused = nn.Linear(2, 2)


class Rivals(PixelHistogram):
    def phases(self):
        one, two = (Player(name=name, modules=(self.table,), lr=0.1) for name in "ab")
        return (Phase(name="fit", share=1.0, players=(one, two), batch_size=64),)


class HalfABudget(PixelHistogram):
    def phases(self):
        return (dataclasses.replace(super().phases()[0], share=0.5),)


class DeadWeight(PixelHistogram):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self.dead = nn.Linear(2, 2)

    def loss(self, batch, player):
        return Loss(super().loss(batch, player).total + 0.0 * self.dead.weight.sum())

    def phases(self):
        player = Player(name="all", modules=(self,), lr=0.05)
        return (Phase(name="fit", share=1.0, players=(player,), batch_size=64),)


class Uphill(PixelHistogram):
    def loss(self, batch, player):
        loss = super().loss(batch, player).total
        return Loss(2 * loss.detach() - loss)  # the value of the loss, with its gradient turned round


class GlobalSampler(PixelHistogram):
    def sample(self, num_samples, *, generator):
        return torch.randint(0, 4, (num_samples, *self.spec.shape), dtype=torch.uint8)


class Frozen(PixelHistogram):
    def sample(self, num_samples, *, generator):
        return torch.zeros(num_samples, *self.spec.shape, dtype=torch.uint8)


class Overflowing(PixelHistogram):
    def sample(self, num_samples, *, generator):
        return super().sample(num_samples, generator=generator) + 4


class RankInBatch(PixelHistogram):
    def log_likelihood(self, x, *, generator):
        found = super().log_likelihood(x, generator=generator)
        return found - torch.arange(len(x))


class Backwards(PixelHistogram):
    def log_likelihood(self, x, *, generator):
        return -1e6 - super().log_likelihood(x, generator=generator)


class Impossible(PixelHistogram):
    def log_likelihood(self, x, *, generator):
        return super().log_likelihood(x, generator=generator) + 1e6


class SquareCodes(PixelHistogram):
    def encode(self, x):
        return x.float()


class Forgetful(PixelHistogram):
    def __init__(self, spec, config):
        super().__init__(spec, config)
        self._shift = torch.randint(0, 4, spec.shape, dtype=torch.uint8)  # not in the state dict

    def sample(self, num_samples, *, generator):
        return (super().sample(num_samples, generator=generator) + self._shift) % 4


BROKEN = {
    Orphan: "every_parameter_has_one_player",
    Rivals: "every_parameter_has_one_player",
    HalfABudget: "phases_share_out_the_budget",
    DeadWeight: "every_player_moves_all_its_parameters",
    Uphill: "training_lowers_the_loss",
    GlobalSampler: "samples_depend_on_the_generator_alone",
    Frozen: "samples_depend_on_the_generator_alone",
    Overflowing: "samples_are_what_the_data_are",
    RankInBatch: "log_likelihood_ignores_the_rest_of_the_batch",
    Backwards: "log_likelihood_prefers_data_to_noise",
    Impossible: "log_likelihood_is_one_number_an_example",
    SquareCodes: "codes_can_be_decoded",
    Forgetful: "saved_weights_give_the_same_samples",
}
OF_REGISTERED_MODELS = {"name_is_the_file", "docstrings_cite_the_paper"}


def _broken(kind: type[GenerativeModel]) -> set[str]:
    findings = check_model(kind, Stripes())
    return {finding.name for finding in findings if not finding.passed} - OF_REGISTERED_MODELS


def test_honest_model_breaks_nothing():
    assert _broken(PixelHistogram) == set()


@pytest.mark.parametrize(("kind", "finding"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", value))
def test_breach_of_the_contract_is_found(kind, finding):
    assert finding in _broken(kind)


def test_class_outside_the_registry_is_told_so():
    findings = {finding.name: finding for finding in check_model(PixelHistogram, Stripes())}
    assert not findings["name_is_the_file"].passed
    assert "test_conformance" in findings["name_is_the_file"].message
    assert not findings["docstrings_cite_the_paper"].passed


def test_model_that_raises_is_a_finding_and_not_a_crash():
    class Crashing(PixelHistogram):
        def loss(self, batch, player):
            raise ZeroDivisionError("no luck")

    findings = {finding.name: finding for finding in check_model(Crashing, Stripes())}
    assert findings["loss_is_a_finite_scalar"].message == "ZeroDivisionError: no luck"


def test_global_streams_are_given_back():
    before = copy.copy(torch.get_rng_state())
    check_model(PixelHistogram, Stripes())
    assert torch.equal(torch.get_rng_state(), before)


def test_users_file_is_asked_for_no_paper(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "def sample(n, seed, device):\n"
        "    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))\n"
    )
    findings = check_reference(parse_ref(str(path)), parse_ref("shapes[resolution=8]"))
    assert [finding for finding in findings if not finding.passed] == []
    assert next(f for f in findings if f.name == "docstrings_cite_the_paper").message.startswith("skipped")


def test_unknown_name_is_the_users_error_and_not_a_finding():
    with pytest.raises(UnknownName, match="realnpv"):
        check_reference(parse_ref("realnpv"), parse_ref("shapes[resolution=8]"))
