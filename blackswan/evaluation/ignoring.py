"""Scores without what lies in regions that are to be ignored: the clock on the wall, a hand rail.

The score of an image is computed anew from what is left of its patch scores, by the detector's own
rule: the mean of its highest patches, the highest, or the peak of its map.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blackswan.data.preprocessing import Preprocessing
from blackswan.data.regions import Ignored
from blackswan.detectors.interface import Detector, Scores
from blackswan.errors import InputError

MOSTLY = 0.5  # share of a patch that is ignored, above which it does not count

Mask = np.ndarray | None  # what does not count of an image, bool (H, W)
Rule = Callable[[Scores, np.ndarray], np.ndarray]  # of the patches (h, w) that count


def leave_out(detector: Detector, scores: Scores, ignored: Sequence[Mask]) -> Scores:
    """Return the scores without what does not count of each image.

    Raises InputError where the score of an image is no function of its patch scores, which is found
    by computing that of the whole image, and where nothing is left.
    """
    if all(mask is None for mask in ignored):
        return scores
    rule = _rule_of(detector, scores)
    image_scores, patch_scores = scores.image_scores.copy(), scores.patch_scores.copy()
    for number, mask in enumerate(ignored):
        if mask is None:
            continue
        counts = _counting(mask, scores.patch_scores.shape[1:])
        patches = patch_scores[number]
        patches[~counts] = patches[counts].min()  # no peak that blurs into its surroundings
        one = replace(scores, patch_scores=patches[None], image_scores=image_scores[[number]])
        image_scores[number] = rule(one, counts)[0]
    return replace(scores, image_scores=image_scores, patch_scores=patch_scores)


def check(detector: Detector, size: tuple[int, int]) -> None:
    """Raise InputError where a detector scores images of `size` by more than their maps.

    That is asked of noise, so that nobody waits for it.
    """
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    _rule_of(detector, detector.score([noise]))


def unmapped(name: str, params: Any) -> bool:  # noqa: ANN401 - of any detector
    """Say of a detector that is not fitted yet whether its scores are of more than its maps."""
    return name == "vit" or getattr(params, "top_fraction", 0) is None  # equation 7


class Ignoring:
    """A detector of prepared images, of which what a camera is to ignore does not count."""

    def __init__(self, detector: Detector, ignored: Ignored, preprocessing: Preprocessing) -> None:
        self.detector, self.ignored = detector, ignored
        self._seen = ignored.seen(preprocessing)

    def mask(self, size: tuple[int, int]) -> np.ndarray:
        """Return what does not count of an image, bool (H, W); InputError for another size."""
        check_size(self._seen, size, self.ignored)
        return self._seen

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Score a batch without the regions."""
        found = self.detector.score(images)
        return leave_out(self.detector, found, [self.mask(found.size)] * len(images))

    def save(self, folder: Path) -> None:
        """Write the detector itself."""
        self.detector.save(folder)


def check_size(seen: np.ndarray, size: tuple[int, int], ignored: Ignored) -> None:
    """Raise InputError where images are of another size than the regions were laid out for."""
    if seen.shape != size:
        regions = ignored.regions
        raise InputError(
            f"a picture of {regions.width} x {regions.height} pixels, as the regions of "
            f"{ignored.camera} say, would be seen as {seen.shape[1]} x {seen.shape[0]}, and this "
            f"image is as {size[1]} x {size[0]}; state the size of the camera's pictures there"
        )


def counted(detector: Detector, size: tuple[int, int]) -> Mask:
    """Return what of an image counts, None where all does."""
    return ~detector.mask(size) if isinstance(detector, Ignoring) else None


def _counting(mask: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    share = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    counts = np.asarray(share <= MOSTLY)
    if not counts.any():
        raise InputError("the regions to ignore leave nothing of the image; make them smaller")
    return counts


def _rule_of(detector: Detector, scores: Scores) -> Rule:
    """Return the rule that makes the scores of the images from those of their patches."""
    fraction = getattr(getattr(detector, "params", None), "top_fraction", None)
    rules: list[Rule] = [_peak, lambda scores, counts: _mean_of_highest(scores, counts, 0)]
    if fraction is not None:
        rules = [lambda scores, counts: _mean_of_highest(scores, counts, fraction)]
    everything = np.ones(scores.patch_scores.shape[1:], bool)
    for rule in rules:
        if not scores.probabilities and np.allclose(
            rule(scores, everything), scores.image_scores, rtol=1e-4
        ):
            return rule
    if hasattr(detector, "exported") and not scores.probabilities:
        raise InputError(
            "regions cannot be ignored: this export has maps and no patch scores, of which its "
            "detector scores an image; name the folder that it was made of, or no regions"
        )
    raise InputError(
        "regions cannot be ignored: this detector (the vit, or patchcore by equation 7) scores an "
        "image by more than its anomaly map; take another one, or no regions"
    )


def _peak(scores: Scores, _: np.ndarray) -> np.ndarray:
    return np.asarray(scores.anomaly_maps.max(axis=(1, 2)))


def _mean_of_highest(scores: Scores, counts: np.ndarray, fraction: float) -> np.ndarray:
    """Return the mean (N,) of the share that detectors/patches.py takes, of those that count."""
    kept = np.sort(np.asarray(scores.patch_scores[:, counts], np.float32), axis=1)
    return np.asarray(kept[:, -max(1, round(kept.shape[1] * fraction)) :].mean(axis=1))
