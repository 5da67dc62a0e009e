"""The trivial baseline: how far each pixel is from the median of its neighbourhood.

It learns nothing. A detector that does not beat it has not earned its keep.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pydantic import field_validator

from blackswan.detectors.interface import Scores
from blackswan.outputs import write_json
from blackswan.params import Section, load_section


class Params(Section):
    """Knobs of the baseline."""

    kernel: int  # side of the median filter, pixels, odd: 3 or 5
    blur: int  # side of the box that averages the residuals into the map, pixels, odd

    @field_validator("kernel", "blur")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value not in (3, 5, 7, 9, 11, 13, 15):
            raise ValueError("must be an odd number from 3 to 15")
        return value


class Detector:
    """|pixel - median of its neighbourhood|, averaged over a box; the image score is the peak."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Score RGB images, uint8 (H, W, 3); maps are in grey levels, 0 to 255."""
        residuals = np.stack([self._residual(image) for image in images])  # (N, H, W)
        return Scores.of_peaks(residuals, images[0].shape[:2], box=self.params.blur)

    def _residual(self, image: np.ndarray) -> np.ndarray:
        """Return the residual, uint8 (H, W): in files an eighth of what its averages take."""
        return cv2.absdiff(image, cv2.medianBlur(image, self.params.kernel)).max(axis=2)

    def save(self, folder: Path) -> None:
        """Write detector.json."""
        write_json(folder / "detector.json", {"params": self.params.model_dump()})


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    return Detector(load_section(Params, "params", folder / "detector.json"))
