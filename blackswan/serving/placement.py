"""Where what a detector saw lies on the photo: the way back through pose, crops and scales."""

import cv2
import numpy as np

from blackswan.data.images import crop_box, scaled_size
from blackswan.data.preprocessing import Preprocessing


def to_photo(
    preprocessing: Preprocessing, shape: tuple[int, int], pose: np.ndarray | None
) -> np.ndarray:
    """Return the matrix (2, 3) that takes a pixel (x, y) the detector saw to its place.

    `shape` is the height and width of the photo, `pose` how it was laid. Whole numbers are the
    centres of pixels, as OpenCV counts.
    """
    seen = np.eye(3) if pose is None else np.vstack([pose, [0, 0, 1]])
    height, width = shape
    for step in preprocessing.steps:
        left, top, width, height = crop_box(width, height, step.crop)
        wanted = (height, width) if step.size is None else scaled_size(step.size, (height, width))
        across, down = wanted[1] / width, wanted[0] / height
        # The centre of pixel x lies at x + 1/2: (x - left + 1/2) * across - 1/2.
        cropped = np.array([
            [across, 0, (0.5 - left) * across - 0.5],
            [0, down, (0.5 - top) * down - 0.5],
            [0, 0, 1],
        ])  # fmt: skip
        seen, (height, width) = cropped @ seen, wanted
    return np.linalg.inv(seen)[:2]


def place(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return where points (P, 2), x and y, that the detector saw lie on the photo."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def place_mask(mask: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Lay a mask, bool (H, W), on a photo of `shape`; what the detector did not see is false."""
    laid = cv2.warpAffine(mask.astype(np.uint8), matrix, shape[::-1], flags=cv2.INTER_NEAREST)
    return np.asarray(laid > 0)
