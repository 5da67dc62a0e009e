"""Augmentation: flips, rotations and affine changes of an image and its mask together."""

import cv2
import numpy as np
from pydantic import Field

from blackswan.params import Section


class Rotation(Section):
    """Turn about the centre."""

    probability: float = Field(ge=0, le=1)
    max_degrees: float = Field(ge=0, le=180)


class Affine(Section):
    """Shift, zoom and shear about the centre."""

    probability: float = Field(ge=0, le=1)
    max_shift: float = Field(ge=0, lt=1)  # fraction of the side
    max_zoom: float = Field(ge=0, lt=1)  # 0.1: from 0.9 to 1.1 times the size
    max_shear_degrees: float = Field(ge=0, le=45)


class Params(Section):
    """Each change has its own probability and range; `copies` are added to the image itself."""

    copies: int = Field(ge=0)
    horizontal_flip_probability: float = Field(ge=0, le=1)
    vertical_flip_probability: float = Field(ge=0, le=1)
    rotation: Rotation
    affine: Affine


def augment(
    image: np.ndarray, mask: np.ndarray | None, params: Params, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Change an image, uint8 (H, W, 3), and its mask, bool (H, W), alike; borders are mirrored."""
    height, width = image.shape[:2]
    while True:
        matrix = draw_matrix(height, width, params, rng)
        if mask is None:
            return _warp(image, matrix, cv2.INTER_LINEAR), None
        moved = _warp(mask.astype(np.uint8), matrix, cv2.INTER_NEAREST).astype(bool)
        # A draw that moves the whole anomaly out of the image would leave a wrong label.
        if moved.any():
            return _warp(image, matrix, cv2.INTER_LINEAR), moved


def _warp(pixels: np.ndarray, matrix: np.ndarray, interpolation: int) -> np.ndarray:
    return cv2.warpAffine(
        pixels,
        matrix[:2],
        pixels.shape[1::-1],
        flags=interpolation,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def draw_matrix(height: int, width: int, params: Params, rng: np.random.Generator) -> np.ndarray:
    """Draw the 3x3 matrix that maps old pixel positions to new ones."""
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1]])
    matrix = np.eye(3)
    if rng.random() < params.horizontal_flip_probability:
        matrix = np.diag([-1.0, 1, 1]) @ matrix
    if rng.random() < params.vertical_flip_probability:
        matrix = np.diag([1.0, -1, 1]) @ matrix
    if rng.random() < params.rotation.probability:
        angle = np.deg2rad(rng.uniform(-1, 1) * params.rotation.max_degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ matrix
    if rng.random() < params.affine.probability:
        zoom = 1 + rng.uniform(-1, 1) * params.affine.max_zoom
        shear = np.tan(np.deg2rad(rng.uniform(-1, 1) * params.affine.max_shear_degrees))
        shift = rng.uniform(-1, 1, 2) * params.affine.max_shift * (width, height)
        matrix = np.array([[zoom, zoom * shear, shift[0]], [0, zoom, shift[1]], [0, 0, 1]]) @ matrix
    return centre @ matrix @ np.linalg.inv(centre)
