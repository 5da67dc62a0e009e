"""One number for whoever looks at an image: 0 to 1, where 0.5 is the threshold."""

import numpy as np

from blackswan.evaluation.model import Model, Verdicts

TYPICAL = 0.05  # confidence that the median of the held-out normal images is anomalous
NEAREST_ONE = 1 - 2.0**-24  # the largest float32 below 1, as far from 1 as the least is from 0


def confidences(model: Model, found: Verdicts) -> np.ndarray:
    """Return how sure it is that each image is anomalous, (N,) float64.

    It is above 0.5 exactly where the image is flagged, and rises with the score: on the logit scale
    it is the distance of the score from the threshold. Of probabilities that is logit(score) -
    logit(threshold). Scores of other detectors have no unit, so the distance from the threshold
    down to the median of the held-out normal images is made the one: that median has 0.05, and a
    score as far above the threshold as it lies below has 0.95. p-values would not do: above every
    held-out image they are all equal.
    """
    scores, threshold = found.image_scores.astype(np.float64), found.threshold
    if found.probabilities:
        least = 1 - NEAREST_ONE
        distance = _logit(np.clip(scores, least, NEAREST_ONE)) - _logit(
            np.clip(threshold, least, NEAREST_ONE)
        )
    else:
        spread = threshold - float(np.median(model.normal_scores[0]))
        spread = max(spread, float(np.spacing(np.float32(max(1.0, abs(threshold))))))
        distance = (scores - threshold) / spread * -_logit(TYPICAL)
    above = np.nextafter(0.5, 1)
    sure = np.exp(-np.logaddexp(0, -distance))
    return np.where(found.flagged, np.maximum(sure, above), np.minimum(sure, 0.5))


def _logit(shares: np.ndarray | float) -> np.ndarray:
    return np.asarray(np.log(shares) - np.log1p(-np.asarray(shares)))
