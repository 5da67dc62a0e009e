"""Does the threshold hold? What the flags among normal test images say, by an exact test.

Where m test images are exchangeable with the n that set the threshold, and r = floor(alpha (n + 1))
of the p-values are alarms, the number of flags is BetaBinomial(m; r, n + 1 - r), whatever the
detector. Frames that follow one another are near copies, and so are photos of one group: a
correlation time, or a group, counts as one image, by the share of it that is flagged, which
scatters less than one image drawn from it. The larger of two thresholds flags no more than either:
the test by one set of scores errs on the safe side.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import betabinom, binom

LEVEL = 0.05  # chance of a wrong "void", and of a wrong "holds"
TOLERANCE = 3  # times alpha: the rate that "holds" rules out

HOLDS, UNSURE, VOID = "holds", "cannot say", "void for this source"
ADVICE = {
    HOLDS: "",
    UNSURE: (
        "too few normal test images that tell something new; add normal images, or a longer clip, "
        "to find out"
    ),
    VOID: (
        "normal test images differ from those that set the threshold; add normal images of such "
        "conditions, from other times and clips, and do not rely on alpha before"
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What the test says, and what to do."""

    verdict: str
    flags: int  # among
    images: int  # normal test images that count, m
    p_value: float  # probability of so many flags or more, if the threshold holds

    @property
    def advice(self) -> str:
        """What to do; empty where the threshold holds."""
        return ADVICE[self.verdict]


def verdict(
    calibration: float, alarms: float, images: int, flags: int, level: float = LEVEL
) -> Verdict:
    """Judge `flags` among `images` normal test images by the BetaBinomial tail.

    `calibration` is n and `alarms` r, of n + 1 p-values; both may be fractions, of images that
    count less than one. "void" rules out that the threshold holds, "holds" a rate of TOLERANCE
    times alpha, each at `level`.
    """
    p_value = float(betabinom.sf(flags - 1, images, alarms, calibration + 1 - alarms))
    rate = min(1.0, TOLERANCE * alarms / (calibration + 1))
    if p_value <= level:
        said = VOID
    elif binom.cdf(flags, images, rate) <= level:
        said = HOLDS
    else:
        said = UNSURE
    return Verdict(said, flags, images, p_value)


def judge(
    calibration: pd.DataFrame, normals: pd.DataFrame, alpha: float, level: float = LEVEL
) -> Verdict:
    """Return the verdict on a threshold that the scores `calibration` set.

    Both tables have source, group and timestamp_s; `calibration` has the image_score of each image
    once, `normals`, the normal test images, flagged, and `place` where they are but some of the
    frames of their videos.
    """
    every = correlation_frames(calibration)
    count = len(calibration)
    alarms = np.floor(alpha * (count + 1) + 1e-9)
    independent = len(units(calibration, every).drop_duplicates())
    unit = units(normals, every)
    shares = normals.flagged.groupby([unit[key] for key in unit]).mean()
    # The share of alarms stays that of all n; only its scatter is that of fewer.
    alarms *= (independent + 1) / (count + 1)
    return verdict(independent, float(alarms), len(shares), round(float(shares.sum())), level)


def correlation_frames(scores: pd.DataFrame) -> int:
    """Return after how many frames the autocorrelation of scores has fallen to 1 / e, at least 1.

    Twice as many, 1 + 2 x the sum of autocorrelations, would be the frames that a mean of scores
    counts as one; that scores are high at all lingers less than they do (benchmarks/calibration.py
    has both rates of error). Photos, which have no time, give 1.
    """
    series = [
        rows.sort_values("timestamp_s").image_score.to_numpy(float)
        for _, rows in scores.dropna(subset="timestamp_s").groupby("source")
    ]
    series = [values - values.mean() for values in series]
    power = sum(float(values @ values) for values in series)
    longest = max(map(len, series), default=0)
    for lag in range(1, longest):
        product = sum(float(values[lag:] @ values[:-lag]) for values in series if len(values) > lag)
        if product <= power / math.e:
            return lag
    return max(1, longest)


def places(images: pd.DataFrame) -> pd.Series:
    """Return the place of each frame in its source by time, from 0; NaN for photos."""
    timed = images[images.timestamp_s.notna()]
    return timed.groupby("source").timestamp_s.rank(method="first").sub(1).reindex(images.index)


def units(images: pd.DataFrame, every: int) -> pd.DataFrame:
    """Return what counts as one image: source and turn of `every` frames, or group of photos.

    Frames that were thinned have `place`, as `places` numbered them before: those that are left
    are no neighbours, however they follow one another in the table.
    """
    place = images.place if "place" in images else places(images)
    name = (place // every).astype(str).where(images.timestamp_s.notna(), images.group)
    return pd.DataFrame({"source": images.source, "unit": name})
