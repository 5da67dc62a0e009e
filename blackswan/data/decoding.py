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
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from blackswan.errors import InputError, cause
from blackswan.parallel import memory

FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"]
if find_spec("pillow_heif"):  # the extra `heic`
    import_module("pillow_heif").register_heif_opener()
    FORMATS.append("HEIF")
MAX_PIXELS = 80_000_000  # 240 MB once decoded; Pillow itself objects past 89 million
MAX_BYTES = 640_000_000  # while decoding: 8 bytes a pixel, where most files need 7
STRIP = 1 << 19  # pixels that are converted at a time, in some 15 MB
HOT_OF_FILE = 1e-3  # share of the values of a file, at most, that lie above its bit depth
PNM_LARGEST = (1 << 16) - 1  # that of 16 bits; a PNM gives its own
PEAK = 64  # grey levels from black or white within which JPEG leaves a mask

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


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels."""

    width: int  # as stored, before it is turned
    height: int
    deep: bool  # 16 bits a value
    orientation: int  # of EXIF, 1 where there is none; PNG may hold one behind its pixels, too
    pages: int  # or pictures of an animation; of JPEG one, for what phones add are no photos

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width once EXIF has turned it."""
        sides = (self.height, self.width)
        return sides[::-1] if self.orientation >= 5 else sides  # 5 to 8 are quarter turns


def read_header(path: Path) -> Header:
    """Read what an image file says before its pixels, which stay undecoded."""
    with _opened(path, str(path)) as image:
        has_exif = image.format != "PNG" or "exif" in image.info  # PNG would decode to look further
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
        width, height, is_deep = image.width, image.height, _is_deep(image)
        pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        return Header(width, height, is_deep, orientation, pages)


def is_still(gif: Path) -> bool:
    """Say whether a file is a GIF of one picture: a photo, while a moving one is a video."""
    try:
        with _opened(gif, str(gif)) as image:
            return image.format == "GIF" and not getattr(image, "is_animated", False)
    except InputError:
        return False


def count_values(path: Path) -> tuple[np.ndarray, int]:
    """Count the values of an image file of 16 bits in 256 equal bins; return the largest, too."""
    with _opened(path, str(path)) as image:
        is_grey = image.mode.startswith("I")
        colours = None if is_grey else _decode_deep(image, path, str(path))[:, :, :3]
        _load(image, by_opencv=not is_grey)
        counts, largest = np.zeros(256, np.int64), 0
        width, height = image.im.size if is_grey else image.size
        for top, bottom in _strips(width, height):
            if colours is None:
                strip = np.asarray(image.crop((0, top, width, bottom))).astype(np.uint16)
            else:
                strip = colours[top:bottom]
            largest = max(largest, int(strip.max()))
            values = np.ascontiguousarray(strip).reshape(-1, 1)
            in_bins = cv2.calcHist([values], [0], None, [256], [0, 1 << 16])
            counts += in_bins.ravel().astype(np.int64)
        return counts, largest


def decode_rgb(source: Path | io.BytesIO, name: str) -> np.ndarray:
    """Decode an image file to uint8 (H, W, 3) RGB, upright; `name` stands in the InputError."""
    return decode_turned(source, name)[0]


def decode_turned(
    source: Path | io.BytesIO, name: str, bit_depth: int = 16
) -> tuple[np.ndarray, object]:
    """Decode like `decode_rgb`; return also the EXIF orientation that was applied.

    Of what 16 bits store, the upper 8 of the lower `bit_depth` are kept. What lies above is clipped
    where it is as little as hot pixels are, else an InputError.
    """
    with _opened(source, name) as image:
        if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
            raise InputError(f"{name} has grey values of 32 bits; convert it to 8 or 16 bits")
        is_deep = _is_deep(image)
        depth = _Depth(bit_depth if is_deep else 16)
        decoded = None
        by_pillow = image.mode.startswith("I") or (bit_depth == 16 and image.format != "PPM")
        if is_deep and not by_pillow:
            decoded = _scaled(_decode_deep(image, source, name), depth)
        convert = partial(_rgb, depth=depth)
        converted = _converted(image, source, convert, np.uint8, (3,), decoded=decoded)
        if depth.beyond > HOT_OF_FILE * depth.counted:
            raise InputError(
                f"{name} has the value {depth.largest}, which takes more than {bit_depth} bits; "
                "raise extract_frames.bit_depth, or set it to null"
            )
        return converted


