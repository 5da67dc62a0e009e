"""Small anomaly maps and masks drawn from a seed, for two implementations of one metric."""

import numpy as np


def draw(seed: int, images: int = 4, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return maps, float32, and masks, bool, (N, side, side); the last image is normal.

    Regions touch the border and each other's corners, maps have ties and values below zero.
    """
    rng = np.random.default_rng(seed)
    maps, masks = np.zeros((2, images, side, side))
    for anomaly_map, mask in zip(maps[:-1], masks[:-1], strict=True):
        for top, left in rng.integers(0, side - 8, (rng.integers(1, 5), 2)):
            height, width = rng.integers(3, 20, 2)
            mask[top : top + height, left : left + width] = 1
            anomaly_map[top : top + height, left : left + width] += rng.uniform(0, 2)
    maps += rng.standard_normal(maps.shape)
    return maps.round(2).astype(np.float32), masks.astype(bool)
