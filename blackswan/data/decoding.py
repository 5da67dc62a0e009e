"""Image files to pixels in little memory: Pillow's own copy, the result, and a strip in between.

What a file takes is known before it is decoded. Threads whose images are large take turns.
"""

import errno
import io
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from blackswan.errors import InputError, cause
from blackswan.parallel import memory

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 80_000_000  # 240 MB once decoded; Pillow itself objects past 89 million
MAX_BYTES = 640_000_000  # while decoding: 8 bytes a pixel, where most files need 7
STRIP = 1 << 19  # pixels that are converted at a time, in some 15 MB

_PILLOW_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # a pixel; others: 4
_STORED: dict[
    object, Callable[[np.ndarray], np.ndarray]
] = {  # the view of an upright array in which the file stores it, by EXIF orientation
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}

# What Pillow takes in smaller blocks, malloc keeps for the thread: 250 MB for each that decoded.
Image.core.set_block_size(64 << 20)
# Past its cap Pillow warns and past twice its cap it raises; as an error both end in one sentence.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def decode_rgb(source: Path | io.BytesIO, name: str) -> np.ndarray:
    """Decode an image file to uint8 (H, W, 3) RGB, upright; `name` stands in the InputError."""
    with _opened(source, name) as image:
        if image.mode in ("I", "F"):
            raise InputError(f"{name} has grey values of 32 bits; convert it to 8 or 16 bits")
        return _converted(image, source, _rgb, np.uint8, (3,))


def decode_marks(source: Path | io.BytesIO, name: str) -> np.ndarray:
    """Decode a mask file to bool (H, W), upright, false where black; InputError for JPEG."""
    with _opened(source, name) as image:
        if image.format in ("JPEG", "MPO"):
            raise InputError(f"{name} is JPEG, which blurs the border of a mask; save it as PNG")
        return _converted(image, source, _marks, np.bool_, ())


