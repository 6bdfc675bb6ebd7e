import math

import torch
from torch import nn
from torch.nn import functional as F

from genbench.nn.noisy_dual_encoder import MOST_SHARP, NoisyDualEncoder, similarity_slope

CAPTIONS = torch.tensor([[1, 2], [1, 3], [1, 2], [4, 0]])


class _Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.map = nn.Linear(12, 8)

    def forward(self, x, t):
        return self.map(x.flatten(1)) * (1.0 + t[:, None] / 10.0)


def _made():
    torch.manual_seed(0)
    return NoisyDualEncoder(_Pictures(), num_words=5, dim=8, width=16)


def test_the_loss_is_the_cross_entropy_both_ways_with_equal_captions_as_right_answers():
    model = _made()
    x, t = torch.randn(4, 3, 2, 2), torch.tensor([1, 2, 3, 4])
    loss, found = model.loss(x, t, CAPTIONS)
    logits = model.sharpness * model.shown(x, t) @ model.captions(CAPTIONS).T
    expected = 0.0
    for table in (logits, logits.T):
        log_p = table.log_softmax(1)
        rows = [(log_p[0, 0] + log_p[0, 2]) / 2, log_p[1, 1], (log_p[2, 0] + log_p[2, 2]) / 2, log_p[3, 3]]
        expected -= sum(rows) / 4 / 2
    torch.testing.assert_close(loss, expected)
    nearest = logits.argmax(1)
    right = [int(torch.equal(CAPTIONS[i], CAPTIONS[nearest[i]])) for i in range(4)]
    assert float(found) == sum(right) / 4


def test_directions_have_length_1_and_the_sharpness_a_ceiling():
    model = _made()
    torch.testing.assert_close(model.captions(CAPTIONS).norm(dim=1), torch.ones(4))
    torch.testing.assert_close(model.shown(torch.randn(4, 3, 2, 2), torch.ones(4)).norm(dim=1), torch.ones(4))
    torch.testing.assert_close(model.sharpness.detach(), torch.tensor(1 / 0.07))
    model.log_sharpness.data.fill_(math.log(1000.0))
    torch.testing.assert_close(model.sharpness.detach(), torch.tensor(MOST_SHARP))


def test_the_slope_of_a_known_similarity_is_its_gradient_also_where_nothing_is_recorded():
    x, target = torch.randn(3, 4), torch.randn(3, 4)
    expected = F.normalize(target, dim=1)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            slope = similarity_slope(lambda x, t: (x * expected).sum(1) * t, x, torch.tensor([1.0, 2.0, 3.0]))
        torch.testing.assert_close(slope, expected * torch.tensor([[1.0], [2.0], [3.0]]))
        assert not slope.requires_grad
