"""The embedding of a region: a frozen backbone sees it with what surrounds it.

The stage, the command line and the service embed by this one class, so that their vectors agree.
"""

import hashlib
import json
import shutil
from pathlib import Path
from threading import Lock
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import Field

from blackswan.evaluation.model import fingerprint
from blackswan.evaluation.regions import Region
from blackswan.networks.backbones import load_backbone
from blackswan.outputs import replace_file
from blackswan.params import Section, Size, load_section

JSON, BACKBONE = "embedder.json", "backbone"
SMALLEST = 0.1  # of the shorter side of an image: a crop is no smaller, for a speck is no texture


class Params(Section):
    """What of a region is embedded, and by which network."""

    backbone: str  # a name of the fetch_weights block
    layers: Annotated[list[int], Field(min_length=1)]
    image_size: Size  # the backbone sees the crop as large as this holds it
    context: Annotated[float, Field(ge=0, le=4)]  # on each side, in longer sides of the region
    pooling: Literal["region", "crop"]  # whose patches are averaged


class Embedder:
    """A backbone that embeds regions of images, from any thread, one at a time."""

    def __init__(self, params: Params, weights: Path) -> None:
        self.params, self.weights = params, weights
        self.backbone = load_backbone(weights, params.layers, params.image_size)
        files = sorted(weights.glob("*.safetensors")) + sorted(weights.glob("*.json"))
        seen = f"{fingerprint(files)} {params.model_dump_json(exclude={'backbone'})}"
        self.hash = hashlib.sha256(seen.encode()).hexdigest()[:32]
        self._turn = Lock()  # a backbone keeps state while it runs

    @property
    def dimensions(self) -> int:
        """How many numbers an embedding has."""
        return sum(self.backbone.channels)

    def crop(self, image: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Return the square around a region of an image (H, W, 3), and the region in it (h, w).

        At a border it moves inwards; where the image is narrower it is cut.
        """
        height, width = image.shape[:2]
        high, wide = region.inside.shape
        side = max(high, wide) * (1 + 2 * self.params.context)
        side = round(max(side, SMALLEST * min(height, width), 1))
        rows = _span(region.top, high, side, height)
        columns = _span(region.left, wide, side, width)
        whole = np.zeros((height, width), bool)
        whole[region.top : region.top + high, region.left : region.left + wide] = region.inside
        return image[rows, columns], whole[rows, columns]

    @torch.inference_mode()
    def embed(self, image: np.ndarray, region: Region) -> np.ndarray:
        """Return the embedding (D,), float32 of length 1, of a region of an RGB image."""
        crop, inside = self.crop(image, region)
        with self._turn:
            layers = self.backbone.embed([crop])
        pooled = []
        for [layer] in layers:  # (C, h, w)
            weights = self._weights(inside, layer.shape[1:])
            mean = (layer.cpu() * torch.from_numpy(weights)).sum((1, 2)) / weights.sum()
            pooled.append(mean / mean.norm().clamp(min=1e-12))
        found = torch.cat(pooled)
        return np.asarray(found / found.norm().clamp(min=1e-12), np.float32)

    def _weights(self, inside: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """Return how much each patch (h, w) counts: the share of it that the region covers."""
        if self.params.pooling == "crop":
            return np.ones(grid, np.float32)
        return cv2.resize(inside.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)

    def save(self, folder: Path) -> None:
        """Write the params and a copy of the backbone into a new folder."""
        shutil.copytree(self.weights, folder / BACKBONE, copy_function=shutil.copyfile)
        with replace_file(folder / JSON) as partial:
            content = json.dumps(self.params.model_dump(), indent=2) + "\n"
            partial.write_text(content, encoding="utf-8")


def load(folder: Path) -> Embedder:
    """Read what `save` wrote; raises InputError where it is missing or broken."""
    return Embedder(load_section(Params, "", folder / JSON), folder / BACKBONE)


def _span(begin: int, length: int, side: int, whole: int) -> slice:
    """Return the slice of `side` pixels about the middle of some, within 0 to `whole`."""
    side = min(side, whole)
    first = min(max(0, begin + (length - side) // 2), whole - side)
    return slice(first, first + side)
