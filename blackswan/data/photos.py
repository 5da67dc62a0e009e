"""Photos and their masks as files, and what all those of a source have in common.

How many bits a camera used and which way masks were drawn, no single file tells.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from blackswan.data import depths
from blackswan.data.decoding import Header, as_stored, decode_marks, read_header
from blackswan.data.drawings import SUFFIXES as DRAWN
from blackswan.data.drawings import Drawing, read_drawing
from blackswan.data.images import read_mask, read_turned
from blackswan.data.records import SourceImage
from blackswan.errors import InputError
from blackswan.parallel import parallel_map
from blackswan.params import Section


class Params(Section):
    """How the files of a source are meant."""

    bit_depth: Literal[8, 10, 12, 14, 16] | None  # in files of 16 bits; null: by their values
    invert_masks: bool | None  # null: as they are, unless they mark more than half
    turn_masks: bool  # along with a photo that EXIF turns; false: drawn on the upright one


@dataclass(frozen=True)
class Photo:
    """An image file and its masks; a call reads the pixels and what any mask marks.

    A mask is a picture or a file of `drawings`, or a drawing that was read already.
    """

    image: Path
    masks: tuple[Path | Drawing, ...] = ()
    normal: bool = False  # then no mask may mark anything
    bit_depth: int = 16
    invert_masks: bool = False
    turn_masks: bool = False

    def __call__(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return uint8 (H, W, 3) and bool (H, W), None without a mask or where it is normal.

        Raises InputError where sizes differ or a normal photo is marked.
        """
        pixels, orientation = read_turned(self.image, self.bit_depth)
        marks = None
        for mask in self.masks:
            height, width = pixels.shape[:2]
            marked = self._read_mask(mask, (height, width), orientation)
            marks = marked if marks is None else marks | marked
        if self.normal and marks is not None:
            if marks.any():
                raise InputError(
                    f"{self.image} is labelled as normal, but its mask{self._named_mask} marks a "
                    "defect in it; change the label or remove the mask"
                )
            marks = None
        return pixels, marks

    @property
    def _named_mask(self) -> str:
        files = [str(mask) for mask in self.masks if isinstance(mask, Path)]
        return f" {files[0]}" if files else ""

    def _read_mask(
        self, mask: Path | Drawing, size: tuple[int, int], orientation: object
    ) -> np.ndarray:
        turned = orientation if self.turn_masks else 1
        if not isinstance(mask, Path) or mask.suffix.lower() in DRAWN:
            drawing = read_drawing(mask) if isinstance(mask, Path) else mask
            upright = np.empty(size, np.bool_)
            stored = as_stored(upright, turned)
            stored[...] = drawing(stored.shape)
            return upright
        try:
            marked = read_mask(mask, size, turned)
        except InputError as error:
            if orientation in (5, 6, 7, 8) and decode_marks(mask, str(mask)).shape == size[::-1]:
                raise InputError(
                    f"{self.image} is turned by its EXIF orientation, and the mask {mask} was "
                    "drawn on the photo as it is stored; set extract_frames.turn_masks to true"
                ) from error
            raise
        return ~marked if self.invert_masks else marked


@dataclass(frozen=True)
class Settled:
    """The photos of a source, each with what they have in common."""

    images: list[SourceImage]
    bit_depth: int
    not_square: int  # how many


def settle(source: Path, items: list[SourceImage], params: Params) -> Settled:
    """Find out what the photos of a source have in common and enter it in each.

    Says on stderr what was found; files that cannot be read are left to who reads them. Raises
    InputError where most masks mark more than half.
    """
    photos = [item.read for item in items if isinstance(item.read, Photo)]
    headers = list(parallel_map(_header, photos))
    deep = [
        photo.image
        for photo, header in zip(photos, headers, strict=True)
        if header is not None and header.deep
    ]
    bit_depth = depths.settle(source, deep, params.bit_depth)
    _tell_turned(source, photos, headers, params.turn_masks)
    if params.invert_masks is None:
        _check_masks(source, photos)
    settled = [
        replace(
            item,
            read=replace(
                item.read,
                bit_depth=bit_depth,
                invert_masks=bool(params.invert_masks),
                turn_masks=params.turn_masks,
            ),
        )
        if isinstance(item.read, Photo)
        else item
        for item in items
    ]
    not_square = sum(header is not None and header.width != header.height for header in headers)
    return Settled(settled, bit_depth, not_square)


def _header(photo: Photo) -> Header | None:
    try:
        return read_header(photo.image)
    except InputError:
        return None


def _tell_turned(
    source: Path, photos: list[Photo], headers: list[Header | None], along: bool
) -> None:
    turned = sum(
        bool(photo.masks) and header is not None and header.orientation in range(2, 9)
        for photo, header in zip(photos, headers, strict=True)
    )
    if turned:
        how = "turned along" if along else "read as drawn on the upright photo"
        print(
            f"{source}: EXIF turns {turned} photos that have masks, which are {how}; "
            "extract_frames.turn_masks changes that",
            file=sys.stderr,
        )


def _check_masks(source: Path, photos: list[Photo]) -> None:
    """Raise InputError where the median mask marks more than half: such are drawn the other way."""

    def share(mask: Path) -> float | None:
        try:
            return float(decode_marks(mask, str(mask)).mean())
        except InputError:
            return None

    masks = [
        mask
        for photo in photos
        if not photo.normal
        for mask in photo.masks
        if isinstance(mask, Path) and mask.suffix.lower() not in DRAWN
    ]
    shares = [found for found in parallel_map(share, masks) if found is not None]
    if shares and median(shares) > 0.5:
        raise InputError(
            f"the masks of {source} mark {median(shares):.0%} of the image (the median of "
            f"{len(shares)}); set extract_frames.invert_masks to true if they are white where "
            "normal, or to false if the defects are that large"
        )
