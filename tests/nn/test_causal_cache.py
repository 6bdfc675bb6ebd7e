"""A prompt in one pass and words one by one attend as the whole row does."""

import torch

from genbench.nn.causal_cache import CausalCache
from genbench.nn.transformer import causal


def test_parts_of_any_length_attend_as_the_whole_row():
    q, k, v = torch.randn(3, 2, 2, 9, 4, dtype=torch.float64).unbind()
    whole = causal(q, k, v)
    for sizes in ([9], [5, 1, 1, 2], [1] * 9):
        cache, parts = CausalCache(), zip(*(x.split(sizes, dim=2) for x in (q, k, v)), strict=True)
        found = torch.cat([cache(*part) for part in parts], dim=2)
        torch.testing.assert_close(found, whole)
        assert cache.length == 9
