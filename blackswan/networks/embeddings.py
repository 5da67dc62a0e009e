"""Patch embeddings (N, C, h, w): layers brought to one grid, and streaming statistics of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from blackswan.networks.backbones import Backbone

# Of the covariances that are freed at once; malloc returns nothing below 32 MB to the system.
BLOCK_BYTES = 40_000_000


def finest_grid(backbone: Backbone, shape: Sequence[int]) -> tuple[int, int]:
    """Return the (h, w) of the layer with the most patches, for images of `shape` (H, W, ...)."""
    return max(backbone.grids_of(shape))


def count_patches(backbone: Backbone, sizes: Iterable[tuple[int, int]]) -> int:
    """Return how many patches images of these heights and widths have together."""
    numbers = Counter(sizes)
    return sum(count * prod(finest_grid(backbone, size)) for size, count in numbers.items())


def concatenate(
    layers: Sequence[Tensor], grid: tuple[int, int], mode: Literal["nearest", "bilinear"]
) -> Tensor:
    """Bring layers (N, C_k, h_k, w_k) to one grid (h, w) and join their channels: (N, C, h, w)."""
    options = {} if mode == "nearest" else {"align_corners": False}
    return torch.cat(
        [
            layer if layer.shape[2:] == grid else interpolate(layer, grid, mode=mode, **options)
            for layer in layers
        ],
        1,
    )


def neighborhood_patches(
    layers: Sequence[Tensor], grid: tuple[int, int], neighborhood: int
) -> Tensor:
    """Return the neighbourhood-aware patches (N, P, C) of PatchCore (arXiv 2106.08265, equation 2).

    `neighborhood` is the side, odd, of the patches that are averaged.
    """
    if neighborhood > 1:
        # Zeros beyond the border count, as in the paper's code.
        layers = [avg_pool2d(layer, neighborhood, 1, neighborhood // 2) for layer in layers]
    return concatenate(layers, grid, "bilinear").flatten(2).mT


class Moments:
    """Streaming mean and covariance at every position, about the mean of its first batch.

    Covariances are kept in blocks of positions, so that their memory is given back one by one.
    """

    def __init__(self, positions: int, dimensions: int, full: bool) -> None:
        self.full = full
        self.counts = torch.zeros(positions, dtype=torch.int64)  # of images
        self.sums = torch.zeros(positions, dimensions, dtype=torch.float64)
        # Once images come, near the mean, so that squares do not cancel.
        self.origin = torch.zeros(positions, dimensions, dtype=torch.float64)
        size = max(1, BLOCK_BYTES // (8 * dimensions**2)) if full else positions
        self.blocks = [
            slice(start, min(start + size, positions)) for start in range(0, positions, size)
        ]
        shape = (dimensions, dimensions) if full else (dimensions,)
        self.products = [
            torch.zeros(block.stop - block.start, *shape, dtype=torch.float64)
            for block in self.blocks
        ]

    @property
    def count(self) -> int:
        """How many images have been added, at the position that most of them have."""
        return int(self.counts.max())

    def add(self, embeddings: Tensor, positions: Tensor | None = None) -> None:
        """Add embeddings (p, N, D) of some positions (p,), ascending, or of all.

        The sums are the CPU's, for MPS has no float64.
        """
        embeddings = embeddings.cpu()
        if positions is None:
            positions = torch.arange(len(self.counts))
        new = self.counts[positions] == 0
        self.origin[positions[new]] = embeddings[new].mean(1, dtype=torch.float64)
        self.counts[positions] += embeddings.shape[1]
        for block, products in zip(self.blocks, self.products, strict=True):
            first, last = torch.searchsorted(positions, torch.tensor([block.start, block.stop]))
            chosen, rows = positions[first:last], positions[first:last] - block.start
            values = embeddings[first:last].double() - self.origin[chosen, None]
            self.sums[chosen] += values.sum(1)
            if not self.full:
                products[rows] += values.square().sum(1)
            elif len(rows) == len(products):
                products.baddbmm_(values.mT, values)
            else:
                products[rows] = products[rows].baddbmm_(values.mT, values)

    def mean(self) -> Tensor:
        """Return the means (P, D), float64; 0 where nothing was added."""
        return self.origin + self.sums / self.counts.clamp(min=1)[:, None]

    def take_covariances(self, block: int = 0) -> Tensor:
        """Return the covariances (p, D, D), or the variances (P, D), of a block, float64.

        They take the place of what was summed up: no block can be taken twice. A position with
        fewer than two images has none: 0.
        """
        counts = self.counts[self.blocks[block]].clamp(min=1)
        counts = counts.view(-1, *[1] * (self.products[block].ndim - 1))
        shift = self.sums[self.blocks[block]] / counts.view(-1, 1)
        centred, self.products[block] = self.products[block], torch.empty(0)
        if not self.full:
            centred -= counts * shift.square()
        elif counts.eq(counts[0]).all():
            centred.baddbmm_(shift[:, :, None], shift[:, None], alpha=-int(counts[0]))
        else:
            centred -= counts * (shift[:, :, None] * shift[:, None])
        return centred.div_((counts - 1).clamp(min=1))


def channel_statistics(outputs: Iterable[Tensor], channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel (C,), given outputs (N, C, h, w)."""
    moments = Moments(1, channels, full=False)
    for output in outputs:
        moments.add(output.movedim(1, 3).reshape(1, -1, channels))
    variances = moments.take_covariances()[0] * (1 - 1 / moments.count)  # of these, not a sample
    return moments.mean()[0].float(), variances.clamp_(min=1e-12).sqrt_().float()
