"""What the drift tests see of images: the score of a detector, and what its backbone says.

Of a detector without a backbone, mean and deviation of each colour stand for the latter.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blackswan.data.batches import of_one_size
from blackswan.detectors.interface import Detector, Scores
from blackswan.errors import InputError

BATCH = 8
MOST = 5  # principal components of a summary


def describe(detector: Detector, images: Iterable[np.ndarray]) -> np.ndarray:
    """Return a line (1 + D,) an image: its score, then the mean of each channel of the backbone.

    Raises InputError for images of several sizes, which are of several cameras.
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
        rows.append(np.column_stack([found.image_scores, embed(detector, batch)]))
    return np.concatenate(rows) if rows else np.empty((0, 1))


def embed(detector: Detector, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of each channel of the backbone, or the colours: (N, D) of one size."""
    backbone = getattr(detector, "backbone", None)
    return colours(images) if backbone is None else _means(backbone.embed(images))


def colours(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return mean and deviation of each colour of RGB images, uint8 (H, W, 3): (N, 6)."""
    pixels = [image.reshape(-1, 3).astype(np.float32) for image in images]
    return np.stack([np.concatenate([each.mean(0), each.std(0)]) for each in pixels])


class Overheard:
    """What a backbone said while its detector scored, so that nothing is computed twice."""

    def __init__(self) -> None:
        self._heard: list[np.ndarray] = []

    def add(self, means: np.ndarray) -> None:
        """Take the means (N, D) of a batch."""
        self._heard.append(means)

    def embeddings(self, detector: Detector, images: Sequence[np.ndarray]) -> np.ndarray | None:
        """Return what was said of the images, as `embed` would; None where that is not known.

        A batch that did not fit in memory is embedded again in halves, and heard twice.
        """
        if getattr(detector, "backbone", None) is None:
            return colours(images)
        if sum(map(len, self._heard)) != len(images):
            return None
        return np.concatenate(self._heard)


@contextmanager
def overhearing(detector: Detector) -> Iterator[Overheard]:
    """Listen to the backbone of a detector, if it has one, within a block that one thread runs."""
    heard, backbone = Overheard(), getattr(detector, "backbone", None)
    if backbone is None:
        yield heard
        return
    plain = backbone.embed

    def aloud(images: Sequence[np.ndarray]) -> object:
        layers = plain(images)
        heard.add(_means(layers))
        return layers

    backbone.embed = aloud  # hides the method
    try:
        yield heard
    finally:
        del backbone.embed


def _means(layers: Sequence) -> np.ndarray:
    return np.concatenate([layer.mean((2, 3)).cpu().numpy() for layer in layers], axis=1)


@dataclass(frozen=True)
class Components:
    """Principal components of embeddings, whose deviation is 1 on those they were fitted on.

    Dimensions were scaled to deviation 1 before.
    """

    centre: np.ndarray  # (D,)
    spread: np.ndarray  # (D,)
    axes: np.ndarray  # (K, D)

    @classmethod
    def fit(cls, embeddings: np.ndarray) -> "Components":
        """Find up to MOST of embeddings (N, D); of each axis the largest entry is positive."""
        values = embeddings.astype(np.float64)
        centre, spread = values.mean(0), values.std(0)
        spread = np.where(spread > 1e-12, spread, 1)
        _, sizes, axes = np.linalg.svd((values - centre) / spread, full_matrices=False)
        kept = np.flatnonzero(sizes > 1e-6 * sizes[0])[:MOST]  # none where all are copies of one
        axes, deviations = axes[kept], sizes[kept] / np.sqrt(len(values))
        largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
        return cls(centre, spread, axes * np.sign(largest) / deviations[:, None])

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the summary (N, K) of embeddings (N, D)."""
        return ((embeddings - self.centre) / self.spread) @ self.axes.T

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.numpy import save_file

        save_file({"centre": self.centre, "spread": self.spread,
                   "axes": np.ascontiguousarray(self.axes)}, path)  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> "Components":
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        return cls(**load_file(path))
