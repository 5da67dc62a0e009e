"""What the drift tests see of images: the score of a detector, and what its backbone says."""

from collections.abc import Iterable

import numpy as np

from blackswan.data.batches import of_one_size
from blackswan.detectors.interface import Detector, Scores
from blackswan.errors import InputError

BATCH = 8


def describe(detector: Detector, images: Iterable[np.ndarray]) -> np.ndarray:
    """Return a line (1 + D,) an image: its score, then the mean of each channel of the backbone.

    A detector without one is described by mean and deviation of each colour. Raises InputError for
    images of several sizes, which are of several cameras.
    """
    rows: list[np.ndarray] = []
    size: tuple[int, ...] = ()
    for batch in of_one_size(images, BATCH, lambda image: image):
        shape = batch[0].shape[:2]
        if size and shape != size:
            raise InputError(
                f"an image of {shape[1]} x {shape[0]} pixels follows others of {size[1]} x "
                f"{size[0]}; test those of one camera at a time"
            )
        size = shape
        found: Scores = detector.score(batch)
        rows.append(np.column_stack([found.image_scores, _embed(detector, batch)]))
    return np.concatenate(rows) if rows else np.empty((0, 1))


def _embed(detector: Detector, images: list[np.ndarray]) -> np.ndarray:
    backbone = getattr(detector, "backbone", None)
    if backbone is None:
        pixels = np.stack(images).reshape(len(images), -1, 3).astype(np.float32)
        return np.concatenate([pixels.mean(1), pixels.std(1)], axis=1)
    layers = backbone.embed(images)
    return np.concatenate([layer.mean((2, 3)).cpu().numpy() for layer in layers], axis=1)
