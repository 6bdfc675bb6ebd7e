import torch

from genbench.prob.nearest_pairs import Pair, nearest_pairs, paired_neighbours


def test_pairs_are_listed_from_the_nearest_on_with_their_rows():
    samples, reference = torch.tensor([[0.0], [5.0], [9.0]]), torch.tensor([[9.0], [1.0], [20.0], [7.0]])
    expected = (Pair(2, 0, 0.0), Pair(0, 1, 1.0), Pair(1, 3, 2.0))
    assert nearest_pairs(samples, reference, num_pairs=3) == expected
    assert nearest_pairs(samples, reference, num_pairs=2) == expected[:2]
    assert nearest_pairs(samples, reference, num_pairs=99) == expected


def test_a_copy_is_the_first_pair():
    generator = torch.Generator().manual_seed(0)
    samples, reference = torch.randn(50, 300, generator=generator), torch.randn(60, 300, generator=generator)
    samples[31] = reference[17]
    assert nearest_pairs(samples, reference, num_pairs=1) == (Pair(31, 17, 0.0),)


def test_each_sample_can_be_shown_beside_several_neighbours():
    samples, reference = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [9.5], [-3.0]])
    found = paired_neighbours(samples, reference, rows=torch.tensor([1, 0]), k=2)
    assert found == ((Pair(1, 1, 0.5), Pair(1, 0, 9.0)), (Pair(0, 0, 1.0), Pair(0, 2, 3.0)))
