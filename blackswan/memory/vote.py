"""The type of a defect by a vote of its nearest neighbours, with a confidence, or "unknown".

What a vote is worth is learnt from the remembered defects themselves: each is asked while all of
its own group are left out. A type is unknown where the nearest neighbour is less similar than alpha
of those defects have theirs (a conformal threshold: of defects of known types, exchangeable with
the remembered ones, at most that share is called unknown so), and where votes of such a share were
wrong more often than right.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.isotonic import IsotonicRegression

from blackswan.params import Section

ASKED = 2000  # defects that are asked, at most: spread evenly
AT_ONCE = 1000  # others that they are compared with, which bounds the similarities in memory

# Embeddings (N, D), types and groups of some defects.
Page = tuple[np.ndarray, Sequence[str], Sequence[str]]


class Params(Section):
    """How neighbours vote."""

    neighbors: Annotated[int, Field(ge=1, le=100)]
    temperature: Annotated[float, Field(gt=0)]  # a neighbour weighs exp(similarity / temperature)
    alpha: Annotated[float, Field(gt=0, lt=1)]  # of defects of known types that may be unknown


class Calibration(Section):
    """What votes are worth."""

    asked: int  # defects that had neighbours of other groups
    least_similarity: float  # of the nearest neighbour; below it a type is unknown
    shares: list[float]  # of votes, ascending
    accuracies: list[float]  # of the votes with these shares; between them linear


@dataclass(frozen=True)
class Vote:
    """What the neighbours say."""

    type: str | None  # None: unknown
    likeliest: str | None  # whether known or not; None without neighbours
    confidence: float  # that `likeliest` is right
    why_unknown: str | None = None


def tally(similarities: Sequence[float], types: Sequence[str], params: Params) -> tuple[str, float]:
    """Return the type with the most votes of neighbours, the nearest first, and its share."""
    nearest = np.asarray(similarities[: params.neighbors], np.float64)
    weights = np.exp((nearest - nearest[0]) / params.temperature)
    votes: dict[str, float] = {}
    for name, weight in zip(types, weights, strict=False):
        votes[name] = votes.get(name, 0) + weight
    winner = max(votes, key=lambda name: votes[name])  # of equals, that of the nearer
    return winner, float(votes[winner] / weights.sum())


def calibrate(pages: Callable[[], Iterable[Page]], count: int, params: Params) -> Calibration:
    """Learn what votes are worth: each of `count` defects is asked without those of its group.

    `pages` returns them anew, in one order, so that memory does not grow with their number.
    """
    nearest, shares, right = [], [], []
    for similarities, names, own in _neighbors(pages, count, params.neighbors):
        if len(names):
            winner, share = tally(similarities, names, params)
            nearest.append(similarities[0])
            shares.append(share)
            right.append(winner == own)
    if not nearest:
        return Calibration(asked=0, least_similarity=-1, shares=[], accuracies=[])
    left_out = int(params.alpha * (len(nearest) + 1))
    least = sorted(nearest)[left_out - 1] if left_out else -1.0
    # Of n that were right, the next may be wrong: no vote is certain.
    most = 1 - 1 / (len(right) + 2)
    fitted = IsotonicRegression(y_min=0, y_max=most, out_of_bounds="clip").fit(shares, right)
    return Calibration(
        asked=len(nearest),
        least_similarity=least,
        shares=fitted.X_thresholds_.tolist(),
        accuracies=fitted.y_thresholds_.tolist(),
    )


def _neighbors(
    pages: Callable[[], Iterable[Page]], count: int, most: int
) -> Iterator[tuple[list[float], list[str], str]]:
    """Yield similarities and types of the nearest of other groups, and the own type, of some."""
    places = {*np.linspace(0, count - 1, min(count, ASKED)).astype(int).tolist()}
    each = chain.from_iterable(zip(*page, strict=True) for page in pages())
    asked = [one for place, one in enumerate(each) if place in places]
    if not asked:
        return
    embeddings, groups = np.array([one[0] for one in asked]), np.array([one[2] for one in asked])
    similarities = np.empty((len(asked), 0), np.float32)
    types = np.empty((len(asked), 0), object)
    for others, names, theirs in _chunks(pages()):
        found = embeddings @ others.T
        found[groups[:, None] == np.asarray(theirs)] = -np.inf
        every = np.broadcast_to(np.asarray(names, object), found.shape)
        similarities, types = np.hstack([similarities, found]), np.hstack([types, every])
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :most]
        similarities = np.take_along_axis(similarities, order, axis=1)
        types = np.take_along_axis(types, order, axis=1)
    for line, kinds, (_, own, _) in zip(similarities, types, asked, strict=True):
        known = np.isfinite(line)
        yield line[known].tolist(), kinds[known].tolist(), own


def _chunks(pages: Iterable[Page]) -> Iterator[Page]:
    for page in pages:
        for begin in range(0, len(page[1]), AT_ONCE):
            some = slice(begin, begin + AT_ONCE)
            yield page[0][some], page[1][some], page[2][some]


def judge(
    similarities: Sequence[float], types: Sequence[str], params: Params, calibration: Calibration
) -> Vote:
    """Return what neighbours, the nearest first, say of the type of a defect."""
    if not similarities:
        return Vote(None, None, 0, "there is no neighbour")
    winner, share = tally(similarities, types, params)
    if not calibration.asked:
        return Vote(None, winner, 0, "there are too few defects to know what a vote is worth")
    confidence = float(np.interp(share, calibration.shares, calibration.accuracies))
    if similarities[0] < calibration.least_similarity:
        return Vote(None, winner, confidence, "no remembered defect is similar enough")
    if confidence < 0.5:
        return Vote(None, winner, confidence, "the neighbours disagree")
    return Vote(winner, winner, confidence)
