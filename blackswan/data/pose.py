"""Long parts that lie any way round, laid alike: found by their background, turned by moments.

The axes of a part are those of its second moments (Hu, 1962); of the two ways along the long one,
the third moment chooses, so that the heavier end comes first.
"""

import cv2
import numpy as np

from blackswan.data.foreground import background_of, has_contrast, lies_inside, split_off
from blackswan.parallel import memory

LOOKED_AT = 1024  # pixels of the longer side; more tell the angle no better
MIN_ELONGATION = 1.2  # long axis by the short one; the angle of a rounder part is noise


def find_pose(image: np.ndarray) -> np.ndarray | None:
    """Return the affine matrix (2, 3) that lays the part of an RGB image, uint8 (H, W, 3), upright.

    It turns the long axis along the longer side of the image, the heavier end first, puts the
    middle of the part into that of the image, and shrinks what would not fit. None where no part
    stands out from a plain background, or where it is about as wide as long. A large image is
    looked at on a smaller copy.
    """
    scale = LOOKED_AT / max(image.shape)
    if scale >= 1:
        return _find_pose(image)
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    found = _find_pose(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    if found is None:
        return None
    turn, shift = found[:, :2], found[:, 2]
    scales = np.divide(size, image.shape[1::-1])  # of x and y, which rounding tells apart
    # The centre of pixel x lies at x + 1/2 of its own image.
    turned = turn * scales / scales[:, None]
    moved = (turn @ (scales / 2 - 0.5) + shift + 0.5) / scales - 0.5
    return np.hstack([turned, moved[:, None]])


def _find_pose(image: np.ndarray) -> np.ndarray | None:
    part = _find_part(image)
    if part is None:
        return None
    rows, columns = np.nonzero(part)
    points = np.stack([columns, rows], 1).astype(np.float64)  # (P, 2), x and y
    centre = points.mean(0)
    variances, axes = np.linalg.eigh(np.cov((points - centre).T, bias=True))
    if variances[1] < MIN_ELONGATION**2 * max(variances[0], 1e-9):
        return None
    along = axes[:, 1]
    # The long tail points away from the heavy end.
    if (((points - centre) @ along) ** 3).sum() < 0:
        along = -along
    return _matrix(points, along, image.shape[:2])


def lay(image: np.ndarray, pose: np.ndarray, *, mask: bool = False) -> np.ndarray:
    """Move an image, uint8 (H, W, 3), or a mask, bool (H, W), by the matrix of `find_pose`.

    What comes in from outside has the colour of the background; a pixel of a mask is true where any
    that it covers is.
    """
    size = image.shape[1], image.shape[0]
    with memory(2 * image.size):
        if mask:
            moved = cv2.warpAffine(image.astype(np.uint8) * 255, pose, size, flags=cv2.INTER_LINEAR)
            return moved > 0
        return cv2.warpAffine(
            image, pose, size, flags=cv2.INTER_LINEAR, borderValue=background_of(image).tolist()
        )


def _find_part(image: np.ndarray) -> np.ndarray | None:
    """Return where the largest thing is, bool (H, W), that differs from the background."""
    difference, above = split_off(image)
    if not has_contrast(difference, above):
        return None
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(above.view(np.uint8))
    part = labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())
    return part if lies_inside(part) else None


def _matrix(points: np.ndarray, along: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the matrix that lays points (P, 2), whose long axis is `along` (2,), into `size`."""
    height, width = size
    across = np.array([-along[1], along[0]])  # a right angle on: nothing is mirrored
    is_tall = height >= width
    turn = np.stack([-across, along]) if is_tall else np.stack([along, across])
    turned = points @ turn.T
    low, high = turned.min(0), turned.max(0)
    extent = high - low + 1
    scale = min(1.0, width / extent[0], height / extent[1])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = middle - scale * (low + high) / 2
    return np.hstack([scale * turn, shift[:, None]])
