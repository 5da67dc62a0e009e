"""Regions of a camera's picture that do not count, in a file that is kept with the code.

    {"cameras": {"line1": {"width": 640, "height": 480, "ignore": [[[0, 0], [200, 0], [0, 90]]]}}}

Each polygon is a list of x and y in pixels of a picture of that size; other sizes are scaled. A
camera with nothing to ignore has an empty list.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field, RootModel

from blackswan.data.preprocessing import Preprocessing
from blackswan.errors import InputError, shown
from blackswan.params import InputName, Section, load_section

MOST = 20_000  # pixels of a side: a mask of them is held in memory
Polygon = Annotated[list[tuple[float, float]], Field(min_length=3, max_length=1000)]


class Camera(RootModel[InputName]):
    """The param ignore.camera; '' ignores nothing."""


class Regions(Section):
    """What does not count of the pictures of one camera."""

    width: Annotated[int, Field(ge=1, le=MOST)]
    height: Annotated[int, Field(ge=1, le=MOST)]
    ignore: list[Polygon]

    def polygons(self, shape: tuple[int, int]) -> list[np.ndarray]:
        """Return the corners (P, 2) of each, x and y, in pixels of a picture of height, width."""
        scale = np.array([shape[1] / self.width, shape[0] / self.height])
        # Whole numbers are centres of pixels.
        return [(np.array(polygon) + 0.5) * scale - 0.5 for polygon in self.ignore]

    def mask(self, shape: tuple[int, int]) -> np.ndarray:
        """Return what does not count of a picture of height and width, bool (H, W)."""
        mask = np.zeros(shape, np.uint8)
        for corners in self.polygons(shape):
            cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
        return mask > 0


class Ignored(Section):
    """The regions of one camera, and which file says so."""

    camera: str
    sha256: str  # of the file
    regions: Regions

    def seen(
        self,
        preprocessing: Preprocessing,
        photo: tuple[int, int] | None = None,
        pose: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return what does not count of what a detector sees of a photo, bool (H, W).

        `photo` is its height and width, where nobody knows it any more those of the regions. A
        pixel is left out where any that it covers is. Raises InputError where each photo is laid
        another way and nobody knows how.
        """
        if photo is None and preprocessing.pose != "none":
            raise InputError(
                f"the regions of {shown(self.camera)} stay with the camera and extract_frames.pose:"
                " upright lays each image another way; set pose: none, or ignore no regions"
            )
        shape = photo or (self.regions.height, self.regions.width)
        return preprocessing.apply(self.regions.mask(shape), pose, mask=True, name=self.camera)


class _File(Section):
    cameras: dict[str, Regions]


def read_all(path: Path) -> dict[str, Ignored]:
    """Return the regions by camera of a file, or of the *.json of a folder.

    Raises InputError where two files name one camera, or there is none.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no file of regions; add one such as line1.json")
    found: dict[str, Ignored] = {}
    for file in files:
        cameras = load_section(_File, "", file).cameras
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if twice := sorted(cameras.keys() & found.keys()):
            raise InputError(f"{path} names the camera {shown(twice[0])} twice; remove one")
        for camera, regions in cameras.items():
            found[camera] = Ignored(camera=camera, sha256=sha256, regions=regions)
    return found


def of_camera(known: Mapping[str, Ignored], camera: str, where: str, remedy: str) -> Ignored:
    """Return the regions of a camera; raises InputError where nobody names it."""
    if camera not in known:
        cameras = ", ".join(map(shown, sorted(known))) or "none"
        raise InputError(f"{where} has no camera {shown(camera)}, but {cameras}; {remedy}")
    return known[camera]


def read_regions(path: Path, camera: str, named_by: str = "--camera") -> Ignored:
    """Return the regions of a camera; raises InputError where the file does not name it."""
    remedy = f"name one of them by {named_by}, or add it"
    return of_camera(read_all(path), camera, str(path), remedy)


def of_run(path: Path, camera: str) -> Ignored | None:
    """Return the regions that the param ignore.camera names, None where it is ''."""
    return read_regions(path, camera, "ignore.camera") if camera else None
