"""Defects that look real, for training that is to transfer: each is painted around one polygon.

A brush takes a `Canvas`, the scene that lends patches and a random generator. It returns the
colours that it paints, uint8 (h, w, 3), and how much they cover, uint8 (h, w); 0 is untouched.
Where the image shows a thing before a plain background, the polygons lie on the thing.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from blackswan.data.foreground import background_of, has_contrast, lies_inside, split_off

SIGHT = 256  # pixels of the longer side at which a thing is told from its background
VISIBLE = 2.0  # mean change, grey levels, below which nobody could see it
STRIKING = 8  # grey levels, a change that stands out from the noise of a camera


@dataclass(frozen=True)
class Scene:
    """An image, uint8 (H, W, 3), and what in it can be defective."""

    image: np.ndarray
    part: np.ndarray | None  # bool (h, w), the thing in the shrunk image; None: all of the image
    background: np.ndarray  # uint8 (3,), where there is a part

    @classmethod
    def of(cls, image: np.ndarray) -> "Scene":
        """Look for a thing before a plain background."""
        small = shrink(image, SIGHT / max(image.shape[:2]))
        difference, part = split_off(small)
        is_plain = has_contrast(difference, part) and lies_inside(part)
        return cls(image, part if is_plain else None, background_of(small))

    def place(self, rng: np.random.Generator) -> np.ndarray:
        """Draw a point on the part, x and y in pixels of the image, float64 (2,)."""
        size = np.array(self.image.shape[1::-1])
        if self.part is None:
            return rng.uniform([0, 0], size)
        rows, columns = np.nonzero(self.part)
        chosen = rng.integers(len(rows))
        inside = np.array([columns[chosen], rows[chosen]]) + rng.random(2)
        return inside * size / self.part.shape[::-1]


@dataclass(frozen=True)
class Canvas:
    """A box of an image around one polygon, shrunk where it is large."""

    image: np.ndarray  # uint8 (h, w, 3)
    region: np.ndarray  # bool (h, w), the polygon
    part: np.ndarray  # bool (h, w), the thing; everywhere, where no background is plain
    background: np.ndarray | None  # uint8 (3,), None where none is plain
    shorter_side: float  # of the whole image, in pixels of the canvas


Painted = tuple[np.ndarray, np.ndarray]
Brush = Callable[[Canvas, Scene, np.random.Generator], Painted]


def poisson_blend(canvas: Canvas, other: Scene, rng: np.random.Generator) -> Painted:
    """Blend a patch of another image in by its gradients, alone or mixed with those beneath.

    After NSA (Schlueter et al., arXiv 2109.15222), with the cloning of Perez et al. (2003).
    """
    region = canvas.region.copy()
    region[[0, -1]] = region[:, [0, -1]] = False  # cv2.seamlessClone takes none at the border
    patch = _patch(canvas, other, rng)
    flag = cv2.MIXED_CLONE if rng.random() < 0.5 else cv2.NORMAL_CLONE
    x, y, width, height = cv2.boundingRect(region.view(np.uint8))
    if min(width, height) < 7:  # the outer 3 pixels keep their gradients, so nothing would change
        return canvas.image, np.zeros(region.shape, np.uint8)
    middle = x + width // 2, y + height // 2
    cloned = cv2.seamlessClone(patch, canvas.image, region.view(np.uint8) * 255, middle, flag)
    return cloned, _striking(canvas.image, cloned, region)


def scratch(canvas: Canvas, other: Scene, rng: np.random.Generator) -> Painted:
    """Draw a thin curve, a Bezier of degree 2, lighter or darker than what it crosses."""
    middle, extent = _extent(canvas.region)
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-0.8, 0.8)
    along = np.array([np.cos(angle), np.sin(angle)]) * extent * rng.uniform(0.3, 0.5)
    across = np.array([-along[1], along[0]])
    t = np.linspace(-1, 1, 33)[:, None]
    points = middle + t * along + (1 - t**2) * bend / 2 * across
    width = canvas.shorter_side * rng.uniform(0.002, 0.01)
    line = np.zeros(canvas.region.shape, np.uint8)
    fixed = [np.round(points * 16).astype(np.int32)]
    cv2.polylines(line, fixed, False, 255, max(1, round(width)), cv2.LINE_AA, shift=4)
    opacity = line * (rng.uniform(0.6, 1.0) * min(1.0, max(width, 0.5)) / 255)
    return _shade(canvas, opacity, rng.uniform(50, 130), np.zeros(3), rng)


def spot(canvas: Canvas, other: Scene, rng: np.random.Generator) -> Painted:
    """Drop one to four soft stains, lighter or darker than what they cover, and tinted if it is."""
    rows, columns = np.nonzero(canvas.region)
    _, extent = _extent(canvas.region)
    opacity = np.zeros(canvas.region.shape, np.float64)
    for _ in range(rng.integers(1, 5)):
        chosen = rng.integers(len(rows))
        middle = np.array([columns[chosen], rows[chosen]])
        radius = extent * rng.uniform(0.06, 0.25)
        axes = np.round(radius * rng.uniform(0.6, 1.0, 2) * 16).astype(int).tolist()
        blob = np.zeros(canvas.region.shape, np.uint8)
        at = np.round(middle * 16).astype(int).tolist()
        turn = rng.uniform(0, 180)
        cv2.ellipse(blob, at, axes, turn, 0, 360, 255, -1, cv2.LINE_AA, shift=4)
        soft = cv2.GaussianBlur(blob, (0, 0), max(0.3, radius / 3))
        opacity = np.maximum(opacity, soft * (rng.uniform(0.5, 1.0) / 255))
    has_colour = bool((canvas.image != canvas.image[..., :1]).any())
    tint = rng.normal(0, 15, 3) * has_colour
    return _shade(canvas, opacity, rng.uniform(40, 110), tint, rng)


def missing_part(canvas: Canvas, other: Scene, rng: np.random.Generator) -> Painted:
    """Put what surrounds the part where it was: the background, else what is around the polygon.

    It is inpainted (Navier-Stokes, Bertalmio et al., 2001) and has the noise of what it continues.
    """
    unknown = canvas.region
    if canvas.background is not None:
        around = cv2.dilate(canvas.part.view(np.uint8), np.ones((5, 5), np.uint8))
        unknown = unknown | around.view(np.bool_)
    known = ~unknown
    if known.any():
        filled = _inpaint(canvas.image, unknown)
        noise = canvas.image.astype(np.int16) - cv2.GaussianBlur(filled, (0, 0), 1.0)
        grain = noise[known][rng.integers(int(known.sum()), size=unknown.shape)]
        filled = np.clip(filled + grain, 0, 255).astype(np.uint8)
    elif canvas.background is not None:
        filled = np.broadcast_to(canvas.background, canvas.image.shape)
    else:
        filled = canvas.image
    return filled, _striking(canvas.image, filled, canvas.region)


def shrink(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image, uint8 (H, W, 3), down; the same image where `scale` is 1 or more."""
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _extent(region: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the middle, x and y, and the longer side of the box around a region."""
    x, y, width, height = cv2.boundingRect(region.view(np.uint8))
    return np.array([x + width / 2, y + height / 2]), max(width, height)


def _patch(canvas: Canvas, other: Scene, rng: np.random.Generator) -> np.ndarray:
    """Cut a patch of the size of the canvas from the other image, enlarged or shrunk by chance."""
    size = np.array(canvas.image.shape[1::-1])
    whole = np.array(other.image.shape[1::-1])
    scale = whole.min() / canvas.shorter_side / rng.uniform(0.7, 1.3)
    cut = np.clip(np.round(size * scale), 1, whole).astype(int)
    left, top = np.clip(other.place(rng) - cut / 2, 0, whole - cut).astype(int)
    patch = other.image[top : top + cut[1], left : left + cut[0]]
    return cv2.resize(patch, size.tolist(), interpolation=cv2.INTER_LINEAR)


def _shade(
    canvas: Canvas, opacity: np.ndarray, shift: float, tint: np.ndarray, rng: np.random.Generator
) -> Painted:
    """Make what is covered of the part lighter or, the likelier the lighter it is, darker."""
    opacity = np.where(canvas.part, opacity, 0)
    covered = opacity > 0
    level = canvas.image[covered].mean() if covered.any() else 0.0
    sign = 1 if rng.random() > level / 255 else -1
    colours = np.clip(np.round(canvas.image + (sign * shift + tint)), 0, 255).astype(np.uint8)
    change = cv2.absdiff(canvas.image, colours).mean(2) * opacity
    return colours, np.where(change >= VISIBLE, np.round(255 * opacity), 0).astype(np.uint8)


def _inpaint(image: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    # Of an image of one row or column OpenCV 5.0 reads what lies beside it in memory.
    outer, unknown_outer = (
        cv2.copyMakeBorder(each, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        for each in (image, unknown.view(np.uint8))
    )
    return cv2.inpaint(outer, unknown_outer, 3, cv2.INPAINT_NS)[1:-1, 1:-1]


def _striking(before: np.ndarray, after: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return where in the region a change stands out from noise, as 255 and 0, uint8 (h, w)."""
    change = cv2.absdiff(before, after).mean(2)
    stands_out = cv2.medianBlur(np.round(change).astype(np.uint8), 5) >= STRIKING
    return np.where(region & stands_out, 255, 0).astype(np.uint8)
