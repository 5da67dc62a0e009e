"""Where an anomaly map lies above its threshold: connected regions."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Region:
    """A connected part of a map above its threshold."""

    left: int
    top: int
    inside: np.ndarray  # (height, width) bool, of its box
    peak: float


def find_regions(anomaly_map: np.ndarray, threshold: float, most: int) -> list[Region]:
    """Return where a map (H, W) lies above a threshold, connected, the highest peak first."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        (anomaly_map > threshold).astype(np.uint8), connectivity=8
    )
    found = []
    for number in range(1, count):
        left, top, width, height, _ = (int(value) for value in stats[number])
        inside = labels[top : top + height, left : left + width] == number
        peak = float(anomaly_map[top : top + height, left : left + width][inside].max())
        found.append(Region(left, top, inside, peak))
    found.sort(key=lambda region: (-region.peak, region.top, region.left))
    return found[:most]
