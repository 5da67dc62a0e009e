import numpy as np
import pytest
import torch

from blackswan.detectors import coreset
from blackswan.detectors.coreset import TIE, coreset_size, farther, k_center, random_directions
from blackswan.detectors.rows import DiskRows
from blackswan.errors import InputError
from blackswan.seeds import generator


def naive(points: torch.Tensor, picks: int, start: int) -> list[int]:
    """Read all points once per pick, in float64, with the tie rule of the module."""
    values = points.double().numpy()
    norms = (values**2).sum(1)
    tie = TIE * float(np.float32(norms.max()))
    far = np.full(len(values), np.inf)
    taken = [start]
    while len(taken) < picks:
        far = np.minimum(
            far, np.maximum(norms + norms[taken[-1]] - 2 * values @ values[taken[-1]], 0)
        )
        far[taken[-1]] = -np.inf
        taken.append(int(np.flatnonzero(far >= far.max() - tie)[0]))
    return taken


def draw(kind: str, count: int, dimensions: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((count, dimensions))
    if kind == "lattice":
        points = points.round()
    if kind == "duplicates":
        points = points[rng.integers(0, max(1, count // 20), count)]
    if kind == "outliers":
        points *= np.exp(2 * rng.standard_normal((count, 1)))
    if kind == "far from the origin":
        points = points.round(1) + 50
    return torch.from_numpy(points.astype(np.float32))


@pytest.mark.parametrize(
    "kind", ["normal", "lattice", "duplicates", "outliers", "far from the origin"]
)
@pytest.mark.parametrize(
    ("count", "dimensions", "picks"), [(700, 3, 90), (1300, 33, 150), (300, 128, 300), (90, 1, 90)]
)
@pytest.mark.parametrize(("block", "rows", "columns"), [(1024, 4096, 256), (16, 64, 8)])
def test_picks_are_those_of_the_naive_loop(
    kind, count, dimensions, picks, block, rows, columns, monkeypatch
):
    for name, value in (("BLOCK", block), ("ROWS", rows), ("COLUMNS", columns)):
        monkeypatch.setattr(coreset, name, value)
    for seed in range(2):
        points = draw(kind, count, dimensions, seed)
        start = seed * 7 % count
        assert k_center(points, picks, start).tolist() == naive(points, picks, start)


@pytest.mark.parametrize("kind", ["normal", "lattice", "outliers"])
def test_points_on_disk_give_the_same_picks(kind, tmp_path):
    points = draw(kind, 9000, 12, 3)  # more than are read at once
    rows = DiskRows(9000, 12, tmp_path, "")
    for block in points.split(700):
        rows.append(block)
    assert torch.equal(torch.cat(list(rows.blocks())), points)
    assert torch.equal(k_center(rows, 200, 5), k_center(points, 200, 5))
    centres = points[:40] + 1
    assert torch.equal(farther(centres, rows, 50), farther(centres, points, 50))
    assert list(tmp_path.iterdir()) == []  # nothing is left, however the process ends


@pytest.mark.parametrize("kind", ["normal", "lattice", "duplicates", "far from the origin"])
def test_greedy_goes_on_from_the_centres_it_has(kind):
    points = draw(kind, 900, 12, 4)
    picks = k_center(points, 120, 11)
    rest = torch.ones(900, dtype=torch.bool)
    rest[picks[:50]] = False
    new = farther(points[picks[:50]], points[rest], 70)
    assert torch.equal(torch.nonzero(rest).flatten()[new], picks[50:])


def test_ties_go_to_the_smallest_index():
    points = torch.tensor([[0.0], [1.0], [-1.0], [1.0]])
    assert k_center(points, 4, 0).tolist() == [0, 1, 2, 3]


def test_equal_points_are_each_picked_once():
    assert k_center(torch.ones(5000, 4), 5000, 17).tolist() == [17, *range(17), *range(18, 5000)]


def test_one_pick_and_one_point():
    assert k_center(torch.randn(50, 4), 1, 31).tolist() == [31]
    assert k_center(torch.ones(1, 4), 1, 0).tolist() == [0]


@pytest.mark.parametrize("picks", [0, 11])
def test_more_picks_than_points_are_refused(picks):
    with pytest.raises(InputError, match="out of 10 points; choose another coreset_ratio"):
        k_center(torch.randn(10, 2), picks, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_points_that_are_not_finite_are_refused(value):
    points = torch.randn(20, 3)
    points[7, 1] = value
    with pytest.raises(InputError, match="patch embeddings are not finite"):
        k_center(points, 5, 0)


def test_threads_do_not_change_the_picks():
    points = draw("normal", 6000, 64, 0)
    threads = torch.get_num_threads()
    try:
        picks = []
        for count in (1, 2):
            torch.set_num_threads(count)
            picks.append(k_center(points, 300, 0).tolist())
    finally:
        torch.set_num_threads(threads)
    assert picks[0] == picks[1]


def test_coreset_size():
    assert [coreset_size(1000, ratio) for ratio in (1.0, 0.01, 0.0001)] == [1000, 10, 1]
    assert [coreset_size(1000, 0.5, most) for most in (None, 400, 600)] == [500, 400, 500]


@pytest.mark.parametrize("kind", ["sparse", "gaussian"])
def test_projection_keeps_distances(kind):
    directions = random_directions(600, 256, kind, generator(3, "projection"))
    assert torch.equal(directions, random_directions(600, 256, kind, generator(3, "projection")))
    points = torch.from_numpy(
        np.random.default_rng(0).standard_normal((60, 600)).astype(np.float32)
    )
    ratio = torch.pdist(points @ directions) / torch.pdist(points)
    assert ratio.mean() == pytest.approx(1, abs=0.03)
    assert ratio.std() < 0.07
