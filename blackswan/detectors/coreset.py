"""Greedy k-center coreset: the few points that leave no other far away (PatchCore, section 3.2).

Greedy asks, pick after pick, for the point farthest from all picks so far. A naive loop reads all
points once per pick. Distances to the nearest pick only shrink, so what a point was last known to
be from the picks bounds where it is now: only points that may be among the farthest are brought up
to date, by one matrix product with the picks they missed, and most never meet most of the picks.
Inside a block of the farthest greedy goes on alone while they are farther than everything outside.

Two distances are in play. The matrix product is float32 with a proven error bound (`slack`) and
only chooses who is looked at. Every decision is made in float64, where distances within `tie` of
each other count as equal and the smallest index wins: picks do not depend on threads or BLAS.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from blackswan.errors import InputError

Projection = Literal["sparse", "gaussian"]

BLOCK = 1024  # candidates of a round, at most
REACH = 0.87  # of the largest squared distance: what a round takes for far
ROWS, COLUMNS = 4096, 256  # of one matrix product: its result stays in the cache
TIE = 1e-10  # of the largest squared norm: far above float64 noise, far below what matters


def coreset_size(points: int, ratio: float) -> int:
    """Return how many of `points` a coreset of `ratio` keeps: at least one."""
    return max(1, round(points * ratio))


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


def k_center(points: Tensor, picks: int, start: int) -> Tensor:
    """Return the indices of `picks` points (N, D), float32, in the order greedy takes them.

    `start` is the first. Exact: the picks of the naive loop with the same rule for ties; a point is
    picked once. Memory beside the points is a few numbers a point, the picks and one block. Raises
    InputError for more picks than points and for points that are not finite.
    """
    if not 1 <= picks <= len(points):
        raise InputError(
            f"a coreset of {picks} out of {len(points)} points; choose another coreset_ratio"
        )
    greedy = _Greedy(points, start)
    with tqdm(total=picks, initial=1, desc="coreset", unit="pick", disable=None) as bar:
        while len(greedy.picks) < picks:
            before = len(greedy.picks)
            greedy.round(picks - before)
            bar.update(len(greedy.picks) - before)
    return torch.tensor(greedy.picks)


class _Greedy:
    """Greedy k-center under way: the picks, and how far every point is from those it has met."""

    def __init__(self, points: Tensor, start: int) -> None:
        self.points = points  # (N, D)
        parts = points.split(ROWS)
        self.norms = torch.cat([part.double().square().sum(1).float() for part in parts])
        largest = float(self.norms.max())
        if not math.isfinite(largest):
            raise InputError(
                "some patch embeddings are not finite numbers; fetch the weights again, or mend "
                "the image that the backbone fails on"
            )
        # |x|^2 + |c|^2 - 2 x.c in float32: the dot product errs by at most D u |x||c|, each of the
        # sums by at most 4 u |x|^2, with u = 2^-24 and all norms below the largest.
        self.slack = (2 * points.shape[1] + 16) * 2.0**-24 * largest
        self.tie = TIE * largest
        # Squared distance to the nearest of the first `met` picks; -inf: picked.
        self.far = torch.full((len(points),), torch.inf)
        self.met = torch.zeros(len(points), dtype=torch.int32)
        self.picks: list[int] = []
        self._take([start])

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
            self._take(self._pick(candidates, bound + self.slack, wanted) or self._tied(wanted))

    def _take(self, new: list[int]) -> None:
        self.picks += new
        self.far[new] = -torch.inf

    def _meet(self, rows: Tensor) -> None:
        """Bring `far` of some rows up to date with all picks."""
        rows = rows[self.met[rows] < len(self.picks)]
        if not len(rows):
            return
        rows = rows[self.met[rows].sort(stable=True).indices]
        picks = torch.tensor(self.picks)
        # Written again and again: fresh pages would cost a third of the time.
        gathered = torch.empty(min(ROWS, len(rows)), self.points.shape[1])
        product = torch.empty(len(gathered) * min(COLUMNS, len(picks)))
        for part in rows.split(ROWS):
            block = gathered[: len(part)]
            torch.index_select(self.points, 0, part, out=block)
            nearest = torch.full((len(part),), torch.inf)
            for missed in picks[self.met[part[0]] :].split(COLUMNS):
                squared = product[: len(part) * len(missed)].view(len(part), len(missed))
                centres = self.points[missed].T
                torch.addmm(self.norms[missed], block, centres, alpha=-2, out=squared)
                nearest = torch.minimum(nearest, squared.amin(1))
            self.far[part] = torch.minimum(self.far[part], nearest + self.norms[part])
            self.met[part] = len(picks)

    def _exact(self, rows: Tensor) -> np.ndarray:
        """Return the squared distance of rows to their nearest pick, in float64."""
        far = []
        for part in rows.split(ROWS):
            block = self.points[part].double()
            nearest = torch.full((len(part),), torch.inf, dtype=torch.float64)
            for chunk in torch.tensor(self.picks).split(COLUMNS):
                picked = self.points[chunk].double()
                squared = torch.addmm(picked.square().sum(1), block, picked.T, alpha=-2)
                nearest = torch.minimum(nearest, squared.amin(1))
            far.append((nearest + block.square().sum(1)).clamp_(min=0))
        return torch.cat(far).numpy()

    def _pick(self, candidates: Tensor, bound: float, wanted: int) -> list[int]:
        """Go on greedily inside `candidates` (sorted) while they are farther than `bound`."""
        far = self._exact(candidates)
        block = self.points[candidates].double().numpy()
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
