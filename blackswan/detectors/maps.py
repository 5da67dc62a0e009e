"""From patch scores to anomaly maps: the one place where scores are enlarged and smoothed."""

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate


def to_maps(
    patch_scores: np.ndarray, size: tuple[int, int], smoothing: float, box: int = 1
) -> np.ndarray:
    """Enlarge patch scores (N, h, w) to float32 maps (N, H, W) of `size`, bilinear, then blur them.

    `smoothing` is the standard deviation of the Gaussian, as a fraction of the height and of the
    width, so that maps look alike at every resolution: the 4 pixels at 224 of PaDiM and PatchCore
    are 0.018. `box` is the side of the box, an odd number of patches, that averages the scores
    before. An image has the same bits whatever stands beside it, and read from a file.
    """
    maps = np.empty((len(patch_scores), *size), np.float32)
    for number, scores in enumerate(patch_scores):
        values = np.asarray(scores, np.float32)
        averaged = cv2.blur(values, (box, box)) if box > 1 else values
        maps[number] = _enlarge(averaged, size, smoothing)
    return maps


def _enlarge(scores: np.ndarray, size: tuple[int, int], smoothing: float) -> np.ndarray:
    """Enlarge and blur scores (h, w): linear, and rows and columns apart, so two matrices do it."""
    if scores.shape == size and smoothing == 0:
        return scores
    rows, columns = (
        enlarging(patches, pixels, smoothing)
        for patches, pixels in zip(scores.shape, size, strict=True)
    )
    # torch.tensor copies: where a matrix lies in memory may change the bits of a product.
    return (rows @ torch.tensor(scores) @ columns.T).numpy()


@lru_cache(maxsize=16)
def enlarging(patches: int, pixels: int, smoothing: float) -> Tensor:
    """Return the matrix (pixels, patches) that interpolates between patch centres and blurs."""
    unit = torch.eye(patches, dtype=torch.float64)[None]
    enlarged = interpolate(unit, size=pixels, mode="linear", align_corners=False)[
        0
    ]  # (patches, pixels)
    if smoothing > 0:
        from scipy.ndimage import gaussian_filter1d  # takes half a second to import

        blurred = gaussian_filter1d(enlarged.numpy(), smoothing * pixels, axis=1, mode="reflect")
        enlarged = torch.from_numpy(blurred)
    return enlarged.T.float().contiguous()
