import torch

from blackswan.networks.embeddings import concatenate


def test_layers_join_on_the_given_grid():
    fine, coarse = torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    nearest = concatenate([fine, coarse], (4, 4), "nearest")
    assert torch.equal(nearest[0, 0], fine[0, 0])
    assert nearest[0, 1, 0].tolist() == [0, 0, 1, 1]
    assert concatenate([fine, coarse], (4, 4), "bilinear")[0, 1, 0].tolist() == [0, 0.25, 0.75, 1]
