"""What every detector shares: a module with Params, fit, Detector (score, save) and load.

    class Params(Section)                      the knobs, their ranges and units
    fit(images, params, resources) -> Detector
    Detector.score(images) -> Scores
    Detector.save(folder), load(folder)        safetensors and JSON, nothing else

    FITS_IN_SECONDS = True                     where it does: fitted on all normal images then, and
                                               again on parts of them to calibrate its threshold
    shortage(images, params) -> Shortage       where a fit on so many normal images cannot be, else
                                               None; asked before anything is trained
    LEARNS_ANOMALIES = True                    where it does: its threshold may lie between the two

There is no base class and no registry: `load_module("padim")` imports blackswan.detectors.padim.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from blackswan.errors import InputError

LOSSES = "losses.csv"  # of a model that learnt step by step: epoch or step, then a column a curve


class Images(Protocol):
    """RGB images, uint8 (H, W, 3); may be iterated again and again."""

    @property
    def paths(self) -> Sequence[str]:
        """Name the images, in the order of iteration."""

    @property
    def sizes(self) -> Sequence[tuple[int, int]]:
        """Heights and widths of the images, in the order of iteration."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass(frozen=True)
class Resources:
    """What a fit may use beside its images."""

    validation: Images  # held-out normal images; never a test image
    weights: Path  # the folder that holds data/weights/<name>
    checkpoints: Path  # where a long fit may keep its progress
    seed: int
    backbone: Any = None  # a networks.backbones.Backbone that is open already


@dataclass(frozen=True)
class Scores:
    """Higher is more anomalous; maps.py tells how patch scores become maps."""

    image_scores: np.ndarray  # (N,) float32
    patch_scores: np.ndarray  # (N, h, w) float32 or uint8, as fine as the detector sees
    size: tuple[int, int]  # height and width of the images, and of their maps
    smoothing: float = 0  # of the maps, fraction of their sides
    box: int = 1  # side of the box that averages the patch scores
    probabilities: bool = False  # the image scores are probabilities of being anomalous
    logits: np.ndarray | None = None  # (N, 2) float32 of normal and anomalous, which these are of

    @classmethod
    def of_peaks(
        cls, patch_scores: np.ndarray, size: tuple[int, int], smoothing: float = 0, box: int = 1
    ) -> "Scores":
        """Score each image by the peak of its map."""
        from blackswan.detectors.maps import to_maps  # torch, which takes seconds to import

        peaks = to_maps(patch_scores, size, smoothing, box).max(axis=(1, 2))
        return cls(peaks, patch_scores, size, smoothing, box)

    @cached_property
    def anomaly_maps(self) -> np.ndarray:
        """Return the maps (N, H, W), float32."""
        if self.patch_scores.shape[1:] == self.size and self.smoothing == 0 and self.box == 1:
            return np.asarray(self.patch_scores, np.float32)
        from blackswan.detectors.maps import to_maps

        return to_maps(self.patch_scores, self.size, self.smoothing, self.box)


class Detector(Protocol):
    """A fitted detector."""

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Score a batch of RGB images, uint8 (H, W, 3), all of one size."""

    def save(self, folder: Path) -> None:
        """Write safetensors and JSON into an existing folder."""


def load_module(name: str) -> ModuleType:
    """Import the detector `name`; raises InputError where blackswan/detectors has no such file."""
    try:
        module = import_module(f"blackswan.detectors.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"blackswan.detectors.{name}":
            raise
        raise InputError(
            f"no detector {name}: blackswan/detectors/{name}.py does not exist"
        ) from None
    if not hasattr(module, "load"):
        raise InputError(f"{name} is no detector: blackswan/detectors/{name}.py has no load()")
    return module


def check_fits(name: str, module: ModuleType) -> None:
    """Raise InputError where the entry `name` of `detectors` is none that learns from normals."""
    if not hasattr(module, "fit"):
        raise InputError(f"{name} has a stage of its own; take it out of the block detectors")
