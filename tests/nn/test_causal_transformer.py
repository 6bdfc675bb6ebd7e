"""The transformer is a normalised law that sees the past alone, equals PyTorch's own layers, and samples itself."""

import itertools

import pytest
import torch
from torch import nn

from genbench.nn._categorical_head import draw
from genbench.nn.causal_transformer import CausalTransformer, most_probable


def _made(num_levels, length, *, seed=0, **settings):
    """A network off its starting point, whose softmax is far from uniform."""
    torch.manual_seed(seed)
    sizes = {"width": 12, "num_layers": 2, "num_heads": 3} | settings
    model = CausalTransformer(num_levels=num_levels, length=length, **sizes)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("num_levels", "length"), [(2, 6), (3, 4), (7, 1)])
def test_probabilities_of_all_sequences_sum_to_one(num_levels, length):
    model = _made(num_levels, length).double()
    codes = torch.tensor(list(itertools.product(range(num_levels), repeat=length)))
    log_probs = model.log_prob(codes)
    assert log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_probs.std() > 0.1


def test_a_change_of_one_code_moves_all_logits_after_it_and_no_others():
    model, length = _made(5, 7).double(), 7
    codes = torch.randint(5, (1, length), generator=_generator())
    with torch.no_grad():
        before = model(codes)
        for changed in range(length):
            other = codes.clone()
            other[0, changed] = (other[0, changed] + 1) % 5
            moved = (model(other) - before)[0].abs().amax(1) > 1e-9
            assert moved.tolist() == [place > changed for place in range(length)]


def test_blocks_equal_the_layers_of_pytorch():
    model, width, heads = _made(4, 6, width=24, num_heads=4), 24, 4
    x, mask = torch.randn(3, 6, width), nn.Transformer.generate_square_subsequent_mask(6)
    for block in model.blocks:
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        ours = dict(block.named_parameters())
        names = {
            "self_attn.in_proj_weight": "qkv.weight",
            "self_attn.in_proj_bias": "qkv.bias",
            "self_attn.out_proj.weight": "out.weight",
            "self_attn.out_proj.bias": "out.bias",
            "linear1.weight": "wide.weight",
            "linear1.bias": "wide.bias",
            "linear2.weight": "narrow.weight",
            "linear2.bias": "narrow.bias",
        } | {f"norm{n}.{kind}": f"norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")}
        assert set(ours) == set(names.values())
        layer.load_state_dict({theirs: ours[own].detach() for theirs, own in names.items()})
        expected = layer(x, src_mask=mask, is_causal=True)
        torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top_k", [0, 2])
def test_samples_with_a_cache_equal_those_of_whole_passes(top_k):
    model, count, length = _made(6, 9), 16, 9
    found = model.sample(count, generator=_generator(3), top_k=top_k)
    uniforms, codes = torch.rand(count, length, generator=_generator(3)), torch.zeros(count, length, dtype=torch.int64)
    with torch.no_grad():
        for i in range(length):
            codes[:, i] = draw(most_probable(model(codes)[:, i], top_k), uniforms[:, i])
    assert torch.equal(found, codes)
    assert len(found.unique(dim=0)) > 8


def test_samples_follow_the_probabilities():
    model, count = _made(3, 3), 20_000
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    expected = model.log_prob(every).exp().detach()
    draws = model.sample(count, generator=_generator()) @ torch.tensor([9, 3, 1])
    found = torch.bincount(draws, minlength=27) / count
    spread = (expected * (1 - expected) / count).sqrt()
    assert bool(((found - expected).abs() <= 4.5 * spread + 1e-9).all())


def test_only_the_most_probable_levels_are_drawn():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0], [5.0, 1.0, 1.5, 0.0]])
    kept = most_probable(logits, 2)
    assert torch.equal(kept.isfinite(), torch.tensor([[False, True, False, True], [True, False, True, False]]))
    for all_of_them in (0, 4, 9):
        assert torch.equal(most_probable(logits, all_of_them), logits)


def test_dropout_acts_in_training_only():
    model, codes = _made(4, 5, dropout=0.5), torch.zeros(1, 5, dtype=torch.int64)
    assert torch.equal(model(codes), model(codes))
    model.train()
    assert not torch.equal(model(codes), model(codes))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="a width of 10 does not split into 3 heads"):
        CausalTransformer(num_levels=2, length=2, width=10, num_layers=1, num_heads=3)


@pytest.mark.parametrize("inputs", ["ordered", "categorical"])
@pytest.mark.parametrize("cache", ["growing", "fixed"])
def test_samples_of_told_sequences_equal_those_of_whole_passes(cache, inputs):
    model, count, length = _made(6, 9, inputs=inputs), 16, 9
    told = torch.randn(count, 12, generator=_generator(1))
    found = model.sample(count, generator=_generator(3), told=told, cache=cache)
    uniforms, codes = torch.rand(count, length, generator=_generator(3)), torch.zeros(count, length, dtype=torch.int64)
    with torch.no_grad():
        for i in range(length):
            codes[:, i] = draw(model(codes, told)[:, i], uniforms[:, i])
    assert torch.equal(found, codes)
    with torch.no_grad():
        assert (model(codes, told) - model(codes)).abs().amax((0, 2)).min() > 1e-3  # every element is told


def test_the_mean_is_that_of_the_log_probabilities():
    model, codes = _made(6, 9), torch.randint(6, (5, 9), generator=_generator())
    told = torch.randn(5, 12, generator=_generator(1))
    for condition in (None, told):
        torch.testing.assert_close(model.mean_nll(codes, condition), -model.log_prob(codes, condition).mean() / 9)


def test_ordered_levels_begin_like_their_neighbours():
    torch.manual_seed(0)
    model = CausalTransformer(num_levels=64, length=2, width=32, num_layers=1, num_heads=4, inputs="ordered")
    for table in (model.embedding.weight, model.head.weight):
        apart = torch.cdist(table, table).detach()
        assert apart.diagonal(1).mean() < 0.7 * apart.mean()


@pytest.mark.slow
def test_a_step_with_fixed_caches_is_compiled_once_for_all_places():
    model, length = _made(5, 6), 6
    codes = torch.randint(5, (2, length), generator=_generator())
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    step = torch.compile(model.next_logits, backend=count, dynamic=False, fullgraph=True)
    caches, x, found = model.empty_caches(2, "fixed"), model.start.detach().repeat(2, 1), []
    with torch.no_grad():
        for i in range(length):
            found.append(step(x, torch.tensor([i]), caches))
            x = model.embedding(codes[:, i])
        torch.testing.assert_close(torch.stack(found, dim=1), model(codes), rtol=1e-4, atol=1e-5)
    assert len(graphs) == 1
