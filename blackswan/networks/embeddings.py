"""Patch embeddings (N, C, h, w): layers brought to one grid, and streaming statistics of them."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from blackswan.networks.backbones import Backbone

# Of the covariances that are freed at once; malloc returns nothing below 32 MB to the system.
BLOCK_BYTES = 40_000_000


def finest_grid(backbone: Backbone) -> tuple[int, int]:
    """Return the (h, w) of the layer with the most patches."""
    return max(backbone.grids)


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
    """Streaming mean and covariance at every position, about the mean of the first batch.

    Covariances are kept in blocks of positions, so that their memory is given back one by one.
    """

    def __init__(self, positions: int, dimensions: int, full: bool) -> None:
        self.count, self.full = 0, full
        self.sums = torch.zeros(positions, dimensions, dtype=torch.float64)
        self.origin = self.sums  # once images come, near the mean, so that squares do not cancel
        size = max(1, BLOCK_BYTES // (8 * dimensions**2)) if full else positions
        self.blocks = [
            slice(start, min(start + size, positions)) for start in range(0, positions, size)
        ]
        shape = (dimensions, dimensions) if full else (dimensions,)
        self.products = [
            torch.zeros(block.stop - block.start, *shape, dtype=torch.float64)
            for block in self.blocks
        ]

    def add(self, embeddings: Tensor) -> None:
        """Add embeddings (P, N, D); the sums are the CPU's, for MPS has no float64."""
        embeddings = embeddings.cpu()
        if self.count == 0:
            self.origin = embeddings.mean(1, dtype=torch.float64)
        self.count += embeddings.shape[1]
        for block, products in zip(self.blocks, self.products, strict=True):
            values = embeddings[block].double() - self.origin[block, None]
            self.sums[block] += values.sum(1)
            if self.full:
                products.baddbmm_(values.mT, values)
            else:
                products += values.square().sum(1)

    def mean(self) -> Tensor:
        """Return the means (P, D), float64."""
        return self.origin + self.sums / self.count

    def take_covariances(self, block: int = 0) -> Tensor:
        """Return the covariances (p, D, D), or the variances (P, D), of a block, float64.

        They take the place of what was summed up: no block can be taken twice.
        """
        shift = self.sums[self.blocks[block]] / self.count
        centred, self.products[block] = self.products[block], torch.empty(0)
        if self.full:
            centred.baddbmm_(shift[:, :, None], shift[:, None], alpha=-self.count)
        else:
            centred -= self.count * shift.square()
        return centred.div_(self.count - 1)


def channel_statistics(outputs: Iterable[Tensor], channels: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel (C,), given outputs (N, C, h, w)."""
    moments = Moments(1, channels, full=False)
    for output in outputs:
        moments.add(output.movedim(1, 3).reshape(1, -1, channels))
    variances = moments.take_covariances()[0] * (1 - 1 / moments.count)  # of these, not a sample
    return moments.mean()[0].float(), variances.clamp_(min=1e-12).sqrt_().float()
