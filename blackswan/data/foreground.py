"""What stands out from a plain background, in an RGB image, uint8 (H, W, 3)."""

import cv2
import numpy as np

MIN_CONTRAST = 16  # grey levels between the thing and the background
MIN_AREA = 0.001  # of the image, that the thing covers
MAX_BORDER = 0.25  # of the border of the image, that it may cover: a background goes round it


def background_of(image: np.ndarray) -> np.ndarray:
    """Return the median colour of the border, uint8 (3,)."""
    return np.median(_border(image), axis=0).astype(np.uint8)


def split_off(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the difference from the background, uint8 (H, W), and where it is large, bool (H, W).

    The threshold is Otsu's.
    """
    difference = cv2.absdiff(image, np.broadcast_to(background_of(image), image.shape)).max(2)
    difference = cv2.medianBlur(difference, 5)
    _, above = cv2.threshold(difference, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return difference, above.astype(np.bool_)


def has_contrast(difference: np.ndarray, above: np.ndarray) -> bool:
    """Tell whether what `split_off` returned are two things and not the noise of one."""
    if above.all() or not above.any():
        return False
    return bool(difference[above].mean() - difference[~above].mean() >= MIN_CONTRAST)


def lies_inside(part: np.ndarray) -> bool:
    """Tell whether a part, bool (H, W), is large enough and a background goes round it."""
    return bool(part.mean() >= MIN_AREA and _border(part).mean() <= MAX_BORDER)


def _border(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
