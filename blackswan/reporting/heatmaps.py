"""Anomaly maps as colours on a photo, on one fixed scale per detector and never one per image.

What lies below the threshold leaves the photo nearly as it is, so a part that is good looks good.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# At each quarter of the scale: pale yellow to dark red, ever darker, so that no eye mixes up two,
# and how much of it covers the photo: it turns up at the threshold.
COLOURS = np.array([(255, 246, 200), (255, 226, 122), (253, 181, 42), (238, 93, 20), (165, 0, 38)])
OPACITY = np.array([0.0, 0.06, 0.25, 0.7, 0.85])


@dataclass(frozen=True)
class HeatmapScale:
    """The colours of one detector: 0 is clear, `threshold` the middle, `top` and above the end."""

    threshold: float
    top: float

    @property
    def marks(self) -> tuple[float, float, float]:
        """The values at the start, the middle and the end of the scale; they rise.

        A detector whose threshold is below 0 has its start as far below it as the end is above.
        """
        top = max(self.top, float(np.nextafter(self.threshold, np.inf)))
        start = 0.0 if self.threshold >= 0 else 2 * self.threshold - top
        return start, self.threshold, top

    def position(self, values: np.ndarray) -> np.ndarray:
        """Return where values lie on the scale, 0 to 1; above 0.5 is above the threshold."""
        return np.where(values > self.marks[0], np.interp(values, self.marks, (0, 0.5, 1)), 0)


def overlay(image: np.ndarray, anomaly_map: np.ndarray, scale: HeatmapScale) -> np.ndarray:
    """Lay a map (H, W) over an image, uint8 (H, W, 3) RGB; opacity rises with the value."""
    colour, opacity = _paint(anomaly_map, scale)
    return np.rint(image * (1 - opacity) + colour * opacity).astype(np.uint8)


def layer(anomaly_map: np.ndarray, scale: HeatmapScale) -> np.ndarray:
    """Return what `overlay` lays over an image, uint8 (H, W, 4) RGBA, for others to lay."""
    colour, opacity = _paint(anomaly_map, scale)
    return np.rint(np.concatenate([colour, 255 * opacity], axis=-1)).astype(np.uint8)


def _paint(anomaly_map: np.ndarray, scale: HeatmapScale) -> tuple[np.ndarray, np.ndarray]:
    position = scale.position(anomaly_map)
    stops = np.linspace(0, 1, len(OPACITY))
    colour = np.stack([np.interp(position, stops, channel) for channel in COLOURS.T], axis=-1)
    return colour, np.interp(position, stops, OPACITY)[..., None]


def outline(image: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Draw the border of a mask, bool (H, W); white within black shows on any photo."""
    if mask is None or not mask.any():
        return image
    # Around the mask, not on it, so that the line hides nothing of a small defect.
    near, far, beyond = (
        cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0 for side in (3, 5, 7)
    )
    drawn = image.copy()
    drawn[beyond & ~mask] = 0
    drawn[far & ~near] = 255
    return drawn


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """Scale an image (H, W, 3) so that its longer side is `side` pixels."""
    size = _fitted_size(image.shape[:2], side)
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fit_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Scale a mask, bool (H, W), like `fit`; what it covers stays covered, however small."""
    size = _fitted_size(mask.shape, side)
    scaled = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(scaled > 0)


def fit_map(anomaly_map: np.ndarray, side: int) -> np.ndarray:
    """Scale a map, float32 (H, W), like `fit`; its peaks stay, for a mean would hide small ones."""
    cell = -(-max(anomaly_map.shape) // side)
    peaks = cv2.dilate(anomaly_map, np.ones((cell, cell), np.uint8))
    size = _fitted_size(anomaly_map.shape, side)
    return cv2.resize(peaks, size, interpolation=cv2.INTER_LINEAR)


def _fitted_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    factor = side / max(shape)
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))
