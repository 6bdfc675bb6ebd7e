"""Relaxed draws become draws of the softmax as the temperature falls; the rate is the divergence to the uniform law."""

import math

import torch

from genbench.nn.relaxed_quantizer import RelaxedQuantizer


def _made(num_codes=4, code_dim=4):
    torch.manual_seed(0)
    return RelaxedQuantizer(num_codes, code_dim)


def test_at_a_low_temperature_codes_are_drawn_as_often_as_the_softmax_says():
    model, count = _made(), 20_000
    model.codebook.data = torch.eye(4)
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    torch.manual_seed(1)
    drawn = model(logits.view(1, 4, 1, 1).expand(count, -1, 1, 1), temperature=torch.tensor(1e-3)).values
    assert drawn.amax(1).mean() > 0.99  # nearly always one code alone
    found, expected = drawn[:, :, 0, 0].mean(0), logits.softmax(0)
    assert bool(((found - expected).abs() <= 4.5 * (expected * (1 - expected) / count).sqrt()).all())


def test_at_a_high_temperature_all_codes_are_mixed():
    model = _made()
    values = model(torch.randn(2, 4, 3, 3), temperature=torch.tensor(1e5)).values
    torch.testing.assert_close(values, model.codebook.mean(0).view(1, 4, 1, 1).expand_as(values), rtol=0, atol=2e-3)


def test_the_rate_is_the_divergence_to_the_uniform_law():
    model = _made()
    logits = torch.randn(3, 4, 2, 2)
    q = torch.distributions.Categorical(logits=logits.movedim(1, -1))
    uniform = torch.distributions.Categorical(logits=torch.zeros(3, 2, 2, 4))
    expected = torch.distributions.kl_divergence(q, uniform).flatten(1).sum(1)
    torch.testing.assert_close(model(logits, temperature=torch.ones(())).rate, expected)
    sure = torch.full((1, 4, 2, 2), -50.0)
    sure[:, 1] = 50.0
    torch.testing.assert_close(model(sure, temperature=torch.ones(())).rate, torch.tensor([4 * math.log(4)]))


def test_logits_and_codebook_get_gradients():
    model, logits = _made(), torch.randn(2, 4, 3, 3, requires_grad=True)
    model(logits, temperature=torch.ones(())).values.square().sum().backward()
    assert logits.grad.abs().sum() > 0
    assert model.codebook.grad.abs().sum() > 0


def test_the_most_probable_code_is_the_one_that_is_kept():
    model, logits = _made(code_dim=3), torch.randn(2, 4, 3, 3)
    codes = model.nearest(logits)
    assert torch.equal(codes, logits.argmax(1))
    assert torch.equal(model.embed(codes)[1, :, 2, 0], model.codebook[codes[1, 2, 0]])
