"""Calibration scores of a detector that is fitted again in seconds, so that no image is set aside.

All normal images that may be used, D, train the detector. What sets its threshold are scores of the
same images by fits that have not seen them:

`cross`, for photos: whole groups are dealt into folds, and each is scored by a fit on the others
(cross-conformal prediction, Vovk 2015). The rate of false alarms is proven to be at most 2 alpha,
up to a term that many images make small (Barber et al. 2021); that of exchangeable images in
benchmarks/calibration.json is at or below alpha. A fit on four fifths of few images scores what it
has not seen higher than the fit on all scores new images, and so the threshold comes out too high:
the fewer images, the more folds.

`block_and_forward`, for clips: the frames of a clip are not exchangeable. Each of BLOCKS blocks of
time is scored by a fit on what lies farther than GUARDS guard gaps from it, and the last third by
a fit on the first two: how far the scene moves on. The larger of both thresholds counts. Nothing
guarantees what comes after a clip; blackswan/evaluation/verdict.py asks the test frames.

A block has what was learnt on both sides, a test frame on one, behind two guard gaps: one gap
makes calibration scores too low. Three gaps were preferred to one after both had been seen on the
test frames of the sample clip, so the rate of false alarms there is optimistic; on the other clips
of benchmarks/clip_thresholds.json one gap held as well.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import RootModel

from blackswan.data.batches import of_one_size
from blackswan.data.dataset import Pictures
from blackswan.detectors.interface import Detector
from blackswan.errors import InputError
from blackswan.seeds import generator

BLOCKS = 5  # of the time of a clip
MOST_FOLDS = 20  # of photos
REFITTED = 2000  # images that the fits for the folds learn from in all, where BLOCKS folds allow
GUARDS = 3  # times split.guard_seconds, between what is learnt and what is scored of a clip
FORWARD = 2 / 3  # of the frames of a clip, in order of time, that the forward fit learns from
BATCH = 8  # images scored at once
FILE = "calibration.parquet"  # in the folder of a model
LEFT_OUT, AHEAD = "left_out", "forward"  # what the sets of calibration scores are called

Method = Literal["split", "cross", "block_and_forward"]


class Choice(RootModel[Literal["auto", "split", "cross", "block_and_forward"]]):
    """The param evaluate.calibration."""


@dataclass(frozen=True)
class Fold:
    """A fit and the images that it has not seen, as positions in D."""

    kind: str  # LEFT_OUT or AHEAD
    fitted: np.ndarray  # (F,)
    scored: np.ndarray  # (S,)


# Returns image scores and the peaks of the maps (S,) of the images at some positions of D.
Scorer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def choose(choice: str, images: pd.DataFrame, refits: bool = True) -> Method:
    """Return the method of `choice` for normal `images`, whose rows have timestamp_s.

    A detector that is not fitted again in seconds gets split. auto is block_and_forward where all
    images have a time.
    """
    timed = bool(images.timestamp_s.notna().all())
    if choice == "split" or not refits:
        return "split"
    if choice == "block_and_forward" and not timed:
        raise InputError(
            "evaluate.calibration = block_and_forward needs the frames of a video, and some normal "
            "images have no time; choose auto or cross"
        )
    return "block_and_forward" if timed and choice != "cross" else "cross"


def with_source(images: pd.DataFrame) -> pd.DataFrame:
    """Add the column source: what stands before the last / of the group of a frame, its video."""
    timed = images.timestamp_s.notna()
    return images.assign(source=images.group.str.rpartition("/")[0].where(timed, ""))


def plan(images: pd.DataFrame, method: Method, guard_seconds: float, seed: int) -> list[Fold]:
    """Return the folds of D, whose rows have source, group and timestamp_s.

    Raises InputError where a fit would have nothing to learn from.
    """
    if method == "cross":
        count = min(max(BLOCKS, REFITTED // len(images)), MOST_FOLDS)
        return deal(images.group.to_numpy(), count, seed)
    gap = GUARDS * guard_seconds
    folds = [_leave_out(images, block, gap) for block in range(BLOCKS)]
    if min(len(fold.scored) for fold in folds) == 0 or min(len(f.fitted) for f in folds) < 2:
        raise InputError(
            f"{len(images)} normal frames and split.guard_seconds = {guard_seconds:g} leave no "
            f"{BLOCKS} blocks of time to calibrate on; lower it, take a longer clip or choose "
            "evaluate.calibration: split"
        )
    forward = _forward(images, gap)
    return [*folds, forward] if len(forward.fitted) > 1 and len(forward.scored) else folds


def deal(groups: np.ndarray, folds: int, seed: int) -> list[Fold]:
    """Deal whole groups, named image by image (N,), into at most `folds` folds."""
    names = sorted({*groups})
    folds = min(folds, len(names))
    if folds < 2:
        raise InputError(
            "evaluate.calibration = cross needs normal images of at least 2 groups, there is "
            f"{folds}; add some or refine extract_frames.folder.group_pattern"
        )
    order = generator(seed, "calibration").permutation(len(names))
    fold_of = {names[index]: turn % folds for turn, index in enumerate(order)}
    number = np.array([fold_of[group] for group in groups])
    return [
        Fold(LEFT_OUT, np.flatnonzero(number != fold), np.flatnonzero(number == fold))
        for fold in range(folds)
    ]


def scorer(detector: Detector, images: Pictures) -> Scorer:
    """Return how `detector` scores the images D."""

    def score(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, peaks = [], []
        for batch in of_one_size(images.take(positions), BATCH, lambda image: image):
            found = detector.score(batch)
            scores.append(found.image_scores)
            peaks.append(found.anomaly_maps.max(axis=(1, 2)))
        return np.concatenate(scores), np.concatenate(peaks)

    return score


def calibrate(
    images: pd.DataFrame, folds: Iterable[Fold], fit: Callable[[np.ndarray], Scorer]
) -> pd.DataFrame:
    """Return the rows of D with set, image_score and map_peak, as often as a fold scored them.

    `fit` learns from the images at some positions of D.
    """
    parts = []
    for fold in folds:
        image_scores, map_peaks = fit(fold.fitted)(fold.scored)
        rows = images.iloc[fold.scored][["path", "source", "group", "timestamp_s"]]
        parts.append(rows.assign(set=fold.kind, image_score=image_scores, map_peak=map_peaks))
    return pd.concat(parts, ignore_index=True)


def sets_of(scores: pd.DataFrame, column: str) -> list[np.ndarray]:
    """Return the calibration scores of `column`, those of left-out images first."""
    values = (scores.loc[scores["set"] == kind, column].to_numpy() for kind in (LEFT_OUT, AHEAD))
    return [part for part in values if len(part)]


def write_scores(folder: Path, scores: pd.DataFrame, method: Method) -> None:
    """Write calibration scores into the folder of a model."""
    scores.assign(method=method).to_parquet(folder / FILE, index=False)


def read_scores(folder: Path) -> pd.DataFrame | None:
    """Read what `write_scores` wrote; None for a model that validation images calibrate."""
    path = folder / FILE
    return pd.read_parquet(path) if path.exists() else None


def described(scores: pd.DataFrame, alpha: float) -> str:
    """Say in a sentence which scores the threshold comes from, and what is proven of it."""
    count = int((scores["set"] == LEFT_OUT).sum())
    if scores.method[0] == "cross":
        return (
            f"{count} normal images, each scored by a fit without its fold, alpha {alpha:g} "
            f"(proven: at most {2 * alpha:g})"
        )
    ahead = int((scores["set"] == AHEAD).sum())
    forward = f", the last {ahead} also by a fit on the earlier ones" if ahead else ""
    return (
        f"{count} normal frames, each scored by a fit without its block of time{forward}, "
        f"alpha {alpha:g}"
    )


def _leave_out(images: pd.DataFrame, block: int, guard: float) -> Fold:
    """Leave out one block of time of every video, and learn from what is not near it."""
    fitted, scored = [], []
    for positions, times in _videos(images):
        ours = np.array_split(np.arange(len(times)), BLOCKS)[block]
        if len(ours):
            gap = np.maximum(times[ours[0]] - times, times - times[ours[-1]])  # < 0 inside
            fitted.append(positions[gap >= max(guard, np.finfo(float).tiny)])
            scored.append(positions[ours])
        else:
            fitted.append(positions)
    return Fold(LEFT_OUT, _joined(fitted), _joined(scored))


def _forward(images: pd.DataFrame, guard: float) -> Fold:
    """Learn from the beginning of every video, and score its last third."""
    fitted, scored = [], []
    for positions, times in _videos(images):
        first = int(len(times) * FORWARD)
        fitted.append(positions[:first][times[first] - times[:first] >= guard])
        scored.append(positions[first:])
    return Fold(AHEAD, _joined(fitted), _joined(scored))


def _videos(images: pd.DataFrame) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yield positions and times of the frames of each video, in order of time."""
    times = images.timestamp_s.to_numpy(float)
    for _, positions in sorted(images.groupby("source").indices.items()):
        positions = positions[np.argsort(times[positions], kind="stable")]
        yield positions, times[positions]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate([*parts, np.empty(0, np.intp)])).astype(np.intp)
