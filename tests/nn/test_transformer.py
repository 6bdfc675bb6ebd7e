"""Caches give what a pass over everything gives, whichever way they keep it, however many elements come at a time."""

import pytest
import torch

from genbench.nn.transformer import Block, FixedCache, GrowingCache, Masked, causal, empty_caches, everything

B, HEADS, L, D = 2, 3, 7, 4


def _qkv(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, HEADS, L, D, generator=generator, dtype=torch.float64) for _ in range(3)]


def _cache(kind, length=L):
    like = torch.zeros(HEADS * D, dtype=torch.float64)
    (cache,) = empty_caches(1, num_samples=B, num_heads=HEADS, length=length, like=like, kind=kind)
    return cache


@pytest.mark.parametrize("kind", ["growing", "fixed"])
def test_elements_that_come_one_by_one_attend_as_causal_ones(kind):
    q, k, v = _qkv()
    cache = _cache(kind, length=L + 2)  # places beyond the sequence change nothing
    found = [cache(q[:, :, i : i + 1], k[:, :, i : i + 1], v[:, :, i : i + 1]) for i in range(L)]
    torch.testing.assert_close(torch.cat(found, dim=2), causal(q, k, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["growing", "fixed"])
def test_elements_that_come_in_blocks_see_their_own_block_and_those_before(kind):
    q, k, v = _qkv()
    sizes = [1, 4, 2]
    block = torch.tensor([0, 1, 1, 1, 1, 2, 2])
    cache = _cache(kind)
    pieces = zip(*(x.split(sizes, dim=2) for x in (q, k, v)), strict=True)
    found = torch.cat([cache(*piece) for piece in pieces], dim=2)
    expected = Masked(block[:, None] >= block)(q, k, v)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["growing", "fixed"])
def test_a_cache_that_starts_again_knows_nothing_of_before(kind):
    q, k, v = _qkv()
    cache = _cache(kind)
    cache(*_qkv(seed=1))
    cache.restart()
    found = cache(q[:, :, :3], k[:, :, :3], v[:, :, :3])
    expected = everything(q[:, :, :3], k[:, :, :3], v[:, :, :3])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_whatever_lay_in_the_memory_of_a_fixed_cache_is_without_effect():
    q, k, v = _qkv()
    bad = torch.full((B, HEADS, L, D), torch.nan, dtype=torch.float64)
    found = FixedCache(bad.clone(), bad.clone())(q[:, :, :1], k[:, :, :1], v[:, :, :1])
    torch.testing.assert_close(found, v[:, :, :1])


def test_a_fixed_cache_stays_where_it_is():
    cache, (q, k, v) = _cache("fixed"), _qkv()
    before = [t.data_ptr() for t in (cache.keys, cache.values, cache.length)]
    for i in range(L):
        out = cache(q[:, :, i : i + 1], k[:, :, i : i + 1], v[:, :, i : i + 1])
        assert out.shape == (B, HEADS, 1, D)
    assert [t.data_ptr() for t in (cache.keys, cache.values, cache.length)] == before
    assert cache.length.tolist() == [L]


def test_caches_on_a_processor_grow():
    assert isinstance(_cache(None), GrowingCache)


def test_a_block_lets_elements_see_what_it_is_told():
    torch.manual_seed(0)
    block = Block(12, num_heads=3, dropout=0.0, num_layers=1).double()
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    for attend, expected in ((causal, torch.ones(5, 5).tril()), (everything, torch.ones(5, 5))):
        jacobian = torch.autograd.functional.jacobian(lambda x, attend=attend: block(x, attend).sum((0, 2)), x)
        assert torch.equal((jacobian[:, 0].abs().sum(2) > 0).float(), expected)
