"""Image files: the one place where they are listed, read, cropped, resized and written.

Every image is uint8 (H, W, 3) RGB, every mask is bool (H, W), true where anomalous.
"""

import io
import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NoReturn

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from blackswan.errors import InputError, cause

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_PIXELS = 80_000_000  # 240 MB once decoded; Pillow itself objects past 89 million

Crop = Literal["none", "center_square"] | tuple[int, int, int, int]  # left, top, width, height

# Measured at 224 x 224: a photo takes 2.1 ms and 96 KB, with OpenCV's own choice of level 1 3.6 ms
# and 133 KB; a mask 0.4 KB, where Huffman codes alone would need 6.5.
_PNG = [
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_AVG,
]
_PNG_MASK = [
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_NONE,
]

# Past its cap Pillow warns and past twice its cap it raises; as an error both end in one sentence.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def list_images(folder: Path) -> list[Path]:
    """List the image files below `folder`, sorted by their relative POSIX path.

    Hidden files and folders are left out (macOS writes `._a.png` beside `a.png`), links to folders
    are not followed. Raises InputError for a folder that cannot be read, a name that is not UTF-8
    and a broken link.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name an existing folder of images")
    found = []
    for parent, folders, files in os.walk(folder, onerror=_refuse_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in files
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
    for path in found:
        _check_name(folder, path)
        if not path.is_file():
            raise InputError(f"{path} is a broken link or no regular file; mend or remove it")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def name_by_stem(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Map the POSIX path of each file, relative to `folder` and without its suffix, to the file.

    Raises InputError where two files differ only in their suffix.
    """
    named: dict[str, Path] = {}
    for path in paths:
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in named:
            raise InputError(f"{named[stem]} and {path} differ only in their suffix; rename one")
        named[stem] = path
    return named


def read_image(path: Path) -> np.ndarray:
    """Read an image file as uint8 (H, W, 3) RGB.

    EXIF orientation is applied, colour profiles are not; the first page of several is taken.
    16 bits keep their high byte, and what is transparent becomes black. Raises InputError.
    """
    with _opened(path, str(path)) as image:
        return _to_rgb(image, str(path))


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask file of `size` (H, W) as bool (H, W); whatever is not black is anomalous.

    Raises InputError for another size, for JPEG (its noise is not black) and for a broken file.
    """
    with _opened(path, str(path)) as image:
        mask = _to_mask(image, str(path))
    if mask.shape != tuple(size):
        raise InputError(
            f"the mask {path} is {mask.shape[1]} x {mask.shape[0]} pixels, its image "
            f"{size[1]} x {size[0]}; replace it by a mask of the image's size"
        )
    return mask


def decode_image(data: bytes, name: str = "the image") -> np.ndarray:
    """Decode the bytes of an image file like `read_image`; `name` stands in the error."""
    with _opened(io.BytesIO(data), name) as image:
        return _to_rgb(image, name)


def decode_mask(data: bytes, name: str = "the mask") -> np.ndarray:
    """Decode the bytes of a mask file like `read_mask`; `name` stands in the error."""
    with _opened(io.BytesIO(data), name) as image:
        return _to_mask(image, name)


def encode_png(image: np.ndarray) -> bytes:
    """Encode an image, uint8 (H, W, 3) RGB or (H, W), or a mask, bool (H, W), as PNG bytes."""
    if image.dtype == np.bool_:
        return cv2.imencode(".png", image.astype(np.uint8) * 255, _PNG_MASK)[1].tobytes()
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image, _PNG)[1].tobytes()


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image or a mask as PNG, with the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(image))


def crop_box(width: int, height: int, crop: Crop | Sequence[int]) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of `crop` in an image of width x height pixels.

    Raises InputError where a box is empty or reaches out of the image.
    """
    if crop == "none":
        return 0, 0, width, height
    if crop == "center_square":
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side
    left, top, box_width, box_height = map(int, crop)
    if (
        min(left, top) < 0
        or min(box_width, box_height) < 1
        or left + box_width > width
        or top + box_height > height
    ):
        raise InputError(
            f"crop = {list(crop)} (left, top, width, height) does not lie inside an "
            f"image of {width} x {height} pixels; choose a smaller box"
        )
    return left, top, box_width, box_height


def crop_and_resize(
    image: np.ndarray, crop: Crop | Sequence[int], size: int | None, *, mask: bool = False
) -> np.ndarray:
    """Crop an image or mask, then scale it to size x size pixels; `size` None keeps the pixels.

    What is not square is stretched to the square. Images are averaged where they shrink and
    interpolated where they grow, masks take the nearest pixel. Without a change returns `image`.
    """
    height, width = image.shape[:2]
    left, top, box_width, box_height = crop_box(width, height, crop)
    whole = (box_width, box_height) == (width, height)
    if not whole:
        image = image[top : top + box_height, left : left + box_width]
    if size is None or (box_width, box_height) == (size, size):
        return image if whole else np.ascontiguousarray(image)
    if mask:
        nearest = cv2.resize(
            image.astype(np.uint8), (size, size), interpolation=cv2.INTER_NEAREST_EXACT
        )
        return nearest.astype(image.dtype)
    # Halving is a special case of INTER_AREA: 720 x 720 to 224 x 224 takes 1.2 instead of 2.4 ms.
    while min(image.shape[:2]) >= 2 * size and not any(side % 2 for side in image.shape[:2]):
        image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    # INTER_AREA averages only where both sides shrink, so each direction has its own step.
    height, width = image.shape[:2]
    smaller = min(width, size), min(height, size)
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return image


@contextmanager
def _opened(source: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Yield the upright image; what Pillow raises, here or in the block, becomes an InputError."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(_too_large(name, f"{image.width} x {image.height}"))
            ImageOps.exif_transpose(image, in_place=True)
            yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(_too_large(name, "too many")) from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is empty, corrupt or not a JPEG, PNG, BMP, TIFF or WebP image; "
            "replace or remove it"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{name} does not exist; check the path") from None
    except PermissionError:
        raise InputError(f"{name} may not be read; give yourself permission (chmod u+r)") from None
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        struct.error,
    ) as error:
        raise InputError(
            f"{name} cannot be decoded ({cause(error)}); replace or remove it"
        ) from None


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)  # as Pillow does for 16-bit colour
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InputError(f"{name} has grey values of 32 bits; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _to_mask(image: Image.Image, name: str) -> np.ndarray:
    if image.format in ("JPEG", "MPO"):
        raise InputError(f"{name} is JPEG, which blurs the border of a mask; save it as PNG")
    opaque_grey = image.mode in ("1", "L") and not image.has_transparency_data
    if opaque_grey or image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image).astype(np.bool_)
    return np.any(_to_rgb(image, name), axis=2)


def _too_large(name: str, pixels: str) -> str:
    return f"{name} has {pixels} pixels, the limit is {MAX_PIXELS:,}; scale it down or remove it"


def _check_name(folder: Path, path: Path) -> None:
    try:
        path.relative_to(folder).as_posix().encode()
    except UnicodeEncodeError:
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
        raise InputError(f"{folder} holds the name {name}, which is not UTF-8; rename it") from None


def _refuse_folder(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be listed ({error.strerror}); make it readable")
