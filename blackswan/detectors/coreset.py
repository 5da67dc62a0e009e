"""Greedy k-center coreset: the few points that leave no other far away (PatchCore, section 3.2).

Greedy asks, pick after pick, for the point farthest from all picks so far. A naive loop reads all
points once per pick. Distances to the nearest pick only shrink, so what a point was last known to
be from the picks bounds where it is now: only points that may be among the farthest are brought up
to date, by one matrix product with the picks they missed, and most never meet most of the picks.
Inside a block of the farthest greedy goes on alone while they are farther than everything outside.

Two distances are in play. The matrix product is float32 with a proven error bound (`slack`), on the
GPU where there is one, and only chooses who is looked at. Every decision is made in float64, where
distances within `tie` of each other count as equal and the smallest index wins: picks do not depend
on threads, BLAS, the device, or on whether the points lie in memory or on disk, where each is read
a few times in all.
"""

import math
from itertools import takewhile
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from blackswan.detectors.rows import MemoryRows, Rows
from blackswan.errors import InputError
from blackswan.networks.devices import device

Projection = Literal["sparse", "gaussian"]

BLOCK = 1024  # candidates of a round, at most
REACH = 0.87  # of the largest squared distance: what a round takes for far
ROWS, COLUMNS = 4096, 256  # of one matrix product: its result stays in the cache
KNOWN = 10  # numbers that are in memory for each point, at most
TIE = 1e-10  # of the largest squared norm: far above float64 noise, far below what matters


def coreset_size(points: int, ratio: float, most: int | None = None) -> int:
    """Return how many of `points` a coreset of `ratio` keeps: at least one, at most `most`."""
    return min(max(1, round(points * ratio)), most or points)


def random_directions(
    features: int, components: int, kind: Projection, rng: np.random.Generator
) -> Tensor:
    """Draw the matrix (features, components) of a projection that keeps distances.

    `sparse` takes entries of +-1 with the density 1 / sqrt(features) (Li and others, 2006).
    """
    if kind == "gaussian":
        directions = rng.standard_normal((features, components)) / np.sqrt(components)
    else:
        density = 1 / np.sqrt(features)
        signs = rng.integers(0, 2, (features, components)) * 2 - 1
        taken = rng.random((features, components)) < density
        directions = signs * taken / np.sqrt(density * components)
    return torch.from_numpy(directions.astype(np.float32))


def k_center(points: Tensor | Rows, picks: int, start: int) -> Tensor:
    """Return the indices of `picks` points (N, D), float32, in the order greedy takes them.

    `start` is the first. Exact: the picks of the naive loop with the same rule for ties; a point is
    picked once. Memory beside the points is a few numbers a point, the picks and one block. Raises
    InputError for more picks than points and for points that are not finite.
    """
    rows = MemoryRows(points) if isinstance(points, Tensor) else points
    return _greedy(rows, picks, torch.empty(0, rows.shape[1]), [start])


def farther(centres: Tensor, points: Tensor | Rows, picks: int) -> Tensor:
    """Return the indices of `picks` points (N, D) that greedy adds to the `centres` (M, D) it has.

    Exact and bounded as `k_center`, which raises the same.
    """
    rows = MemoryRows(points) if isinstance(points, Tensor) else points
    return _greedy(rows, picks, centres, [])


def grown(bank: Tensor, points: Tensor, ratio: float, most: int | None) -> Tensor:
    """Return a bank (M, D) to which a share of new points (N, D) was added, those farthest from it.

    A bank that would have more than `most` points keeps its size: as in a greedy choice out of all,
    a new point takes the place of one that lay nearer to those picked before it. Points of the bank
    stand in the order of their picks, and what joins a full one comes first.
    """
    joining = coreset_size(len(points), ratio)
    if most is None or len(bank) + joining <= most:
        if joining < len(points):
            points = points[farther(bank, points, joining)]
        return torch.cat([bank, points])
    free = most - len(bank)
    leaving = _separations(bank, min(len(points), len(bank) - 1)).flip(0)
    if not free:  # what lies nearer to the bank than its last pick has no place in it
        near = [torch.cdist(part, bank).min(1).values for part in points.split(BLOCK)]
        points = points[torch.cat(near) > leaving.min()]
        if not len(points):
            return bank
    points = points[farther(bank, points, min(len(points), most))]
    coming = _separations(torch.cat([bank, points]), len(points))
    pairs = zip(coming[free:].tolist(), leaving.tolist(), strict=False)
    swapped = sum(1 for _ in takewhile(lambda pair: pair[0] > pair[1], pairs))
    return torch.cat([points[: free + swapped], bank[: len(bank) - swapped]])


def _separations(points: Tensor, last: int) -> Tensor:
    """Return the distance (K,) of each of the last K points (N, D) to the nearest before it."""
    first = len(points) - last
    distances = torch.cdist(points[first:], points)
    later = torch.ones_like(distances, dtype=torch.bool).triu(first)
    return distances.masked_fill(later, torch.inf).min(1).values


def _greedy(points: Rows, picks: int, centres: Tensor, first: list[int]) -> Tensor:
    if not 1 <= picks <= points.shape[0]:
        raise InputError(
            f"a coreset of {picks} out of {points.shape[0]} points; choose another coreset_ratio"
        )
    greedy = _Greedy(points, picks, centres)
    greedy.add(first)
    with tqdm(total=picks, initial=len(first), desc="coreset", unit="pick", disable=None) as bar:
        while len(greedy.picks) < picks:
            before = len(greedy.picks)
            greedy.round(picks - before)
            bar.update(len(greedy.picks) - before)
    return torch.tensor(greedy.picks)


