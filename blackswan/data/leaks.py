"""The leak check: no image may lie, nearly the same, in two splits.

Every pair across splits is compared, first by perceptual hash, then by the pixels themselves.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from blackswan.data.images import read_image
from blackswan.errors import InputError
from blackswan.parallel import parallel_map
from blackswan.params import Section

SAMPLED = 2048  # grey pixels kept of each image, at the same places in all
BLOCK = 256  # images compared with all others at a time
ROWS = 1024  # of two images that are compared at a time
SHOWN = 5  # offending pairs named in the message


class Params(Section):
    """When two images are the same for our purpose; both conditions must hold."""

    max_hash_distance: int = Field(ge=0, le=64)  # bits of the 64-bit perceptual hash
    max_pixel_difference: float = Field(ge=0)  # mean absolute difference, grey levels


def check(images: Sequence[tuple[Path, str]], params: Params) -> None:
    """Raise InputError naming pairs of (path, split) items that are nearly the same."""
    pairs = [pair for pair, _ in zip(find_leaks(images, params), range(SHOWN), strict=False)]
    if pairs:
        shown = "; ".join(f"{a} = {b}" for a, b in pairs)
        raise InputError(
            f"images that are nearly the same lie in different splits: {shown}. For a video raise "
            "split.guard_seconds, for photos give the shots of one part one group "
            "(extract_frames.folder.group_pattern), or remove the copies"
        )


def find_leaks(images: Sequence[tuple[Path, str]], params: Params) -> Iterator[tuple[Path, Path]]:
    """Yield the pairs across splits whose hashes and whose pixels are both near.

    Pixels are compared first on a sample that all images share, whose mean difference estimates the
    whole within a few percent, then, for the pairs it lets through, in full.
    """
    fingerprints = list(parallel_map(fingerprint, [path for path, _ in images]))
    hashes = np.array([hash_ for hash_, _ in fingerprints], dtype=np.uint64)  # (N,)
    samples = np.stack([sample for _, sample in fingerprints])  # (N, SAMPLED) uint8
    splits = np.array([split for _, split in images])
    for begin in range(0, len(images), BLOCK):
        rows = slice(begin, begin + BLOCK)
        distance = np.bitwise_count(hashes[rows, None] ^ hashes[None, :])  # (BLOCK, N)
        near = (distance <= params.max_hash_distance) & (splits[rows, None] < splits[None, :])
        for row, (first, _) in enumerate(images[rows]):
            columns = np.flatnonzero(near[row])
            sampled = np.abs(samples[columns] - samples[begin + row].astype(np.int16)).mean(axis=1)
            # Grey weighs green 1.76 times as much as the mean of the three colours does.
            for column in columns[sampled <= 1.8 * params.max_pixel_difference + 0.5]:
                second = images[column][0]
                if pixel_difference(first, second) <= params.max_pixel_difference:
                    yield first, second


def fingerprint(path: Path) -> tuple[int, np.ndarray]:
    """Return (64-bit perceptual hash, sampled pixels) of an image.

    The hash holds the signs of the 8x8 lowest frequencies of the 32x32 image against their median.
    """
    grey = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(small)[:8, :8].ravel()
    bits = frequencies > np.median(frequencies[1:])
    places = np.random.default_rng(0).integers(0, grey.size, SAMPLED)
    return int(np.packbits(bits).view(">u8")[0]), grey.ravel()[places]


def pixel_difference(first: Path, second: Path) -> float:
    """Return the mean absolute difference, grey levels; infinite for different sizes."""
    a, b = read_image(first), read_image(second)
    if a.shape != b.shape:
        return float("inf")
    strips = (slice(top, top + ROWS) for top in range(0, len(a), ROWS))
    return sum(int(cv2.absdiff(a[rows], b[rows]).sum()) for rows in strips) / a.size
