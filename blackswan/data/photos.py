"""Photos and their masks as files, and what all those of a source have in common.

How many bits a camera used and which way masks were drawn, no single file tells.
"""

import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from blackswan.data import depths
from blackswan.data.decoding import Header, as_stored, decode_marks, read_header
from blackswan.data.drawings import SUFFIXES as DRAWN
from blackswan.data.drawings import Drawing, read_drawing
from blackswan.data.files import first, tell
from blackswan.data.images import read_mask, read_turned
from blackswan.data.records import SourceImage
from blackswan.errors import InputError
from blackswan.parallel import parallel_map
from blackswan.params import Section


class Params(Section):
    """How the files of a source are meant."""

    bit_depth: Literal[8, 10, 12, 14, 16] | None  # in files of 16 bits; null: by their values
    invert_masks: bool | None  # null: as they are, unless they seem inverted
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
            return read_mask(mask, size, turned, inverted=self.invert_masks)
        except InputError as error:
            if orientation in (5, 6, 7, 8) and decode_marks(mask, str(mask)).shape == size[::-1]:
                raise InputError(
                    f"{self.image} is turned by its EXIF orientation, and the mask {mask} was "
                    "drawn on the photo as it is stored; set extract_frames.turn_masks to true"
                ) from error
            raise


@dataclass(frozen=True)
class Settled:
    """The photos of a source, each with what they have in common."""

    images: list[SourceImage]
    bit_depth: int
    shapes: Counter[tuple[int, int]]  # how many have that height and width


def settle(source: Path, items: list[SourceImage], params: Params) -> Settled:
    """Find out what the photos of a source have in common and enter it in each.

    Says on stderr what was found; files that cannot be read are left to who reads them. Raises
    InputError where masks mark so much that they may be drawn the other way.
    """
    photos = [item.read for item in items if isinstance(item.read, Photo)]
    headers = list(parallel_map(_header, photos))
    deep = [
        photo.image
        for photo, header in zip(photos, headers, strict=True)
        if header is not None and header.deep
    ]
    bit_depth = depths.settle(source, deep, params.bit_depth)
    _tell_pages(source, photos, headers)
    _tell_turned(source, photos, headers, params.turn_masks)
    if params.invert_masks is not False:
        _check_masks(source, _sizes_of_masks(photos, headers), bool(params.invert_masks))
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
    shapes = Counter(header.upright for header in headers if header is not None)
    return Settled(settled, bit_depth, shapes)


def _header(photo: Photo) -> Header | None:
    try:
        return read_header(photo.image)
    except InputError:
        return None


def _tell_pages(source: Path, photos: list[Photo], headers: list[Header | None]) -> None:
    several = [
        f"{photo.image.name} ({header.pages})"
        for photo, header in zip(photos, headers, strict=True)
        if header is not None and header.pages > 1
    ]
    if several:
        tell(
            f"{source}: {len(several)} files hold several pages or pictures, of which the first is "
            f"read: {first(several)}; save the others as files of their own if they count"
        )


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


def _sizes_of_masks(photos: list[Photo], headers: list[Header | None]) -> dict[Path, list[int]]:
    """Return the sides of the image of each mask that is a picture of defects, the shorter first.

    An image that cannot be read is left to who reads it.
    """
    return {
        mask: sorted((header.width, header.height))
        for photo, header in zip(photos, headers, strict=True)
        for mask in photo.masks
        if header is not None and not photo.normal
        if isinstance(mask, Path) and mask.suffix.lower() not in DRAWN
    }


def _check_masks(source: Path, masks: dict[Path, list[int]], inverted: bool) -> None:
    """Raise InputError where the median mask marks more than half, or one that seems inverted."""
    marked = _marked_shares(masks, inverted)
    if not marked:
        return
    half = median(whole for whole, _ in marked.values())
    if half > 0.5:
        other = median(whole for whole, _ in _marked_shares(masks, not inverted).values())
        raise InputError(_why_refused(source, inverted, half, other, len(marked)))
    # A large defect in the middle leaves the border, an inverted mask marks it.
    odd = [
        f"{mask} ({whole:.0%})"
        for mask, (whole, border) in marked.items()
        if min(whole, border) > 0.5
    ]
    if not odd:
        return
    said = (
        f"{len(odd)} of {len(marked)} masks mark most of the image and of its border, unlike the "
        f"others: {first(odd)}"
    )
    if inverted:  # as a person said
        tell(f"{source}: {said}; they may be drawn the other way")
        return
    raise InputError(
        f"{said}; invert them if they are white where normal, or set extract_frames.invert_masks "
        "to false if the defects are that large"
    )


def _marked_shares(masks: dict[Path, list[int]], inverted: bool) -> dict[Path, tuple[float, float]]:
    """Return which share each mask marks of the image and of its border.

    What cannot be read or has another size than its image is left to who reads it.
    """

    def shares(mask: Path) -> tuple[float, float] | None:
        try:
            marks = decode_marks(mask, str(mask), inverted=inverted)
        except InputError:
            return None
        if sorted(marks.shape) != masks[mask]:
            return None
        border = np.concatenate([marks[0], marks[-1], marks[:, 0], marks[:, -1]])
        return float(marks.mean()), float(border.mean())

    found = zip(masks, parallel_map(shares, masks), strict=True)
    return {mask: both for mask, both in found if both is not None}


def _why_refused(source: Path, inverted: bool, half: float, other: float, count: int) -> str:
    said = f"the masks of {source} mark {half:.0%} of the image (the median of {count})"
    large = "extract_frames.invert_masks to false if the defects are that large"
    if inverted:
        return f"{said} where they are not white; set extract_frames.invert_masks to null or false"
    if other > 0.5:
        return (
            f"{said}, and {other:.0%} if white is normal; draw the defects white on black, or set "
            f"{large}"
        )
    return (
        f"{said}; set extract_frames.invert_masks to true if they are white where normal, or to "
        "false if the defects are that large"
    )
