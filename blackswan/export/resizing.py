"""The resizes of OpenCV as a graph: the same bits, so that a graph needs no other preprocessing.

Pixels are float32 (N, H, W, 3) that hold whole numbers. What OpenCV computes in integers is done
here in floats that hold them exactly, for not all runtimes shift and divide integers.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from blackswan.data.images import Crop, crop_box, scaled_size
from blackswan.data.preprocessing import Preprocessing

STEPS = 2048  # into which OpenCV divides the way between two pixels


def prepare(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Crop and scale as `Preprocessing.apply` does, without a pose."""
    for step in preprocessing.steps:
        pixels = crop(pixels, step.crop)
        if step.size is not None:
            pixels = averaged(pixels, scaled_size(step.size, _size(pixels)))
    return pixels


def crop(pixels: Tensor, box: Crop) -> Tensor:
    """Cut out what `crop_box` tells."""
    height, width = _size(pixels)
    left, top, box_width, box_height = crop_box(width, height, box)
    return pixels[:, top : top + box_height, left : left + box_width]


def averaged(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale as `images.crop_and_resize` does."""
    while all(
        side >= 2 * wanted and side % 2 == 0
        for side, wanted in zip(_size(pixels), size, strict=True)
    ):
        height, width = _size(pixels)
        pixels = area(pixels, (height // 2, width // 2))
    height, width = _size(pixels)
    pixels = area(pixels, (min(height, size[0]), min(width, size[1])))
    return linear(pixels, size)


def fitted(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale as `backbones.to_tensor` does."""
    height, width = _size(pixels)
    shrink = height > size[0] and width > size[1]
    return area(pixels, size) if shrink else linear(pixels, size)


def area(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink as INTER_AREA does."""
    height, width = _size(pixels)
    if (height, width) == size:
        return pixels
    if height % size[0] == 0 and width % size[1] == 0:
        down, across = height // size[0], width // size[1]
        sums = pixels.reshape(-1, size[0], down, size[1], across, 3).sum((2, 4))
        if (down, across) == (2, 2):
            return ((sums + 2) / 4).floor()
        return (sums * float(np.float32(1 / (down * across)))).round()
    rows = _weighted(pixels, 2, *_areas(width, size[1]))
    return _weighted(rows, 1, *_areas(height, size[0])).round()


def linear(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale as INTER_LINEAR does, which rounds down four times on its way."""
    height, width = _size(pixels)
    if (height, width) == size:
        return pixels
    indices, weights = _neighbours(width, size[1], inside=True)
    rows = (_weighted(pixels, 2, indices, weights) / 16).floor()
    high = (rows / 64).floor()
    low = rows - 64 * high
    parts = []
    for taken, weight in zip(*_neighbours(height, size[0], inside=False), strict=True):
        index, factor = torch.from_numpy(taken), _along(weight, 1)
        # floor(rows * weight / 65536), in numbers that float32 holds
        carried = (low.index_select(1, index) * factor / 64).floor()
        parts.append(((high.index_select(1, index) * factor + carried) / 1024).floor())
    return ((reduce(torch.add, parts) + 2) / 4).floor()


def _size(pixels: Tensor) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[2]


def _along(weight: np.ndarray, axis: int) -> Tensor:
    return torch.from_numpy(weight).view(-1, *[1] * (3 - axis))


def _weighted(
    pixels: Tensor, axis: int, indices: Sequence[np.ndarray], weights: Sequence[np.ndarray]
) -> Tensor:
    """Return the sum of some pixels along an axis, each by its weight, in the order of OpenCV."""
    parts = (
        pixels.index_select(axis, torch.from_numpy(index)) * _along(weight, axis)
        for index, weight in zip(indices, weights, strict=True)
    )
    return reduce(torch.add, parts)


def _areas(pixels: int, wanted: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return which pixels each wanted one covers and how much, one array (wanted,) for each turn.

    The tables of `computeResizeAreaTab` of OpenCV.
    """
    scale = pixels / wanted
    covered: list[list[tuple[int, float]]] = []
    for number in range(wanted):
        begin, end = number * scale, (number + 1) * scale
        cell = min(scale, pixels - begin)
        last = min(int(np.floor(end)), pixels - 1)
        first = min(int(np.ceil(begin)), last)
        found = [(pixel, 1 / cell) for pixel in range(first, last)]
        if first - begin > 1e-3:
            found.insert(0, (first - 1, (first - begin) / cell))
        if end - last > 1e-3:
            found.append((last, min(end - last, 1.0, cell) / cell))
        covered.append(found)
    turns = max(map(len, covered))
    padded = np.array([found + [(0, 0.0)] * (turns - len(found)) for found in covered])
    return list(padded[..., 0].T.astype(np.int64)), list(padded[..., 1].T.astype(np.float32))


def _neighbours(
    pixels: int, wanted: int, *, inside: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the two pixels beside each wanted one and their weights, of STEPS.

    `inside`, the border takes one pixel alone, as OpenCV's rows do; its columns take it twice.
    """
    place = ((np.arange(wanted) + 0.5) * (pixels / wanted) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = place - first.astype(np.float32)
    if inside:
        share[(first < 0) | (first >= pixels - 1)] = 0
        first = first.clip(0, pixels - 1)
    indices = [first.clip(0, pixels - 1), (first + 1).clip(0, pixels - 1)]
    weights = [np.rint((1 - share) * STEPS), np.rint(share * STEPS)]
    return indices, [weight.astype(np.float32) for weight in weights]
