"""Scores without what lies in regions that are to be ignored: the clock on the wall, a hand rail.

The score of an image is computed anew from what is left of its patch scores, by the detector's own
rule: the mean of its highest patches, the highest, or the peak of its map.
"""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch

from blackswan.detectors.interface import Detector, Scores
from blackswan.detectors.patches import top_mean
from blackswan.errors import InputError

MOSTLY = 0.5  # share of a patch that is ignored, above which it does not count

Rule = Callable[[Scores, np.ndarray], np.ndarray]  # of the patches (h, w) that count


def leave_out(detector: Detector, scores: Scores, ignored: np.ndarray) -> Scores:
    """Return the scores without the pixels of `ignored`, bool (H, W), of the images.

    Raises InputError where the score of an image is no function of its patch scores, which is found
    by computing that of the whole image, and where nothing is left.
    """
    height, width = scores.patch_scores.shape[1:]
    share = cv2.resize(ignored.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    counts = share <= MOSTLY
    if not counts.any():
        raise InputError("the regions to ignore leave nothing of the image; make them smaller")
    rule = _rule_of(detector, scores)
    least = scores.patch_scores[:, counts].min(axis=1)  # no peak that blurs into its surroundings
    patch_scores = np.where(counts, scores.patch_scores, least[:, None, None])
    left = replace(scores, patch_scores=patch_scores)
    return replace(left, image_scores=rule(left, counts))


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
    raise InputError(
        "regions cannot be ignored: this detector (the vit, or patchcore by equation 7) scores an "
        "image by more than its anomaly map; take another one, or no regions"
    )


def _peak(scores: Scores, _: np.ndarray) -> np.ndarray:
    return np.asarray(scores.anomaly_maps.max(axis=(1, 2)))


def _mean_of_highest(scores: Scores, counts: np.ndarray, fraction: float) -> np.ndarray:
    kept = torch.from_numpy(np.asarray(scores.patch_scores[:, counts], np.float32))
    return top_mean(kept[:, None], fraction).numpy()
