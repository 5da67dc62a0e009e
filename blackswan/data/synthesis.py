"""Synthetic anomalies: a normal image goes in, an anomalous one and its exact mask come out.

A detector is trained on some generators, by default on `salt_and_pepper`, and tested on others: one
that finds these has learnt what is normal, not what salt and pepper looks like. A generator either
fills polygons, wherever they lie, or is a brush of defects.py, which paints on the part.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from blackswan.data import defects
from blackswan.data.defects import VISIBLE, Brush, Canvas, Scene
from blackswan.params import Section


class Params(Section):
    """Shape and texture of the patches; lengths are fractions of the shorter side of the image."""

    patches_min: int = Field(ge=1)
    patches_max: int = Field(ge=1, le=100)
    radius_min: float = Field(gt=0, le=0.5)
    radius_max: float = Field(gt=0, le=0.5)
    vertices_min: int = Field(ge=3)
    vertices_max: int = Field(ge=3, le=100)
    irregularity: float = Field(
        ge=0, le=1
    )  # 0: a regular polygon; 1: radii from 0 to the full radius
    noise_ratio: float = Field(gt=0, le=1)  # share of the pixels of a patch that are replaced
    salt_ratio: float = Field(ge=0, le=1)  # share of the replaced pixels that turn white

    @model_validator(mode="after")
    def _ordered(self) -> "Params":
        for name in ("patches", "radius", "vertices"):
            if getattr(self, f"{name}_min") > getattr(self, f"{name}_max"):
                raise ValueError(f"{name}_min is larger than {name}_max; swap them")
        return self


STRIP = 1 << 17  # pixels
CANVAS = 1 << 18  # pixels; a larger box is painted smaller: cloning takes some 100 bytes a pixel
LENT = 1 << 22  # pixels that are kept of an image that lends patches
SMALLEST = 1e-4  # of the square of the shorter side, that a defect covers
GeneratorName = Literal[
    "salt_and_pepper", "perlin_texture", "cut_paste", "gaussian_blur",
    "poisson_blend", "scratch", "spot", "missing_part",
]  # fmt: skip
Fill = Callable[[np.ndarray, np.ndarray, Params, np.random.Generator], np.ndarray]


def synthesize(
    image: np.ndarray,
    generator: GeneratorName,
    params: Params,
    rng: np.random.Generator,
    other: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (anomalous image, mask) of an RGB image, uint8 (H, W, 3), or None if it shows nothing.

    The mask, bool (H, W), is the polygons themselves or what a brush painted; every pixel outside
    is untouched. `other` is the normal image, of any size, that lends `poisson_blend` its patches;
    without it `image` does. A draw that is invisible (a flat wall, blurred) is drawn again, and an
    image on which 100 draws are invisible has no such anomaly.
    """
    if generator in BRUSHES:
        scene = Scene.of(image)
        lender = scene if other is None else Scene.of(other)
        draw = partial(_paint, scene, lender, BRUSHES[generator])
        smallest = SMALLEST * min(image.shape[:2]) ** 2
    else:
        draw, smallest = partial(_fill, image, FILLS[generator]), 0.0
    for _ in range(100):
        changed, mask = draw(params, rng)
        covered = int(mask.sum())
        if covered > smallest and _mean_change(image, changed, mask) >= VISIBLE:
            return changed, mask
    return None


def to_lend(image: np.ndarray) -> np.ndarray:
    """Shrink an image that lends patches, so that it needs little memory beside the other."""
    return defects.shrink(image, math.sqrt(LENT / (image.shape[0] * image.shape[1])))