@contextmanager
def _opened(source: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Yield the image, not decoded; what Pillow raises, here or in the block, is an InputError."""
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(_too_large(name, f"{image.width} x {image.height}"))
            needed = _bytes_needed(image, source)
            if needed > MAX_BYTES:
                raise InputError(
                    f"{name} takes {needed // 10**6} MB to decode, the limit is "
                    f"{MAX_BYTES // 10**6}; save it as PNG or baseline JPEG, or scale it down"
                )
            with memory(needed):
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
        if getattr(error, "errno", None) == errno.ENOMEM or "out of memory" in str(error):
            raise MemoryError from None
        raise InputError(
            f"{name} cannot be decoded ({cause(error)}); replace or remove it"
        ) from None


def _too_large(name: str, pixels: str) -> str:
    return f"{name} has {pixels} pixels, the limit is {MAX_PIXELS:,}; scale it down or remove it"


def _bytes_needed(image: Image.Image, source: Path | io.BytesIO) -> int:
    """Return how much memory decoding takes at most, the result of 3 bytes a pixel included."""
    pixels = image.width * image.height
    stored = pixels * _PILLOW_BYTES.get(image.mode, 4)
    decoder = 0  # what its library holds of the whole image while it decodes
    if image.format == "WEBP":
        if _is_large_webp(image):  # OpenCV needs 4 for lossless, and 4 for transparent results
            decoder = 4 * pixels
        else:  # two canvases, and the bytes of one
            stored += 12 * pixels
        stored += 2 * _length(source)
    elif image.info.get("progressive"):  # JPEG: coefficients of 2 bytes, fewer of subsampled colour
        layers = [(across, down) for _, across, down, *_ in image.layer]  # type: ignore[attr-defined]
        most = max(across for across, _ in layers) * max(down for _, down in layers)
        decoder = 2 * pixels * sum(across * down for across, down in layers) // most
    elif image.format == "TIFF" and _is_compressed(image):
        decoder = _bytes_of_strip(image)
    return stored + max(decoder, 3 * pixels)


def _is_compressed(image: Image.Image) -> bool:
    return any(tile.codec_name == "libtiff" for tile in image.tile)  # type: ignore[attr-defined]


def _bytes_of_strip(image: Image.Image) -> int:
    """Return the size of what libtiff decodes at once: a strip or a tile."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, height = tags.get(322, image.width), tags.get(323, tags.get(278, image.height))
    bits = sum(tags.get(258, (8,)))
    return width * min(height, max(image.size)) * max(bits, 32 if image.mode == "YCbCr" else 0) // 8


def _is_large_webp(image: Image.Image) -> bool:
    """Say whether a still WebP is decoded by OpenCV; Pillow would need 19 bytes a pixel."""
    large = 19 * image.width * image.height > MAX_BYTES
    return image.format == "WEBP" and large and not getattr(image, "is_animated", False)


def _length(source: Path | io.BytesIO) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes


def _converted(
    image: Image.Image,
    source: Path | io.BytesIO,
    convert: Callable[[Image.Image], np.ndarray],
    kind: type,
    channels: tuple[int, ...],
) -> np.ndarray:
    """Decode and convert, strip by strip, into an upright array (H, W, *channels)."""
    orientation = _load(image)
    if _is_large_webp(image):
        pixels = _decode_webp(image, source)
        height, width = pixels.shape[:2]
    else:
        width, height = image.im.size  # before it is turned
    turned = orientation in (5, 6, 7, 8)
    upright = np.empty((*((width, height) if turned else (height, width)), *channels), kind)
    stored = _STORED.get(orientation, lambda upright: upright)(upright)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        if _is_large_webp(image):
            strip = Image.fromarray(pixels[top:bottom])
        elif rows >= height and image.size == (width, height):
            strip = image  # small, and not a TIFF to be turned, whose size says what it will be
        else:
            strip = image.crop((0, top, width, bottom))
        stored[top:bottom] = convert(strip)
    return upright


def _load(image: Image.Image) -> object:
    """Decode, unless OpenCV will, and return the EXIF orientation, which is not yet applied."""
    if image.format == "TIFF":  # Pillow would turn it in a second copy as it loads it
        orientation = image.getexif().pop(ExifTags.Base.Orientation, 1)
    if not _is_large_webp(image):
        image.load()
    if image.format != "TIFF":  # PNG may hold it behind the pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation


def _decode_webp(image: Image.Image, source: Path | io.BytesIO) -> np.ndarray:
    """Decode a still WebP to uint8 (H, W, 3) RGB or (H, W, 4) RGBA, as Pillow does."""
    if isinstance(source, io.BytesIO):  # an array to decode into can be given for a file alone
        with tempfile.NamedTemporaryFile(suffix=".webp") as file:
            file.write(source.getbuffer())
            file.flush()
            return _decode_webp(image, Path(file.name))
    bands = len(image.getbands())
    pixels = np.empty((image.height, image.width, bands), np.uint8)
    flags = cv2.IMREAD_UNCHANGED
    if bands == 3:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if cv2.imread(str(source), pixels, flags) is not pixels:
        raise ValueError("OpenCV finds it broken, or larger than 64 MB")
    if bands == 4:
        for strip in np.array_split(pixels, max(1, pixels.size // STRIP // 4)):
            strip[:] = strip[:, :, [2, 1, 0, 3]]
    return pixels


def _rgb(image: Image.Image) -> np.ndarray:
    """Return uint8 (H, W, 3), or (H, W, 1) where it is grey."""
    if image.mode.startswith("I;16"):
        return (np.asarray(image) >> 8).astype(np.uint8)[:, :, None]  # as Pillow does for colour
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _marks(image: Image.Image) -> np.ndarray:
    opaque_grey = image.mode in ("1", "L") and not image.has_transparency_data
    if opaque_grey or image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image).astype(np.bool_)
    return np.any(_rgb(image), axis=2)
