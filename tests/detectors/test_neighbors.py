import pytest
import torch

from blackswan.detectors import neighbors
from blackswan.detectors.neighbors import nearest


def draw(*shape: int, seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + offset


@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize(("queries", "bank"), [(1, 40), (130, 700)])
@pytest.mark.parametrize("block", [8192, 64])
def test_agrees_with_brute_force(queries, bank, k, block, monkeypatch):
    monkeypatch.setattr(neighbors, "BANK", block)
    monkeypatch.setattr(neighbors, "QUERIES", block)
    asked, stored = draw(queries, 24), draw(bank, 24, seed=1)
    expected = torch.cdist(asked.double(), stored.double()).sort(dim=1)
    distances, found = nearest(asked, stored, k)
    assert torch.equal(found, expected.indices[:, :k])
    torch.testing.assert_close(distances.double(), expected.values[:, :k], atol=1e-5, rtol=1e-5)


def test_distance_to_itself_is_zero_even_far_from_the_origin():
    bank = draw(500, 64, offset=100)
    distances, found = nearest(bank, bank)
    assert distances.max() == 0
    assert found.flatten().tolist() == list(range(500))


def test_small_distances_survive_large_norms():
    bank = draw(200, 16, offset=100)
    distances, _ = nearest(bank + 1e-2, bank)
    torch.testing.assert_close(distances, torch.full((200, 1), 4e-2), atol=1e-4, rtol=0)


def test_of_equal_distances_the_smaller_index_comes_first():
    bank = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    _, found = nearest(torch.zeros(1, 2), bank, 4)
    assert found.tolist() == [[1, 0, 2, 3]]


def test_batches_and_threads_agree():
    asked, bank = draw(64, 200, offset=3), draw(3000, 200, seed=1, offset=3)
    threads = torch.get_num_threads()
    try:
        results = []
        for count, size in [(1, 1), (1, 16), (2, 4), (2, 64)]:
            torch.set_num_threads(count)
            results.append(torch.cat([nearest(part, bank, 3)[0] for part in asked.split(size)]))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=1e-5, rtol=1e-5)


def test_no_queries():
    distances, found = nearest(torch.empty(0, 4), draw(10, 4), 2)
    assert distances.shape == found.shape == (0, 2)