def decode_marks(
    source: Path | io.BytesIO, name: str, orientation: object = 1, *, inverted: bool = False
) -> np.ndarray:
    """Decode a mask file to bool (H, W), upright, false where black; `inverted`, where white.

    White is the brightest that the file holds, and a colour is not white. Where alpha varies, what
    is more opaque than not is marked. `orientation` is the EXIF one that turns a mask without its
    own. Raises InputError for a JPEG that is not black and white.
    """
    with _opened(source, name) as image:
        if image.format in ("JPEG", "MPO"):
            levels = _Levels(inverted)
            marks, _ = _converted(image, source, levels.mark, np.bool_, (), orientation)
            if not levels.have_two_peaks:
                raise InputError(
                    f"{name} is JPEG, which blurs the border of a mask, and not black and white; "
                    "save it as PNG"
                )
            return marks
        if inverted:
            whites = _Whites()
            codes, _ = _converted(image, source, whites.encode, np.uint8, (2,), orientation)
            return whites.are_left(codes)
        if image.has_transparency_data:
            opacity = _Opacity()
            codes, _ = _converted(image, source, opacity.encode, np.uint8, (), orientation)
            codes &= opacity.meant  # in place, and 0 or 1: a large mask has no room for a copy
            codes >>= opacity.meant - 1
            return codes.view(np.bool_)
        return _converted(image, source, _marks, np.bool_, (), orientation)[0]