class _Greedy:
    """Greedy k-center under way: its centres, and how far every point is from those it has met."""

    def __init__(self, points: Rows, picks: int, given: Tensor) -> None:
        self.points = points  # (N, D)
        # Filled, not joined: small results that stay would pin the memory of their blocks.
        self.norms, begin = torch.empty(points.shape[0]), 0
        for block in points.blocks():
            self.norms[begin : begin + len(block)] = _squares(block)
            begin += len(block)
        # Those that are given, then the picks; of the rest of these rows nothing is known yet.
        self.centres = torch.empty(len(given) + picks, points.shape[1])
        self.centres[: len(given)] = given
        self.centre_norms = torch.empty(len(self.centres))
        self.centre_norms[: len(given)] = _squares(given)
        self.count = len(given)  # of centres
        largest = float(torch.cat([self.norms, self.centre_norms[: self.count]]).max())
        if not math.isfinite(largest):
            raise InputError(
                "some patch embeddings are not finite numbers; fetch the weights again, or mend "
                "the image that the backbone fails on"
            )
        # |x|^2 + |c|^2 - 2 x.c in float32: the dot product errs by at most D u |x||c|, each of the
        # sums by at most 4 u |x|^2, with u = 2^-24 and all norms below the largest.
        self.slack = (2 * points.shape[1] + 16) * 2.0**-24 * largest
        self.tie = TIE * largest
        # Squared distance to the nearest of the first `met` centres; -inf: picked.
        self.far = torch.full((len(self.norms),), torch.inf)
        self.met = torch.zeros(len(self.norms), dtype=torch.int32)
        self.picks: list[int] = []

    def add(self, new: list[int]) -> None:
        """Pick these points."""
        self.picks += new
        self.far[new] = -torch.inf
        added = slice(self.count, self.count + len(new))
        indices = torch.tensor(new, dtype=torch.int64)
        self.points.take(indices, out=self.centres[added])
        self.centre_norms[added] = self.norms[indices]
        self.count += len(new)

    def round(self, wanted: int) -> None:
        """Add up to `wanted` picks; none where every point is nearer than it seemed."""
        top = float(self.far.max())
        bound = min(REACH * top, top - 4 * self.slack)
        candidates = torch.nonzero(self.far >= bound).flatten()
        self._meet(candidates)
        candidates = candidates[self.far[candidates] >= bound]
        if len(candidates) > BLOCK:
            largest = torch.topk(self.far[candidates], BLOCK + 1)
            bound = float(largest.values[BLOCK])
            candidates = candidates[largest.indices[:BLOCK]].sort().values
        if len(candidates):
            self.add(self._pick(candidates, bound + self.slack, wanted) or self._tied(wanted))

    def _meet(self, rows: Tensor) -> None:
        """Bring `far` of some rows up to date with all centres."""
        rows = rows[self.met[rows] < self.count]
        if not len(rows):
            return
        rows = rows[self.met[rows].sort(stable=True).indices]
        # Written again and again: fresh pages would cost a third of the time.
        gathered = torch.empty(min(ROWS, len(rows)), self.points.shape[1])
        product = torch.empty(len(gathered) * min(COLUMNS, self.count), device=device())
        for part in rows.split(ROWS):
            block = self.points.take(part, out=gathered[: len(part)]).to(device())
            nearest = torch.full((len(part),), torch.inf, device=device())
            for begin in range(int(self.met[part[0]]), self.count, COLUMNS):
                missed = slice(begin, min(begin + COLUMNS, self.count))
                size = missed.stop - begin
                squared = product[: len(part) * size].view(len(part), size)
                centres, norms = (
                    values[missed].to(device()) for values in (self.centres, self.centre_norms)
                )
                torch.addmm(norms, block, centres.T, alpha=-2, out=squared)
                nearest = torch.minimum(nearest, squared.amin(1))
            self.far[part] = torch.minimum(self.far[part], nearest.cpu() + self.norms[part])
            self.met[part] = self.count

    def _exact(self, rows: Tensor) -> np.ndarray:
        """Return the squared distance of rows to their nearest centre, in float64."""
        far = []
        for part in rows.split(ROWS):
            block = self.points.take(part).double()
            nearest = torch.full((len(part),), torch.inf, dtype=torch.float64)
            for chunk in self.centres[: self.count].split(COLUMNS):
                centres = chunk.double()
                squared = torch.addmm(centres.square().sum(1), block, centres.T, alpha=-2)
                nearest = torch.minimum(nearest, squared.amin(1))
            far.append((nearest + block.square().sum(1)).clamp_(min=0))
        return torch.cat(far).numpy()

    def _pick(self, candidates: Tensor, bound: float, wanted: int) -> list[int]:
        """Go on greedily inside `candidates` (sorted) while they are farther than `bound`."""
        far = self._exact(candidates)
        block = self.points.take(candidates).double().numpy()
        norms = np.square(block).sum(axis=1)
        new: list[int] = []
        while len(new) < wanted and far.max() - self.tie > bound:
            pick = int(np.argmax(far >= far.max() - self.tie))
            new.append(pick)
            squared = norms + norms[pick] - 2 * (block @ block[pick])
            np.minimum(far, np.maximum(squared, 0), out=far)
            far[pick] = -np.inf
        return candidates[new].tolist()

    def _tied(self, wanted: int) -> list[int]:
        """Return the next pick where more points tie than a block holds: look at all of them."""
        reach = float(self.far.max()) - 2 * self.slack - self.tie
        candidates = torch.nonzero(self.far >= reach).flatten()
        far = self._exact(candidates)
        if far.max() <= self.tie:  # every point left coincides with a pick
            return torch.nonzero(self.far > -torch.inf).flatten()[:wanted].tolist()
        return candidates[[int(np.argmax(far >= far.max() - self.tie))]].tolist()


def _squares(rows: Tensor) -> Tensor:
    return rows.double().square().sum(1).float()
