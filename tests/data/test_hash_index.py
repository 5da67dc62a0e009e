import numpy as np
import pytest

from blackswan.data.hash_index import HashIndex


def clusters(count, seed):
    """Return hashes that lie 0 to 24 bits from one of a few, and some anywhere."""
    rng = np.random.default_rng(seed)
    centers = rng.integers(0, 2**64, 6, dtype=np.uint64)
    hashes = centers[rng.integers(0, len(centers), count)]
    for bits in rng.integers(0, 64, (24, count)).astype(np.uint64):
        flipped = rng.random(count) < 0.2
        hashes = np.where(flipped, hashes ^ (np.uint64(1) << bits), hashes)
    anywhere = rng.random(count) < 0.3
    return np.where(anywhere, rng.integers(0, 2**64, count, dtype=np.uint64), hashes)


@pytest.mark.parametrize("limit", [0, 1, 3, 6, 8, 9, 20, 64])
def test_what_the_index_finds_is_what_comparing_all_finds(limit):
    hashes = clusters(400, limit)
    hashes[350:] = hashes[10]  # a bucket that many share
    index = HashIndex(hashes, limit)
    found = 0
    for row in range(len(hashes)):
        distances = np.bitwise_count(hashes ^ hashes[row])
        expected = [n for n in range(row + 1, len(hashes)) if distances[n] <= limit]
        assert index.near(row).tolist() == expected
        found += len(expected)
    assert found > 1000  # of the 79800 pairs


def test_only_what_shares_a_part_is_compared(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64)
    index = HashIndex(hashes, 6)
    compared = 0
    count_bits = np.bitwise_count

    def counted(difference):
        nonlocal compared
        compared += len(difference)
        return count_bits(difference)

    monkeypatch.setattr("numpy.bitwise_count", counted)
    for row in range(len(hashes)):
        index.near(row)
    assert compared < 0.02 * 5000 * 4999 / 2