@contextmanager
def _opened(source: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Yield the image, not decoded; what Pillow raises, here or in the block, is an InputError."""
    try:
        is_gif = isinstance(source, Path) and source.suffix.lower() == ".gif"
        with Image.open(source, formats=["GIF"] if is_gif else FORMATS) as image:
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
            f"{name} is empty, corrupt or not a JPEG, PNG, BMP, TIFF, WebP, HEIC or PNM image; "
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
    otherwise: object = 1,
    decoded: np.ndarray | None = None,
) -> tuple[np.ndarray, object]:
    """Decode and convert, strip by strip, into an upright array (H, W, *channels).

    Return also the EXIF orientation that was applied, `otherwise` where the file has none. What
    OpenCV has `decoded` is not decoded again.
    """
    orientation = _load(image, decoded is not None or _is_large_webp(image))
    if orientation not in _STORED:
        orientation = otherwise
    pixels = _decode_webp(image, source) if _is_large_webp(image) else decoded
    if pixels is not None:
        height, width = pixels.shape[:2]
    else:
        width, height = image.im.size  # before it is turned
    turned = orientation in (5, 6, 7, 8)
    upright = np.empty((*((width, height) if turned else (height, width)), *channels), kind)
    stored = as_stored(upright, orientation)
    for top, bottom in _strips(width, height):
        if pixels is not None:
            strip = Image.fromarray(pixels[top:bottom])
        elif bottom - top == height and image.size == (width, height):
            strip = image  # small, and not a TIFF to be turned, whose size says what it will be
        else:
            strip = image.crop((0, top, width, bottom))
        stored[top:bottom] = convert(strip)
    return upright, orientation


def _strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each strip of an image, and that behind its last."""
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def as_stored(upright: np.ndarray, orientation: object) -> np.ndarray:
    """Return the view of an upright array in which a file of an EXIF orientation stores it."""
    return _STORED.get(orientation, lambda upright: upright)(upright)


def _load(image: Image.Image, by_opencv: bool) -> object:
    """Decode, unless OpenCV does, and return the EXIF orientation, which is not yet applied."""
    if image.format == "TIFF":  # Pillow would turn it in a second copy as it loads it
        orientation = image.getexif().pop(ExifTags.Base.Orientation, 1)
    if not by_opencv:
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


def _is_deep(image: Image.Image) -> bool:
    """Say whether values have 16 bits, of which a camera may have used less.

    Of colour, Pillow keeps 8 of them. A PNM that gives a smaller largest value is stretched to it.
    """
    if image.mode.startswith("I;16"):
        return True
    return any(
        ";16" in str(tile.args) or (image.format == "PPM" and tile.args[-1] == PNM_LARGEST)
        for tile in image.tile  # type: ignore[attr-defined]
    )


def _decode_deep(image: Image.Image, source: Path | io.BytesIO, name: str) -> np.ndarray:
    """Decode colour of 16 bits to uint16 (H, W, 3) RGB or (H, W, 4) RGBA, as stored."""
    needed = 12 * image.width * image.height + _length(source)  # both depths of four values
    if needed > MAX_BYTES:
        raise InputError(
            f"{name} takes {needed // 10**6} MB to decode, the limit is {MAX_BYTES // 10**6}; "
            "convert it to 8 bits, or scale it down"
        )
    with memory(needed):
        data = source.read_bytes() if isinstance(source, Path) else source.getvalue()
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
            raise ValueError("OpenCV finds no colour of 16 bits in it")
        pixels[:, :, :3] = pixels[:, :, 2::-1].copy()
        return pixels


class _Depth:
    """The scale of one image; counts what lies above it."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.largest = self.beyond = self.counted = 0

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Return the upper 8 of the bits as uint8; what has more of them is clipped."""
        self.counted += values.size
        if self.bits < 16 and values.size and (largest := int(values.max())) >> self.bits:
            self.largest = max(self.largest, largest)
            self.beyond += int(np.count_nonzero(values >> self.bits))
            values = np.minimum(values, (1 << self.bits) - 1)
        return (values >> (self.bits - 8)).astype(np.uint8)


def _scaled(values: np.ndarray, depth: _Depth) -> np.ndarray:
    """Scale uint16 (H, W, 3) RGB or (H, W, 4) RGBA, whose alpha may use all bits."""
    scaled = np.empty(values.shape, np.uint8)
    opaque = int(values[:, :, 3:].max(initial=0))
    alpha = _Depth(16 if opaque >> depth.bits else depth.bits)
    for top, bottom in _strips(values.shape[1], values.shape[0]):
        strip = values[top:bottom]
        scaled[top:bottom, :, :3] = depth.scale(strip[:, :, :3])
        scaled[top:bottom, :, 3:] = alpha.scale(strip[:, :, 3:])
    return scaled


def _rgb(image: Image.Image, depth: _Depth | None = None) -> np.ndarray:
    """Return uint8 (H, W, 3), or (H, W, 1) where it is grey."""
    if image.mode.startswith("I"):  # 16 bits, as Pillow does for colour; PGM is stretched to them
        return (depth or _Depth(16)).scale(np.asarray(image))[:, :, None]
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def _marks(image: Image.Image) -> np.ndarray:
    if image.mode in ("1", "L", "F") or image.mode.startswith("I"):
        return np.asarray(image).astype(np.bool_)
    return np.any(_rgb(image), axis=2)


class _Levels:
    """The grey levels of a JPEG mask, which lie around black and white if it was one of two."""

    def __init__(self, inverted: bool) -> None:
        self._inverted = inverted
        self.counts = np.zeros(256, np.int64)

    def mark(self, image: Image.Image) -> np.ndarray:
        """Count the levels of a strip and return what is brighter than half, or darker."""
        # A coloured mark is as bright as a white one on black, and as dark as a black one on white.
        level = _rgb(image).min(axis=2) if self._inverted else _rgb(image).max(axis=2)
        self.counts += np.bincount(level.ravel(), minlength=256)
        return (level > 127) != self._inverted

    @property
    def have_two_peaks(self) -> bool:
        """Say whether at most a twentieth lies between the peaks, and less than in either."""
        black, white = self.counts[:PEAK].sum(), self.counts[-PEAK:].sum()
        between = self.counts.sum() - black - white
        return between <= min(self.counts.sum() / 20, black, white)


class _Opacity:
    """Marks by colour (1) and by opacity (2), until all strips tell whether alpha varies."""

    def __init__(self) -> None:
        self._least, self._most = 255, 0

    def encode(self, image: Image.Image) -> np.ndarray:
        """Return the sum of both marks, uint8 (H, W)."""
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        self._least = min(self._least, int(alpha.min()))
        self._most = max(self._most, int(alpha.max()))
        return np.any(_rgb(image), axis=2) + np.uint8(2) * (alpha > 127)

    @property
    def meant(self) -> int:
        """The mark that counts."""
        return 2 if self._least < self._most else 1


class _Whites:
    """How white pixels are and whether they are opaque, until all strips tell what white is."""

    def __init__(self) -> None:
        self._whitest, self._least, self._most = 1, 255, 0

    def encode(self, image: Image.Image) -> np.ndarray:
        """Return the darkest colour and the opacity, uint8 (H, W, 2)."""
        if image.mode == "F" or image.mode.startswith("I"):
            white = np.asarray(image).astype(np.bool_) * np.uint8(255)
        else:
            white = _rgb(image).min(axis=2)
        alpha = np.full_like(white, 255)
        if image.has_transparency_data:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        self._whitest = max(self._whitest, int(white.max()))
        self._least = min(self._least, int(alpha.min()))
        self._most = max(self._most, int(alpha.max()))
        return np.stack([white, alpha], axis=2)

    def are_left(self, codes: np.ndarray) -> np.ndarray:
        """Return what is not white, or not opaque where alpha varies, bool (H, W)."""
        if self._least < self._most:
            return codes[:, :, 1] <= 127
        return codes[:, :, 0] < self._whitest
