"""Embeddings computed once: what is fitted again and again on the same images reads them back."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from blackswan.data.batches import of_one_size
from blackswan.networks.backbones import Backbone

BATCH = 8  # images embedded at once


class RememberedBackbone(Backbone):
    """A backbone that knows the embeddings of some images; they lie on disk, not in memory."""

    def __init__(
        self, backbone: Backbone, images: Iterable[np.ndarray], count: int, folder: Path
    ) -> None:
        """Embed `count` images, uint8 RGB (H, W, 3), into float32 files in `folder`, one a layer.

        Images without an embedding there are embedded when they are asked for.
        """
        self.__dict__.update(vars(backbone))
        self._backbone = backbone
        self._rows: dict[bytes, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._layers = [
            np.lib.format.open_memmap(
                folder / f"{number}.npy", "w+", np.float32, (count, channels, *grid)
            )
            for number, (channels, grid) in enumerate(zip(self.channels, self.grids, strict=True))
        ]
        self._filled = 0
        shown = tqdm(images, desc="embed", unit="image", total=count, disable=None)
        for batch in of_one_size(shown, BATCH, lambda image: image):
            self._store(batch)

    def embed(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Return one float32 tensor (N, C, h, w) per layer, as the backbone does."""
        rows = [self._rows.get(_digest(image)) for image in images]
        new = [image for image, row in zip(images, rows, strict=True) if row is None]
        fresh = self._backbone.embed(new) if new else [torch.empty(0)] * len(self._layers)
        return [
            _joined(layer[..., : grid[0], : grid[1]], rows, iter(rest.cpu())).to(self.device)
            for layer, grid, rest in zip(
                self._layers, self.grids_of(images[0].shape), fresh, strict=True
            )
        ]

    def _store(self, images: list[np.ndarray]) -> None:
        begin = self._filled
        self._filled += len(images)
        for number, image in enumerate(images):
            self._rows.setdefault(_digest(image), begin + number)
        for layer, embedded in zip(self._layers, self._backbone.embed(images), strict=True):
            height, width = embedded.shape[2:]  # the rest of a small image stays empty
            layer[begin : self._filled, :, :height, :width] = embedded.cpu().numpy()


def _joined(known: np.ndarray, rows: Sequence[int | None], fresh: Iterator[Tensor]) -> Tensor:
    return torch.stack([next(fresh) if row is None else torch.tensor(known[row]) for row in rows])


def _digest(image: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()
