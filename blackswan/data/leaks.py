"""The leak check: no image may lie, nearly the same, in two splits.

Pairs across splits are compared, first by perceptual hash, then by a sample of the pixels, and in
full where the sample leaves it open. Frames of one clip are not compared with each other: a camera
may stand still, and the guard gap keeps its splits apart. A part before and after its real defect
is no copy, if something shows: to be tested on it makes no detector look better.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field
from tqdm import tqdm

from blackswan.data.hash_index import HashIndex
from blackswan.data.images import read_image
from blackswan.errors import InputError
from blackswan.parallel import parallel_map
from blackswan.params import Section

SAMPLED = 2048  # pixels kept of each image, at the same places in all
GLANCE = 256  # of them, which decide most pairs
DEVIATIONS = 5  # standard errors by which a sample must lie beyond the limit to decide alone
CHUNK = 64  # images compared with one at a time, by samples that the processor holds
WAITING = 1_000_000  # pairs that samples leave open before they are compared in full
NEAREST = 64  # of them that are compared first
CACHED = 256_000_000  # bytes of images that are compared in full
TOGETHER = 8  # of them that a processor holds as well
DEFECT = 20  # grey levels by which a square of SQUARE pixels a side differs where a defect shows
SQUARE = 8
SHOWN = 5  # offending pairs named in the message
PAIR = np.dtype([("mean", "f4"), ("row", "i4"), ("column", "i4")])  # mean of the samples
# What the shots of one part may have in common: all before the last sign, a folder, a first word.
GROUPINGS = (r"(.+)[_-]", r"(.+)/", r"([^/_-]+)[_-][^/]*$")


class Params(Section):
    """When two images are the same for our purpose; both conditions must hold."""

    max_hash_distance: int = Field(ge=0, le=64)  # bits of the 64-bit perceptual hash
    max_pixel_difference: float = Field(ge=0)  # mean absolute difference, grey levels


class Item(NamedTuple):
    """An image, where it belongs, and what a remedy depends on; "" where there is none."""

    path: Path
    split: str
    clip: str = ""  # the video, or the numbered frames, that it is a frame of
    given: str = ""  # the split that the source gives it
    photo: str = ""  # a photo without given split: its name in the source, for group_pattern
    series: str = ""  # the photos that it is numbered with
    defective: bool = False  # it shows a real anomaly


class Leak(NamedTuple):
    """Two items that are nearly the same, and their mean absolute difference in grey levels."""

    first: Item
    second: Item
    difference: float


Reader = Callable[[Path], np.ndarray]


def check(images: Sequence[Item], params: Params) -> None:
    """Raise InputError naming pairs of items that are nearly the same in different splits."""
    leaks = list(islice(find_leaks(images, params), SHOWN + 1))
    if leaks:
        count = f"more than {SHOWN} pairs" if len(leaks) > SHOWN else f"pairs: {len(leaks)}"
        shown = "; ".join(
            f"{first.path} = {second.path} (difference {difference:.3g})"
            for first, second, difference in leaks[:SHOWN]
        )
        remedies = dict.fromkeys(_remedy(leak, images) for leak in leaks[:SHOWN])
        nearest = min(leak.difference for leak in leaks)
        raise InputError(
            f"images that are nearly the same lie in different splits ({count}): {shown}. "
            + "; ".join(remedies)
            + _lower_limit(nearest, params)
        )


def _remedy(leak: Leak, images: Sequence[Item]) -> str:
    first, second = leak.first, leak.second
    if first.clip and second.clip:
        return f"leave out {first.clip} or {second.clip}, which show the same"
    if first.given and second.given:
        if first.given == second.given:
            return f"Remove one of each pair: {first.given} of source.path holds it twice"
        return f"Remove the copies from {first.given} or {second.given} of source.path"
    remedy = "Remove the copies"
    if pattern := _grouping(first.photo, second.photo, images):
        remedy += (
            ", or, where they are shots of one part, set extract_frames.folder.group_pattern: "
            f"'{pattern}'"
        )
    if first.series and first.series == second.series:
        remedy += ", or, where they are frames of one video, set split.sequences: true"
    return remedy


def _grouping(first: str, second: str, images: Sequence[Item]) -> str:
    """Return a pattern that fits all names of photos and puts two of them into one group."""
    names = {image.photo for image in images if image.photo}
    for pattern in GROUPINGS if first != second and {first, second} <= names else ():
        found = {name: match[1] for name in names if (match := re.search(pattern, name))}
        together = len(found) == len(names) and found[first] == found[second]
        if together and len({*found.values()}) >= 3:  # one for each split
            return pattern
    return ""


def _lower_limit(nearest: float, params: Params) -> str:
    """Say which limit lets pass what is no copy; none does so for images that are equal."""
    if nearest <= 0:
        return ""
    return (
        ". Where they are different things that truly look so alike, set "
        f"label.leak_check.max_pixel_difference (now {params.max_pixel_difference:g}) to "
        f"{0.9 * nearest:.2g}, for the nearest pair differs by {nearest:.3g} grey levels"
    )


def find_leaks(images: Sequence[Item], params: Params) -> Iterator[Leak]:
    """Yield the pairs across splits, but not of one clip, whose hashes and pixels are both near.

    The first of a pair is in the split that comes first by name. The nearest pairs come first, as
    long as no more than WAITING are left open by their samples.
    """
    clips = {image.clip for image in images}
    if len({image.split for image in images}) < 2 or (len(clips) == 1 and "" not in clips):
        return  # nothing to compare, and so nothing to read
    read = _Cache(CACHED).read
    for pairs in _left_open(images, params):
        tile = max(1, CACHED // 2 // read(images[0].path).nbytes)
        ordered = _in_order(pairs, tile)
        for row, column in tqdm(ordered, "compared in full", disable=None, leave=False):
            first, second = sorted((images[row], images[column]), key=lambda item: item.split)
            difference = pixel_difference(first.path, second.path, read)
            if difference <= params.max_pixel_difference and not (
                (first.defective or second.defective) and _shows_a_defect(first, second, read)
            ):
                yield Leak(first, second, difference)


def _left_open(images: Sequence[Item], params: Params) -> Iterator[np.ndarray]:
    """Yield arrays of PAIR, about WAITING at a time, that hashes and samples do not tell apart."""
    hashes, samples = _read(images)
    splits, clips = _numbers([i.split for i in images]), _numbers([i.clip for i in images])
    is_photo = np.array([not image.clip for image in images])
    index = HashIndex(hashes, params.max_hash_distance)
    waiting, count = list[np.ndarray](), 0
    for row in tqdm(range(len(images)), "leak check", disable=None):
        near = index.near(row)
        near = near[(splits[near] != splits[row]) & (is_photo[near] | (clips[near] != clips[row]))]
        for begin in range(0, len(near), CHUNK):
            chunk = near[begin : begin + CHUNK]
            pairs = _not_told_apart(samples, row, chunk, params.max_pixel_difference)
            if len(pairs):
                waiting.append(pairs)
                count += len(pairs)
        if count >= WAITING:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if count:
        yield np.concatenate(waiting)


def _read(images: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    """Return hashes (N,) uint64 and samples (N, SAMPLED, 3) uint8 of all images."""
    hashes = np.empty(len(images), np.uint64)
    samples = np.empty((len(images), SAMPLED, 3), np.uint8)
    found = parallel_map(fingerprint, [image.path for image in images])
    for row, (hash_, sample) in enumerate(tqdm(found, "fingerprints", len(images), disable=None)):
        hashes[row], samples[row] = hash_, sample
    return hashes, samples


def _numbers(names: list[str]) -> np.ndarray:
    """Return a number for each name (N,), equal for equal names."""
    return np.unique(names, return_inverse=True)[1].astype(np.int32)


def _not_told_apart(samples: np.ndarray, row: int, columns: np.ndarray, limit: float) -> np.ndarray:
    """Return the PAIR of `row` with those of `columns` that samples do not put beyond the limit."""
    means = np.empty(0)
    for count in (GLANCE, SAMPLED):
        if not len(columns):
            break
        others = samples[columns, :count].reshape(len(columns), -1)
        own = np.broadcast_to(samples[row, :count].ravel(), others.shape)
        difference = cv2.absdiff(others, np.ascontiguousarray(own))
        values = difference.shape[1]
        means = cv2.reduce(difference, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0] / values
        # uint32 holds the squares of SAMPLED colours: 3 * 2048 * 255 ** 2 < 2 ** 32.
        squares = np.einsum("ij,ij->i", difference, difference, dtype=np.uint32, casting="unsafe")
        deviation = np.sqrt(np.maximum(squares / values - means**2, 0))
        # The three colours of a pixel may change together: they count as one value, not as three.
        near = means - (DEVIATIONS * deviation / count**0.5 + 0.01) <= limit
        columns, means = columns[near], means[near]
    pairs = np.empty(len(columns), PAIR)
    pairs["mean"], pairs["row"], pairs["column"] = means[: len(columns)], row, columns
    return pairs


def _in_order(pairs: np.ndarray, tile: int) -> np.ndarray:
    """Return rows and columns (P, 2): the NEAREST first, then so that images are read seldom.

    `tile` rows stay in the cache while the columns pass by.
    """
    nearest = np.argsort(pairs["mean"], kind="stable")
    first, others = pairs[nearest[:NEAREST]], pairs[nearest[NEAREST:]]
    others = others[
        np.lexsort((others["row"], others["column"] // TOGETHER, others["row"] // tile))
    ]
    together = np.concatenate([first, others])
    return np.column_stack([together["row"], together["column"]])


def _shows_a_defect(first: Item, second: Item, read: Reader) -> bool:
    """Say whether some place differs as encoding an image again does not make it differ."""
    difference = cv2.absdiff(read(first.path), read(second.path))
    return bool(cv2.blur(difference, (SQUARE, SQUARE)).max() >= DEFECT)


class _Cache:
    """The images that were read last, up to a number of bytes; two at least."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._held = capacity, 0
        self._images: OrderedDict[Path, np.ndarray] = OrderedDict()

    def read(self, path: Path) -> np.ndarray:
        """Return the image, as `read_image` does."""
        if path not in self._images:
            self._images[path] = read_image(path)
            self._held += self._images[path].nbytes
        self._images.move_to_end(path)
        while self._held > self._capacity and len(self._images) > 2:
            self._held -= self._images.popitem(last=False)[1].nbytes
        return self._images[path]


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


def pixel_difference(first: Path, second: Path, read: Reader = read_image) -> float:
    """Return the mean absolute difference, grey levels; infinite for different sizes."""
    a, b = read(first), read(second)
    if a.shape != b.shape:
        return float("inf")
    return cv2.norm(a, b, cv2.NORM_L1) / a.size
