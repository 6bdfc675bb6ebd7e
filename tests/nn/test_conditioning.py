import pytest
import torch
from torch import Generator

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.nn.condition_pool import POOL_SIZE
from genbench.nn.conditioning import CaptionEncoder, Conditioner, guided

SPEC = DataSpec(shape=(3, 8, 8), num_classes=4, vocabulary=("", "a", "red", "square", "circle"))
LABELS = torch.tensor([0, 3, 1, 2])
CAPTIONS = torch.tensor([[1, 2, 3], [1, 4, 0], [2, 0, 0], [1, 2, 4]])


def _made(kind, **settings):
    torch.manual_seed(0)
    settings = {"drop_share": 0.1, "owner": "ddpm"} | settings
    return Conditioner(SPEC, kind, 16, **settings)


def _batch():
    return Batch(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), y=LABELS, text=CAPTIONS)


def test_padding_changes_no_caption_and_the_order_of_words_counts():
    torch.manual_seed(0)
    encoder = CaptionEncoder(5, 16).eval()
    longer = torch.cat([CAPTIONS, torch.zeros(4, 5, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(encoder(longer), encoder(CAPTIONS), rtol=1e-5, atol=1e-6)
    found = encoder(torch.tensor([[1, 2, 3], [3, 2, 1], [1, 2, 4]]))
    assert (found[0] - found[1]).abs().max() > 1e-4
    assert (found[0] - found[2]).abs().max() > 1e-4
    assert encoder(torch.zeros(1, 3, dtype=torch.int64)).isfinite().all()  # no word at all


@pytest.mark.parametrize(("kind", "expected"), [("class", LABELS), ("text", CAPTIONS)])
def test_conditions_are_those_of_the_batch(kind, expected):
    model = _made(kind)
    assert torch.equal(model.of_batch(_batch()), expected)
    assert model(expected).shape == (4, 16)
    with pytest.raises(SettingError, match="to learn from"):
        model.of_batch(Batch(torch.zeros(4, 3, 8, 8)))


def test_the_stated_share_of_conditions_is_left_out():
    model = _made("class", drop_share=0.25)
    batch = Batch(torch.zeros(4000, 1), y=torch.zeros(4000, dtype=torch.int64))
    left_out = (model.trained(batch) == model.nothing).all(1).float().mean().item()
    assert left_out == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)
    assert (_made("class", drop_share=0.0).trained(batch) == model.embedding.weight[0]).all()
    assert (_made("class", drop_share=1.0).trained(batch) == model.nothing).all()


@pytest.mark.parametrize("kind", ["class", "text"])
def test_drawn_conditions_are_the_first_of_training_and_travel_with_the_weights(kind):
    model = _made(kind)
    with pytest.raises(RuntimeError, match="never trained"):
        model.drawn(3, generator=Generator())
    for _ in range(3):
        model.trained(_batch())
    copy = _made(kind)
    copy.load_state_dict(model.state_dict())
    drawn = copy.drawn(400, generator=Generator().manual_seed(0))
    assert drawn.shape == ((400,) if kind == "class" else (400, 3))
    rows = (drawn[:, None] == model.of_batch(_batch())[None]).reshape(400, 4, -1).all(-1)
    assert rows.any(1).all()
    assert bool((rows.float().mean(0) > 0.15).all())


def test_no_more_conditions_are_kept_than_there_is_room_for():
    model = _made("class")
    for label in range(3):
        model.trained(Batch(torch.zeros(900, 1), y=torch.full((900,), label)))
    assert int(model.filled) == POOL_SIZE
    assert torch.equal(model.pool.bincount(minlength=4), torch.tensor([900, POOL_SIZE - 900, 0, 0]))
    model.eval()
    model.trained(_batch())
    assert int(model.filled) == POOL_SIZE


def _network(calls):
    weight = torch.randn(16, 6, generator=Generator().manual_seed(1))

    def network(x, t, vector):
        calls.append(len(x))
        return x * t[:, None] + torch.tanh(vector @ weight)

    return network


def test_guidance_is_what_it_must_be_at_zero_one_and_between():
    x, t = torch.randn(4, 6), torch.rand(4)
    told, nothing = torch.randn(2, 4, 16)
    calls: list[int] = []
    network = _network(calls)
    with_condition, without = network(x, t, told), network(x, t, nothing)
    calls.clear()
    found = {s: guided(network, x, t, told=told, nothing=nothing, scale=s) for s in (0.0, 1.0, 2.5, -1.0)}
    assert calls == [4, 4, 8, 8]
    assert torch.equal(found[0.0], without)
    assert torch.equal(found[1.0], with_condition)
    torch.testing.assert_close(found[2.5], without + 2.5 * (with_condition - without))
    torch.testing.assert_close(found[-1.0], 2.0 * without - with_condition)
    part = guided(network, x, t, told=told, nothing=nothing, scale=2.5, channels=2)
    torch.testing.assert_close(part[:, :2], found[2.5][:, :2])
    torch.testing.assert_close(part[:, 2:], with_condition[:, 2:])


@pytest.mark.parametrize(
    ("kind", "spec"), [("class", DataSpec(shape=(1,))), ("text", DataSpec(shape=(1,), num_classes=3))]
)
def test_data_without_such_conditions_are_refused(kind, spec):
    with pytest.raises(SettingError, match=f"`ddpm` cannot be conditioned on `{kind}`"):
        Conditioner(spec, kind, 16, drop_share=0.1, owner="ddpm")


def test_tokens_are_one_for_a_class_and_one_for_each_word():
    of_class = _made("class", tokens=True)
    assert torch.equal(of_class(LABELS), of_class.embedding.weight[LABELS][:, None])
    of_text = _made("text", tokens=True).eval()
    found = of_text(CAPTIONS)
    assert found.shape == (4, 3, 16)
    assert torch.equal((found == 0).all(2), CAPTIONS == 0)
    longer = torch.cat([CAPTIONS, torch.zeros(4, 2, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(of_text(longer)[:, :3], found, rtol=1e-5, atol=1e-6)
    words = (CAPTIONS != 0)[:, :, None]
    torch.testing.assert_close((found * words).sum(1) / words.sum(1), of_text.embedding(CAPTIONS))


def test_tokens_are_left_out_for_whole_captions():
    model = _made("text", tokens=True, drop_share=0.5)
    found = torch.cat([model.trained(_batch()) for _ in range(50)])
    dropped = (found == model.nothing).all(2)
    assert torch.equal(dropped.any(1), dropped.all(1))
    assert 0.3 < dropped.all(1).float().mean() < 0.7


def test_guidance_by_tokens_takes_one_token_for_no_condition():
    def network(x, t, tokens):
        return x + tokens.mean((1, 2), keepdim=False)[:, None]

    x, t, told, nothing = torch.zeros(2, 3), torch.zeros(2), torch.ones(2, 4, 8), torch.zeros(2, 1, 8)
    found = guided(network, x, t, told=told, nothing=nothing, scale=3.0)
    torch.testing.assert_close(found, torch.full((2, 3), 3.0))


@pytest.mark.parametrize("kind", ["class", "text"])
def test_conditions_of_a_first_batch_serve_until_training_brings_its_own(kind):
    model, fresh = _made(kind), _made(kind)
    model.prepare(_batch())
    drawn = model.drawn(400, generator=Generator().manual_seed(0))
    rows = (drawn[:, None] == model.of_batch(_batch())[None]).reshape(400, 4, -1).all(-1)
    assert bool((rows.float().mean(0) > 0.15).all())
    for other in (model, fresh):
        other.trained(_batch()[torch.tensor([1, 2])])
    same = [other.drawn(50, generator=Generator().manual_seed(0)) for other in (model, fresh)]
    assert torch.equal(*same)


def test_shorter_captions_leave_nothing_of_longer_ones_that_stood_in_their_place():
    model, longer = _made("text"), _batch()
    shorter = Batch(longer.x, y=longer.y, text=longer.text[:, :1])
    model.prepare(longer)
    model.trained(shorter)
    drawn = model.drawn(200, generator=Generator().manual_seed(0))
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in shorter.text.tolist()}
