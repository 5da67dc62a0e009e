"""Pictures inside a page: as WebP, and so small together that the page stays light."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

BUDGET = 3_400_000  # bytes of all pictures; base64 makes 4.6 MB of them, the page 5 at most
FEW_COLOURS = 4096  # a chart has fewer and is kept exactly, a photo has more
STEPS = [(1.0, 82), (1.0, 65), (1.0, 45), (0.7, 45), (0.5, 40), (0.35, 35), (0.2, 30)]


def data_uris(paths: Iterable[Path], budget: int = BUDGET) -> dict[Path, str]:
    """Return the pictures as data URIs, of at most `budget` bytes before base64.

    What is small stays as it is; what is large shares the rest, at a lower quality and, where
    that does not do, at a smaller size.
    """
    encoded = {path: _encode(path, *STEPS[0]) for path in paths}
    most = level([len(data) for data in encoded.values()], budget)
    for path in encoded:
        for step in STEPS[1:]:
            if len(encoded[path]) <= most:
                break
            encoded[path] = _encode(path, *step)
    return {path: _data_uri(data) for path, data in encoded.items()}


def level(sizes: list[int], budget: int) -> int:
    """Return the size to which the largest are cut so that all together fit the budget."""
    left = budget
    for place, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - place)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _encode(path: Path, scale: float, quality: int) -> bytes:
    buffer = io.BytesIO()
    with Image.open(path) as file:
        image = file.convert("RGB")
    if scale < 1:
        image = ImageOps.scale(image, scale)
    exact = image.getcolors(FEW_COLOURS) is not None and scale == 1
    image.save(buffer, "WEBP", lossless=exact, quality=quality, method=2)
    return buffer.getvalue()


def _data_uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
