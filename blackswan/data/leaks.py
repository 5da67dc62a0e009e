"""The leak check: no image may lie, nearly the same, in two splits.

Pairs across splits are compared, first by perceptual hash, then by a sample of the pixels, and in
full where the sample leaves it open. Frames of one clip are not compared with each other: a camera
may stand still, and the guard gap keeps its splits apart.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field
from tqdm import tqdm

from blackswan.data.images import read_image
from blackswan.errors import InputError
from blackswan.parallel import parallel_map
from blackswan.params import Section

SAMPLED = 2048  # pixels kept of each image, at the same places in all
DEVIATIONS = 5  # standard errors by which a sample must lie beyond the limit to decide alone
BLOCK = 256  # images compared with all others at a time
ROWS = 1024  # of two images that are compared at a time
SHOWN = 5  # offending pairs named in the message


class Params(Section):
    """When two images are the same for our purpose; both conditions must hold."""

    max_hash_distance: int = Field(ge=0, le=64)  # bits of the 64-bit perceptual hash
    max_pixel_difference: float = Field(ge=0)  # mean absolute difference, grey levels


class Item(NamedTuple):
    """An image and where it belongs; `clip` names the video that it is a frame of, if it is one."""

    path: Path
    split: str
    clip: str = ""


def check(images: Sequence[Item], params: Params) -> None:
    """Raise InputError naming pairs of items that are nearly the same in different splits."""
    pairs = [pair for pair, _ in zip(find_leaks(images, params), range(SHOWN), strict=False)]
    if pairs:
        shown = "; ".join(f"{first.path} = {second.path}" for first, second in pairs)
        remedies = sorted({_remedy(first, second) for first, second in pairs})
        raise InputError(
            f"images that are nearly the same lie in different splits: {shown}. "
            + "; ".join(remedies)
        )


def _remedy(first: Item, second: Item) -> str:
    if first.clip and second.clip:
        return f"leave out {first.clip} or {second.clip}, which show the same"
    return (
        "Remove the copies, or, where source.path gives no splits, give the shots of one part one "
        "group (extract_frames.folder.group_pattern)"
    )


def find_leaks(images: Sequence[Item], params: Params) -> Iterator[tuple[Item, Item]]:
    """Yield the pairs across splits, but not of one clip, whose hashes and pixels are both near."""
    fingerprints = parallel_map(fingerprint, [image.path for image in images])
    read = list(tqdm(fingerprints, "fingerprints", len(images), disable=None))
    hashes = np.array([hash_ for hash_, _ in read], dtype=np.uint64)  # (N,)
    samples = np.stack([sample for _, sample in read])  # (N, SAMPLED, 3) uint8
    del read
    splits = np.array([image.split for image in images])
    clips = np.array([image.clip for image in images])
    blocks = range(0, len(images), BLOCK)
    for begin in tqdm(blocks, "leak check", disable=None):
        rows = slice(begin, begin + BLOCK)
        distance = np.bitwise_count(hashes[rows, None] ^ hashes[None, :])  # (BLOCK, N)
        near = (distance <= params.max_hash_distance) & (splits[rows, None] < splits[None, :])
        near &= (clips[rows, None] != clips[None, :]) | (clips[None, :] == "")
        for row, first in enumerate(images[rows]):
            for column in np.flatnonzero(near[row]).tolist():
                if _is_copy(first, images[column], samples[begin + row], samples[column], params):
                    yield first, images[column]


def _is_copy(
    first: Item, second: Item, sample: np.ndarray, other: np.ndarray, params: Params
) -> bool:
    """Compare samples (SAMPLED, 3), then the images where these may lie on either side."""
    difference = cv2.absdiff(sample, other)
    mean, deviation = cv2.meanStdDev(difference.reshape(-1, 1))
    # The three colours of a pixel may change together: SAMPLED values count, not three times that.
    error = DEVIATIONS * float(deviation[0, 0]) / SAMPLED**0.5 + 0.01
    if float(mean[0, 0]) - error > params.max_pixel_difference:
        return False
    return pixel_difference(first.path, second.path) <= params.max_pixel_difference


def fingerprint(path: Path) -> tuple[int, np.ndarray]:
    """Return (64-bit perceptual hash, sampled pixels (SAMPLED, 3)) of an image.

    The hash holds the signs of the 8x8 lowest frequencies of the 32x32 image against their median.
    """
    image = read_image(path)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(small)[:8, :8].ravel()
    bits = frequencies > np.median(frequencies[1:])
    places = np.random.default_rng(0).integers(0, grey.size, SAMPLED)
    return int(np.packbits(bits).view(">u8")[0]), image.reshape(-1, 3)[places]


def pixel_difference(first: Path, second: Path) -> float:
    """Return the mean absolute difference, grey levels; infinite for different sizes."""
    a, b = read_image(first), read_image(second)
    if a.shape != b.shape:
        return float("inf")
    strips = (slice(top, top + ROWS) for top in range(0, len(a), ROWS))
    return sum(int(cv2.absdiff(a[rows], b[rows]).sum()) for rows in strips) / a.size
