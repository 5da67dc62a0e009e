"""What thresholds and verdicts are worth where the truth is known: simulated images of a toy.

    python benchmarks/calibration.py      writes benchmarks/calibration.json

An image is a point of 4 features, a detector the distance to the nearest point it has learnt.
Photos are drawn independently, one a group or four: the false alarms of cross-conformal thresholds.
The frames of a clip follow one another (first-order autoregression), and what comes after may drift
away, as far as makes the rate ten times alpha: how often is the verdict "void"?
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measured import record
from scipy.spatial import KDTree
from tqdm import tqdm

from blackswan.evaluation import calibration
from blackswan.evaluation.calibration import Method, Scorer
from blackswan.evaluation.thresholds import largest_threshold
from blackswan.evaluation.verdict import HOLDS, VOID, judge
from blackswan.outputs import write_json
from blackswan.seeds import generator

RESULT = Path("benchmarks/calibration.json")
DRAWS = 1000
FEATURES = 4
TESTED = 160  # test frames or photos of a draw
GUARD = 3.0  # frames


@dataclass(frozen=True)
class Photos:
    """Exchangeable images; those of a group share half of their variance."""

    count: int
    per_group: int
    alpha: float


@dataclass(frozen=True)
class Clip:
    """Frames of which each resembles the last by `memory`, 0 to 1."""

    count: int
    memory: float
    alpha: float


def draw_photos(rng: np.random.Generator, count: int, per_group: int) -> np.ndarray:
    """Return the features (count, FEATURES) of groups of photos."""
    groups = -(-count // per_group)
    shared = rng.standard_normal((groups, FEATURES)).repeat(per_group, axis=0)[:count]
    own = rng.standard_normal((count, FEATURES))
    return own if per_group == 1 else math.sqrt(0.5) * (shared + own)


def draw_frames(rng: np.random.Generator, count: int, memory: float) -> np.ndarray:
    """Return the features (count, FEATURES) of a stationary sequence of variance 1."""
    steps = rng.standard_normal((count, FEATURES))
    frames = np.empty_like(steps)
    frames[0] = steps[0]
    for number in range(1, count):
        frames[number] = memory * frames[number - 1] + math.sqrt(1 - memory**2) * steps[number]
    return frames


def nearest(features: np.ndarray) -> Callable[[np.ndarray], Scorer]:
    """Return the fit of the toy detector on some of the images `features`."""

    def fit(fitted: np.ndarray) -> Scorer:
        tree = KDTree(features[fitted])

        def score(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scores = tree.query(features[positions])[0]
            return scores, scores

        return score

    return fit


def thresholds(
    features: np.ndarray, facts: pd.DataFrame, method: Method, alpha: float
) -> tuple[pd.DataFrame, float]:
    """Calibrate the toy and return its calibration scores and threshold."""
    folds = calibration.plan(facts, method, GUARD, seed=0)
    scores = calibration.calibrate(facts, folds, nearest(features))
    return scores, largest_threshold(calibration.sets_of(scores, "image_score"), alpha)


def facts_of(count: int, per_group: int, timed: bool, start: int = 0) -> pd.DataFrame:
    """Return path, source, group and time of images that are numbered from `start`."""
    number = np.arange(start, start + count)
    groups = [f"group {each // per_group:04d}" for each in number]
    times = number.astype(float) if timed else np.full(count, np.nan)
    source = "clip" if timed else ""
    return pd.DataFrame(
        {"path": number.astype(str), "source": source, "group": groups, "timestamp_s": times}
    )


def simulate_photos(photos: Photos) -> dict[str, Any]:
    """Return the rate of false alarms among new photos, and its Monte-Carlo error."""
    facts, rates = facts_of(photos.count, photos.per_group, timed=False), []
    for draw in tqdm(range(DRAWS), desc=str(photos), disable=None):
        rng = generator(draw, "photos", str(photos))
        features = draw_photos(rng, photos.count, photos.per_group)
        _, threshold = thresholds(features, facts, "cross", photos.alpha)
        scores = KDTree(features).query(draw_photos(rng, TESTED, photos.per_group))[0]
        rates.append(float((scores > threshold).mean()))
    return {
        "rate": float(np.mean(rates)),
        "error": float(np.std(rates, ddof=1) / math.sqrt(DRAWS)),
        "proven": 2 * photos.alpha,
    }


def simulate_clip(clip: Clip, drift: float, draws: int = DRAWS) -> dict[str, float]:
    """Return the rate of false alarms after a clip, and how often each verdict is given."""
    facts = facts_of(clip.count, 1, timed=True)
    after = facts_of(TESTED, 1, timed=True, start=clip.count)
    rates, said = [], []
    for draw in tqdm(range(draws), desc=f"{clip}, drift {drift:.2f}", disable=None):
        frames = draw_frames(generator(draw, "clip", str(clip)), clip.count + TESTED, clip.memory)
        frames[clip.count :] += drift / math.sqrt(FEATURES)
        learnt, tested = frames[: clip.count], frames[clip.count :]
        scores, threshold = thresholds(learnt, facts, "block_and_forward", clip.alpha)
        flagged = KDTree(learnt).query(tested)[0] > threshold
        rates.append(float(flagged.mean()))
        left_out = scores[scores["set"] == calibration.LEFT_OUT]
        said.append(judge(left_out, after.assign(flagged=flagged), clip.alpha).verdict)
    shares = {"void": said.count(VOID), "holds": said.count(HOLDS)}
    return {"rate": float(np.mean(rates)), **{key: n / draws for key, n in shares.items()}}


def drift_to(clip: Clip, rate: float) -> float:
    """Return how far the frames must drift for the rate of false alarms, by bisection."""
    low, high = 0.0, 20.0
    for _ in range(9):
        middle = (low + high) / 2
        found = simulate_clip(clip, middle, DRAWS // 4)["rate"]
        low, high = (low, middle) if found > rate else (middle, high)
    return high


def main() -> None:
    """Simulate every case and write the rates."""
    photos = [Photos(n, g, a) for n in (60, 200) for g in (1, 4) for a in (0.05, 0.1)]
    clips = [Clip(400, memory, 0.05) for memory in (0.0, 0.5, 0.7, 0.9)]
    clips += [Clip(800, memory, 0.05) for memory in (0.9, 0.95)]
    exchangeable = {str(each): simulate_photos(each) for each in photos}
    steady = {str(clip): simulate_clip(clip, 0) for clip in clips}
    drifting = {str(clip): simulate_clip(clip, drift_to(clip, 10 * clip.alpha)) for clip in clips}
    write_json(
        RESULT,
        {"exchangeable": exchangeable, "steady": steady, "drifting": drifting, "draws": DRAWS},
    )
    record([RESULT.name])
    print(
        f"void among drifting clips: at least {min(c['void'] for c in drifting.values()):.3f}, "
        f"among steady ones: at most {max(c['void'] for c in steady.values()):.3f}"
    )


if __name__ == "__main__":
    main()
