"""Masks that are no picture of black and white: polygons, boxes, and colours with a meaning.

A drawing is called with the size (H, W) of its image as stored and returns bool (H, W), true where
anomalous.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from blackswan.data.decoding import decode_rgb
from blackswan.errors import InputError, shown

SUFFIXES = frozenset({".json", ".txt"})  # of the drawing of one image: LabelMe, boxes
STRIP = 1 << 19  # pixels whose colours are compared at a time
FARTHEST = 1e6  # pixels; a corner beyond it is no place in an image
CIRCLE = 64  # corners of the polygon that stands for a circle

Points = Sequence[Sequence[float]]  # (N, 2): x to the right, y down, pixels


@dataclass(frozen=True)
class Polygons:
    """Filled polygons; `origin` names the file in errors."""

    origin: str
    polygons: tuple[Points, ...]
    size: tuple[int, int] | None = None  # (H, W) that the file gives for its image

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        """Return what the polygons cover, their borders included."""
        _check_size(self.origin, self.size, size)
        marks = np.zeros(size, np.uint8)
        for polygon in self.polygons:
            corners = np.asarray(polygon, float)
            if not corners.size or not (np.abs(corners) < FARTHEST).all():  # false for NaN, too
                raise InputError(
                    f"{self.origin} has an outline without corners, or with one that is no pixel; "
                    "draw it again"
                )
            cv2.fillPoly(marks, [np.rint(corners).astype(np.int32)], 1)
        return marks.view(np.bool_)


@dataclass(frozen=True)
class RunLengths:
    """Runs of normal and anomalous pixels in turn, column by column, as COCO writes them."""

    origin: str
    counts: tuple[int, ...]
    size: tuple[int, int]

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        """Return the pixels of every second run."""
        _check_size(self.origin, self.size, size)
        if min(self.counts, default=0) < 0 or sum(self.counts) != size[0] * size[1]:
            raise InputError(
                f"{self.origin} has runs of {sum(self.counts)} pixels for an image of "
                f"{size[1]} x {size[0]}; export it again"
            )
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(size[::-1]).T


@dataclass(frozen=True)
class Colours:
    """A picture in which a pixel is anomalous if its colour is nearest to one of `marked`.

    What is transparent counts as black.
    """

    path: Path
    marked: tuple[tuple[int, int, int], ...]
    background: tuple[tuple[int, int, int], ...]

    def __call__(self, size: tuple[int, int]) -> np.ndarray:
        """Return the marked pixels; InputError where the picture has another size."""
        image = decode_rgb(self.path, str(self.path))
        _check_size(str(self.path), image.shape[:2], size)
        marks = np.empty(size, np.bool_)
        rows = max(1, STRIP // size[1])
        for top in range(0, size[0], rows):
            strip = image[top : top + rows].astype(np.int32)
            nearest = [
                np.min([((strip - colour) ** 2).sum(axis=2) for colour in colours], axis=0)
                for colours in (self.marked, self.background)
            ]
            marks[top : top + rows] = nearest[0] < nearest[1]
        return marks


Drawing = Callable[[tuple[int, int]], np.ndarray]


def read_drawing(path: Path) -> Polygons:
    """Read a LabelMe file (.json), or boxes in lines of `left top right bottom ...` (.txt).

    Raises InputError where it is something else.
    """
    return _read_labelme(path) if path.suffix.lower() == ".json" else _read_boxes(path)


def is_empty(path: Path) -> bool:
    """Say whether a drawing marks nothing."""
    return not read_drawing(path).polygons


def is_yolo(path: Path) -> bool:
    """Say whether lines hold a class and a box as shares of its image, which has no pixels."""
    try:
        lines = [list(map(float, line)) for line in _words(path)]
    except ValueError:
        return False
    return bool(lines) and all(
        len(line) >= 5 and line[0] == int(line[0]) and all(0 <= value <= 1 for value in line[1:5])
        for line in lines
    )


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Return the corners of a box whose right and bottom pixels belong to it."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    """Parse a JSON file; raises InputError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise InputError(f"{path} is no JSON in UTF-8; export it again") from None


def _check_size(origin: str, own: tuple[int, ...] | None, size: tuple[int, int]) -> None:
    if own is not None and tuple(own) != size:
        raise InputError(
            f"{origin} is for an image of {own[1]} x {own[0]} pixels, its image has "
            f"{size[1]} x {size[0]}; annotate the image as it is now"
        )


def _read_labelme(path: Path) -> Polygons:
    found = read_json(path)
    try:
        polygons = tuple(_outline(shape) for shape in found["shapes"])
        size = (int(found["imageHeight"]), int(found["imageWidth"]))
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError(
            f"{path} is no LabelMe file, which has shapes with points, imageHeight and imageWidth; "
            "replace or remove it"
        ) from None
    for polygon in polygons:
        if isinstance(polygon, str):
            raise InputError(f"{path} holds a shape of the type {polygon}; draw it as a polygon")
    return Polygons(str(path), polygons, size)  # type: ignore[arg-type]


def _outline(shape: dict[str, Any]) -> Points | str:
    """Return the polygon of a LabelMe shape, or the name of a type that encloses nothing."""
    points = [(float(x), float(y)) for x, y in shape["points"]]
    kind = shape.get("shape_type", "polygon")
    if kind == "polygon":
        return points
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return box(left, top, right, bottom)
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points
        radius = np.hypot(edge_x - x, edge_y - y)
        turns = np.arange(CIRCLE) * 2 * np.pi / CIRCLE
        return np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1).tolist()
    return shown(str(kind))


def _read_boxes(path: Path) -> Polygons:
    if is_yolo(path):
        raise InputError(
            f"{path} holds boxes as shares of the image, as YOLO has them; export them in pixels, "
            "in lines of left, top, right and bottom"
        )
    try:
        boxes = [tuple(map(float, line[:4])) for line in _words(path)]
        if any(right < left or bottom < top for left, top, right, bottom in boxes):
            raise ValueError
    except ValueError:
        raise InputError(
            f"{path} holds no boxes, a line each of left, top, right and bottom in pixels; mend it"
        ) from None
    return Polygons(str(path), tuple(box(*corners) for corners in boxes))


def _words(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.replace(",", " ").split() for line in lines if line.strip()]
