"""The type of a defect by a vote of its nearest neighbours, with a confidence, or "unknown".

What a vote is worth is learnt from the remembered defects themselves: each is asked while all of
its own group are left out. A type is unknown where the nearest neighbour is less similar than alpha
of those defects have theirs (a conformal threshold: of defects of known types, exchangeable with
the remembered ones, at most that share is called unknown so), and where votes of such a share were
wrong more often than right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.isotonic import IsotonicRegression

from blackswan.params import Section

ASKED = 2000  # defects that are asked, at most: spread evenly
BLOCK = 128  # of them at once, which bounds the similarities in memory


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


def calibrate(
    embeddings: np.ndarray, types: Sequence[str], groups: Sequence[str], params: Params
) -> Calibration:
    """Learn what votes are worth from embeddings (N, D), each asked without those of its group."""
    asked = np.unique(np.linspace(0, len(types) - 1, min(len(types), ASKED)).astype(int))
    names = np.asarray(groups)
    nearest, shares, right = [], [], []
    for start in range(0, len(asked), BLOCK):
        rows = asked[start : start + BLOCK]
        similarities = embeddings[rows] @ embeddings.T  # (BLOCK, N)
        similarities[names[rows][:, None] == names] = -np.inf
        order = np.argsort(-similarities, axis=1, kind="stable")[:, : params.neighbors]
        for row, line, places in zip(rows, similarities, order, strict=True):
            places = places[np.isfinite(line[places])]
            if len(places):
                winner, share = tally(line[places], [types[place] for place in places], params)
                nearest.append(float(line[places[0]]))
                shares.append(share)
                right.append(winner == types[row])
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
