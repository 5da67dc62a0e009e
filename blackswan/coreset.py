"""Greedy k-center coreset: the few points that leave no other far away (PatchCore, section 3.2).

Greedy asks, pick after pick, for the point farthest from all picks so far. A naive loop reads all
points once per pick. Here picks are made in rounds: distances to the nearest pick only shrink, so
inside a block of the farthest points greedy goes on alone for as long as its farthest point is
farther than everything outside. One matrix product per round then settles the debt of all points.

Two distances are in play. The matrix product is float32 with a proven error bound (`slack`) and
only chooses who is looked at. Every decision is made in float64, where distances within `tie` of
each other count as equal and the smallest index wins: picks do not depend on threads or BLAS.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from blackswan.errors import InputError

Projection = Literal["sparse", "gaussian"]

BLOCK = 1024  # candidates of a round
ROWS = 4096  # rows of one matrix product: its result stays in the cache
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
    picked once. Memory beside the points is two floats a point and one block. Raises InputError for
    more picks than points.
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
    """Greedy k-center under way: the picks, and how far every point is from them."""

    def __init__(self, points: Tensor, start: int) -> None:
        self.points = points  # (N, D)
        parts = points.split(ROWS)
        self.norms = torch.cat([part.double().square().sum(1).float() for part in parts])
        largest = float(self.norms.max())
        # |x|^2 + |c|^2 - 2 x.c in float32: the dot product errs by at most D u |x||c|, each of the
        # sums by at most 4 u |x|^2, with u = 2^-24 and all norms below the largest.
        self.slack = (2 * points.shape[1] + 16) * 2.0**-24 * largest
        self.tie = TIE * largest
        # Squared distance to the nearest pick; -inf: picked.
        self.far = torch.full((len(points),), torch.inf)
        self.picks: list[int] = []
        self._add([start], torch.inf)

    def round(self, wanted: int) -> None:
        """Add at least one and at most `wanted` picks."""
        size = min(BLOCK, len(self.far) - len(self.picks))
        largest = torch.topk(self.far, min(size + 1, len(self.far)))
        outside = float(largest.values[size]) if size < len(self.far) else -torch.inf
        candidates = largest.indices[:size].sort().values
        new, last = self._pick(candidates, outside + self.slack, wanted)
        if not new:  # more than a block of points tie: look at every point that may be the farthest
            reach = float(largest.values[0]) - 2 * self.slack - self.tie
            candidates = torch.nonzero(self.far >= reach).flatten()
            new, last = self._pick(candidates, -torch.inf, 1)
            if last <= self.tie:  # every point left coincides with a pick
                new = torch.nonzero(self.far > -torch.inf).flatten()[:wanted].tolist()
        self._add(new, last)

    def _pick(self, candidates: Tensor, bound: float, wanted: int) -> tuple[list[int], float]:
        """Go on greedily inside `candidates` (sorted) while they are farther than `bound`.

        Returns the picks and the squared distance of the last, the smallest.
        """
        block = self.points[candidates].double()
        norms = block.square().sum(1)
        far = torch.full((len(block),), torch.inf, dtype=torch.float64)
        for rows in torch.tensor(self.picks).split(ROWS):
            picked = self.points[rows].double()
            squared = torch.addmm(picked.square().sum(1), block, picked.T, alpha=-2)
            far = torch.minimum(far, squared.amin(1) + norms)
        far.clamp_(min=0)

        new: list[int] = []
        last = torch.inf
        while len(new) < wanted:
            best = float(far.max())
            if best - self.tie <= bound:
                break
            pick = int(torch.nonzero(far >= best - self.tie)[0])
            last = best
            new.append(int(candidates[pick]))
            squared = torch.addmv(norms, block, block[pick], alpha=-2) + norms[pick]
            far = torch.minimum(far, squared.clamp_(min=0))
            far[pick] = -torch.inf
        return new, last

    def _add(self, new: list[int], last: float) -> None:
        """Take the picks over and bring `far` up to date.

        A pick lies at least sqrt(last) from every earlier pick, so by the triangle inequality it
        cannot come nearer to a point than an earlier pick within sqrt(last) / 2 already is.
        """
        self.picks += new
        self.far[new] = -torch.inf
        rows = torch.nonzero(self.far >= last / 4 - self.slack).flatten()
        centres, norms = self.points[new].T, self.norms[new]
        # Written again and again: fresh pages would cost a third of the time.
        gathered = torch.empty(ROWS, self.points.shape[1])
        product = torch.empty(ROWS, len(new))
        for part in rows.split(ROWS):
            block, squared = gathered[: len(part)], product[: len(part)]
            torch.index_select(self.points, 0, part, out=block)
            torch.addmm(norms, block, centres, alpha=-2, out=squared)
            self.far[part] = torch.minimum(self.far[part], squared.amin(1) + self.norms[part])
