"""Regions of a camera's picture that do not count, in a file that is kept with the code.

    {"cameras": {"line1": {"width": 640, "height": 480, "ignore": [[[0, 0], [200, 0], [0, 90]]]}}}

Each polygon is a list of x and y in pixels of a picture of that size; other sizes are scaled.
"""

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from blackswan.errors import InputError, shown
from blackswan.params import Section, load_section

Polygon = Annotated[list[tuple[float, float]], Field(min_length=3, max_length=1000)]


class Regions(Section):
    """What does not count of the pictures of one camera."""

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    ignore: Annotated[list[Polygon], Field(min_length=1)]

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Return what does not count of a picture of height and width, bool (H, W)."""
        scale = np.array([shape[1] / self.width, shape[0] / self.height])
        mask = np.zeros(shape, np.uint8)
        for polygon in self.ignore:
            corners = (np.array(polygon) + 0.5) * scale - 0.5  # whole numbers are centres of pixels
            cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
        return mask > 0


class _File(Section):
    cameras: dict[str, Regions]


def read_regions(path: Path, camera: str) -> Regions:
    """Return the regions of a camera; raises InputError where the file does not name it."""
    cameras = load_section(_File, "", path).cameras
    if camera not in cameras:
        known = ", ".join(map(shown, sorted(cameras))) or "none"
        raise InputError(
            f"{path} has no camera {shown(camera)}, but {known}; name one of them by --camera, or "
            "add it"
        )
    return cameras[camera]
