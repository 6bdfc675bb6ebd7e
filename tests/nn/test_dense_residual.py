import torch

from genbench.nn.dense_residual import DenseResidualNet


def test_it_starts_at_zero_and_then_maps_as_told():
    net = DenseResidualNet(3, 5, width=8, num_blocks=2)
    x = torch.randn(4, 3)
    assert torch.equal(net(x), torch.zeros(4, 5))
    torch.nn.init.normal_(net.head.weight)
    assert net(x).shape == (4, 5)
    assert net(x).std() > 0.0


def test_dropout_acts_in_training_alone():
    net = DenseResidualNet(3, 5, width=64, num_blocks=2, dropout=0.5)
    torch.nn.init.normal_(net.head.weight)
    x = torch.randn(4, 3)
    assert not torch.equal(net.train()(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