def _fill(
    image: np.ndarray, fill: Fill, params: Params, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    region = polygon_patches(image.shape[:2], params, rng)
    return fill(image, region, params, rng), region


def _paint(
    scene: Scene, lender: Scene, brush: Brush, params: Params, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paint around some polygons on the part, each on top of those before it."""
    changed = scene.image.copy()
    mask = np.zeros(changed.shape[:2], np.bool_)
    for _ in range(rng.integers(params.patches_min, params.patches_max + 1)):
        points = _polygon(mask.shape, params, rng, scene.place)
        box, canvas = _canvas(scene, changed, points)
        if canvas.region.any():
            _blend(changed[box], mask[box], *brush(canvas, lender, rng))
    return changed, mask


def _canvas(
    scene: Scene, image: np.ndarray, points: np.ndarray
) -> tuple[tuple[slice, slice], Canvas]:
    """Return the rows and columns around a polygon, and what a brush sees of them."""
    size = np.array(image.shape[1::-1])
    margin = 3 + np.ptp(points, axis=0) // 8
    left, top = np.clip(points.min(axis=0) - margin, 0, size - 1)
    right, bottom = np.clip(points.max(axis=0) + margin + 1, [left + 1, top + 1], size)
    box = slice(top, bottom), slice(left, right)
    scale = min(1.0, math.sqrt(CANVAS / ((right - left) * (bottom - top))))
    small = defects.shrink(image[box], scale)
    height, width = small.shape[:2]
    across, down = (right - left) / width, (bottom - top) / height  # pixels of a pixel
    region = np.zeros((height, width), np.uint8)
    drawn = (points - [left, top] + 0.5) / [across, down] - 0.5
    cv2.fillPoly(region, [np.round(drawn).astype(np.int32)], 1)
    part = np.ones((height, width), np.bool_)
    if scene.part is not None:
        rows = (top + (np.arange(height) + 0.5) * down) * scene.part.shape[0] / size[1]
        columns = (left + (np.arange(width) + 0.5) * across) * scene.part.shape[1] / size[0]
        part = scene.part[np.ix_(rows.astype(int), columns.astype(int))]
    background = scene.background if scene.part is not None else None
    canvas = Canvas(small, region.view(np.bool_), part, background, size.min() / max(across, down))
    return box, canvas


def _blend(image: np.ndarray, mask: np.ndarray, colours: np.ndarray, opacity: np.ndarray) -> None:
    """Lay what a brush painted, enlarged where it is smaller, on a box of an image and its mask."""
    for rows in _strips(mask.shape):
        over, cover = (_rows_of(each, rows, mask.shape) for each in (colours, opacity))
        share = cover[..., None] / np.float32(255)
        blend = image[rows] * (1 - share) + over * share
        np.copyto(image[rows], np.round(blend).astype(np.uint8), where=cover[..., None] > 0)
        mask[rows] |= cover > 0


def _rows_of(small: np.ndarray, rows: slice, shape: tuple[int, ...]) -> np.ndarray:
    """Return some rows of an image enlarged to `shape`, (H, W)."""
    if small.shape[:2] == shape:
        return small[rows]
    down, across = small.shape[0] / shape[0], small.shape[1] / shape[1]
    first = (rows.start + 0.5) * down - 0.5
    matrix = np.array([[across, 0, across / 2 - 0.5], [0, down, first]])
    size = shape[1], rows.stop - rows.start
    flags = cv2.INTER_LINEAR + cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(small, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _mean_change(image: np.ndarray, changed: np.ndarray, mask: np.ndarray) -> float:
    total = sum(
        int(cv2.absdiff(image[rows], changed[rows])[mask[rows]].sum())
        for rows in _strips(mask.shape)
    )
    return total / (3 * int(mask.sum()))


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Divide the rows of an image, so that what is computed of one strip takes some 20 MB."""
    rows = max(1, STRIP // shape[1])
    return (slice(top, min(top + rows, shape[0])) for top in range(0, shape[0], rows))


def polygon_patches(shape: tuple[int, int], params: Params, rng: np.random.Generator) -> np.ndarray:
    """Draw irregular polygons anywhere, bool (H, W)."""
    height, width = shape
    region = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(params.patches_min, params.patches_max + 1)):
        points = _polygon(shape, params, rng, lambda rng: rng.uniform([0, 0], [width, height]))
        cv2.fillPoly(region, [points], 1)
    return region.view(np.bool_)


def _polygon(
    shape: tuple[int, ...],
    params: Params,
    rng: np.random.Generator,
    place: Callable[[np.random.Generator], np.ndarray],
) -> np.ndarray:
    """Draw the corners of a polygon, int32 (V, 2): jittered angles and radii around a centre."""
    count = rng.integers(params.vertices_min, params.vertices_max + 1)
    radius = rng.uniform(params.radius_min, params.radius_max) * min(shape)
    steps = 1 + params.irregularity * rng.uniform(-0.9, 0.9, count)
    angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.cumsum(steps) / steps.sum()
    radii = radius * (1 - params.irregularity * rng.uniform(0, 0.9, count))
    points = place(rng) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.round(points).astype(np.int32)


def salt_and_pepper(
    image: np.ndarray, region: np.ndarray, params: Params, rng: np.random.Generator
) -> np.ndarray:
    """Turn a share of the region's pixels white or black."""
    changed = image.copy()
    for rows in _strips(region.shape):
        draw = rng.random(region[rows].shape)
        noisy = region[rows] & (draw < params.noise_ratio)
        salt = draw < params.noise_ratio * params.salt_ratio
        changed[rows][noisy & salt] = 255
        changed[rows][noisy & ~salt] = 0
    return changed


def perlin_texture(
    image: np.ndarray, region: np.ndarray, params: Params, rng: np.random.Generator
) -> np.ndarray:
    """Blend a coloured Perlin-noise texture into the region (after DRAEM, arXiv 2108.07610)."""
    angles = [perlin_angles(8, rng) for _ in range(3)]
    opacity = rng.uniform(0.5, 1.0)
    changed = image.copy()
    for rows in _strips(region.shape):
        texture = np.stack([perlin_noise(region.shape, a, rows) for a in angles], axis=2)
        blend = (1 - opacity) * image[rows] + opacity * 255 * texture
        np.copyto(changed[rows], np.round(blend).astype(np.uint8), where=region[rows, :, None])
    return changed


def cut_paste(
    image: np.ndarray, region: np.ndarray, params: Params, rng: np.random.Generator
) -> np.ndarray:
    """Fill the region with another part of the same image (after CutPaste, arXiv 2104.04015)."""
    height, width = image.shape[:2]
    shift = (
        rng.integers(height // 4, max(height // 4 + 1, 3 * height // 4)),
        rng.integers(width // 4, max(width // 4 + 1, 3 * width // 4)),
    )
    changed = image.copy()
    for rows in _strips(region.shape):
        source = (np.arange(rows.start, rows.stop) - shift[0]) % height
        other = np.roll(image[source], shift[1], axis=1)
        np.copyto(changed[rows], other, where=region[rows, :, None])
    return changed


def gaussian_blur(
    image: np.ndarray, region: np.ndarray, params: Params, rng: np.random.Generator
) -> np.ndarray:
    """Blur the region like a smear; sigma is 2 to 5 % of the shorter side."""
    sigma = rng.uniform(0.02, 0.05) * min(image.shape[:2])
    changed = cv2.GaussianBlur(image, (0, 0), sigma)
    for rows in _strips(region.shape):
        np.copyto(changed[rows], image[rows], where=~region[rows, :, None])
    return changed


FILLS: dict[str, Fill] = {  # of polygons, wherever they lie
    "salt_and_pepper": salt_and_pepper,
    "perlin_texture": perlin_texture,
    "cut_paste": cut_paste,
    "gaussian_blur": gaussian_blur,
}
BRUSHES: dict[str, Brush] = {  # around polygons on the part
    "poisson_blend": defects.poisson_blend,
    "scratch": defects.scratch,
    "spot": defects.spot,
    "missing_part": defects.missing_part,
}


def perlin_angles(cells: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the directions of the gradients of Perlin noise, `cells` a side."""
    return rng.uniform(0, 2 * np.pi, (cells + 1, cells + 1))


def perlin_noise(
    shape: tuple[int, ...], angles: np.ndarray, rows: slice = slice(None)
) -> np.ndarray:
    """Return rows of gradient noise in [0, 1] over (H, W), float64 (Perlin 1985, 2002)."""
    cells = len(angles) - 1
    down, right = np.sin(angles), np.cos(angles)  # the gradients, (cells+1, cells+1) each
    ys, xs = (np.arange(side) * cells / side for side in shape)
    ys = ys[rows]
    (y0, fy), (x0, fx) = ((axis.astype(int), axis % 1) for axis in (ys, xs))

    def corner(dy: int, dx: int) -> np.ndarray:
        # Rows, then columns: a fifth of the time of indexing both at once.
        gy, gx = (gradient[y0 + dy][:, x0 + dx] for gradient in (down, right))  # (H, W)
        return gy * (fy - dy)[:, None] + gx * (fx - dx)

    wy, wx = (6 * f**5 - 15 * f**4 + 10 * f**3 for f in (fy, fx))
    top = corner(0, 0) * (1 - wx) + corner(0, 1) * wx
    bottom = corner(1, 0) * (1 - wx) + corner(1, 1) * wx
    noise = top * (1 - wy)[:, None] + bottom * wy[:, None]
    return np.clip(0.5 + noise / np.sqrt(2), 0, 1)
