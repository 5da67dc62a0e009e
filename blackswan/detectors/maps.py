"""From patch scores to anomaly maps: the one place where scores are enlarged and smoothed."""

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn.functional import interpolate


def to_maps(patch_scores: Tensor, size: tuple[int, int], smoothing: float) -> np.ndarray:
    """Enlarge patch scores (N, h, w) to maps (N, H, W) of `size`, bilinear, then blur them.

    `smoothing` is the standard deviation of the Gaussian, as a fraction of the height and of the
    width, so that maps look alike at every resolution: the 4 pixels at 224 of PaDiM and PatchCore
    are 0.018. Both steps are linear and act on rows and columns alone, so a small matrix does both.
    """
    rows = _enlarging(patch_scores.shape[1], size[0], smoothing)
    columns = _enlarging(patch_scores.shape[2], size[1], smoothing)
    return (rows @ patch_scores.float().cpu() @ columns.T).numpy()


@lru_cache(maxsize=16)
def _enlarging(patches: int, pixels: int, smoothing: float) -> Tensor:
    """Return the matrix (pixels, patches) that interpolates between patch centres and blurs."""
    unit = torch.eye(patches, dtype=torch.float64)[None]
    enlarged = interpolate(unit, size=pixels, mode="linear", align_corners=False)[
        0
    ]  # (patches, pixels)
    if smoothing > 0:
        blurred = gaussian_filter1d(enlarged.numpy(), smoothing * pixels, axis=1, mode="reflect")
        enlarged = torch.from_numpy(blurred)
    return enlarged.T.float().contiguous()
