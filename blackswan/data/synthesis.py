"""Synthetic anomalies: a normal image goes in, an anomalous one and its exact mask come out.

`salt_and_pepper` is the anomaly a detector is trained on. The others are for evaluation: a
detector that finds them has learnt what is normal, not what salt and pepper looks like.
"""

from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

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
VISIBLE = 2.0  # mean change of a patch, grey levels, below which nobody could see it
GeneratorName = Literal["salt_and_pepper", "perlin_texture", "cut_paste", "gaussian_blur"]


def synthesize(
    image: np.ndarray, generator: GeneratorName, params: Params, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (anomalous image, mask) of an RGB image, uint8 (H, W, 3), or None if it shows nothing.

    The mask, bool (H, W), is the polygons themselves; every pixel outside is untouched. A draw
    that is invisible (a flat wall, blurred) is drawn again, and an image on which 100 draws are
    invisible has no such anomaly.
    """
    for _ in range(100):
        made = _draw(image, generator, params, rng)
        if made is not None:
            return made
    return None


def _draw(
    image: np.ndarray, generator: GeneratorName, params: Params, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    mask = polygon_patches(image.shape[:2], params, rng)
    changed = GENERATORS[generator](image, mask, params, rng)
    visible = mask.any() and _mean_change(image, changed, mask) >= VISIBLE
    return (changed, mask) if visible else None


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
    """Draw irregular polygons, bool (H, W): jittered angles and radii around a centre."""
    height, width = shape
    region = np.zeros(shape, np.uint8)
    for _ in range(rng.integers(params.patches_min, params.patches_max + 1)):
        count = rng.integers(params.vertices_min, params.vertices_max + 1)
        radius = rng.uniform(params.radius_min, params.radius_max) * min(shape)
        steps = 1 + params.irregularity * rng.uniform(-0.9, 0.9, count)
        angles = rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.cumsum(steps) / steps.sum()
        radii = radius * (1 - params.irregularity * rng.uniform(0, 0.9, count))
        centre = rng.uniform([0, 0], [width, height])
        points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(region, [np.round(points).astype(np.int32)], 1)
    return region.view(np.bool_)


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


GENERATORS = {
    "salt_and_pepper": salt_and_pepper,
    "perlin_texture": perlin_texture,
    "cut_paste": cut_paste,
    "gaussian_blur": gaussian_blur,
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
