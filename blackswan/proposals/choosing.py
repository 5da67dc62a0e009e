"""Which images a model is asked about: the least certain ones of a detector, or a sample.

Certain is who is far from the threshold: what counts is the distance of the p-value from alpha, on
a logarithmic scale, and among equal p-values that of the score from the threshold.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np
from tqdm import tqdm

from blackswan.data.batches import of_one_size
from blackswan.data.images import encode_png
from blackswan.data.known import sha256_of
from blackswan.data.photos import Photo
from blackswan.data.quarantine import Failure
from blackswan.data.records import Frame, SourceImage
from blackswan.data.sources.table import Encoded
from blackswan.errors import InputError
from blackswan.evaluation.model import Model, Seen
from blackswan.evaluation.regions import find_regions
from blackswan.evaluation.thresholds import largest_p_values
from blackswan.proposals.questions import PICTURES
from blackswan.reporting.heatmaps import HeatmapScale, fit, overlay
from blackswan.reporting.verdicts import BATCH, prepared
from blackswan.seeds import generator

SIDE = 1024  # pixels, the longer side of a picture that is sent, at most
SMALLEST = 0.2  # of the shorter side of an image: a crop shows what surrounds a speck
ORDINARY = 0.5  # p-value from which an image is as usual as half of the normal ones

Images = Callable[[], Iterable[SourceImage]]


@dataclass(frozen=True)
class Candidate:
    """An image to ask about, and what the detector says of it."""

    image: str  # as in the source
    sha256: str  # of its file; of its pixels where it has none, as a frame of a video
    detector: str
    verdict: str  # normal, anomalous
    p_value: float
    is_certain: bool  # above all held-out normal images, or as usual as half of them
    pictures: dict[str, bytes]  # PICTURES, as PNG


def least_certain(model: Model, images: Images, most: int) -> list[int]:
    """Return the positions of the `most` images whose p-value is nearest to alpha."""
    alpha, threshold = model.facts.alpha, model.facts.threshold
    scored = (
        (abs(math.log(p_value / alpha)), abs(score - threshold), position)
        for position, (score, p_value) in enumerate(_scored(model, images()))
    )
    return sorted(position for *_, position in nsmallest(most, scored))


def sample(images: Images, most: int, seed: int) -> list[int]:
    """Return the positions of a random sample, which is a part of every larger one."""
    random = generator(seed, "propose-labels")
    drawn = ((random.random(), position) for position, _ in enumerate(images()))
    return sorted(position for _, position in nsmallest(most, drawn))


def candidates(model: Model, images: Images, positions: Iterable[int]) -> Iterator[Candidate]:
    """Yield the images at some positions, ready to be asked about; of equal ones the first."""
    wanted, known = set(positions), set[str]()
    scale = HeatmapScale(**model.facts.heatmap.model_dump())
    # The highest score of all is above every normal one, in both sets.
    highest = np.array([np.finfo(np.float64).max])
    [least] = largest_p_values(highest, model.normal_scores, model.facts.alpha)
    for position, item in enumerate(images()):
        if position not in wanted:
            continue
        pixels = item.read()[0]
        if (sha256 := _sha256(item, pixels)) in known:
            continue
        known.add(sha256)
        seen = model.see(pixels)
        image, found = seen.image, model.score_seen([seen])
        p_value, is_flagged = float(found.p_values[0]), bool(found.flagged[0])
        anomaly_map = found.anomaly_maps[0]
        yield Candidate(
            image=item.frame.image,
            sha256=sha256,
            detector=model.facts.detector,
            verdict="anomalous" if is_flagged else "normal",
            p_value=p_value,
            is_certain=p_value <= least if is_flagged else p_value >= ORDINARY,
            pictures=dict(
                zip(
                    PICTURES,
                    map(
                        encode_png,
                        (
                            _crop(image, anomaly_map, scale.threshold),
                            _bounded(image),
                            _bounded(overlay(image, anomaly_map, scale)),
                        ),
                    ),
                    strict=True,
                )
            ),
        )


def _scored(model: Model, images: Iterable[SourceImage]) -> Iterator[tuple[float, float]]:
    """Yield score and p-value of each image."""
    shown = tqdm(images, desc="scoring", unit="image", disable=None)
    ready = map(_whole, prepared(model, shown))
    for batch in of_one_size(ready, BATCH, lambda item: item[1].image):
        found = model.score_seen([seen for _, seen in batch])
        yield from zip(found.image_scores.tolist(), found.p_values.tolist(), strict=True)


def _whole(item: tuple[Frame, Seen] | Failure) -> tuple[Frame, Seen]:
    if isinstance(item, Failure):
        raise InputError(item.reason)
    return item


def _sha256(item: SourceImage, pixels: np.ndarray) -> str:
    if isinstance(item.read, Photo):
        return sha256_of(item.read.image.read_bytes())
    if isinstance(item.read, Encoded):
        return sha256_of(item.read.content)
    return sha256_of(str(pixels.shape).encode() + pixels.tobytes())


def _crop(image: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Return what surrounds the highest region of an image, or its peak, as large as the image."""
    height, width = image.shape[:2]
    if regions := find_regions(anomaly_map, threshold, 1):
        (high, wide), top, left = regions[0].inside.shape, regions[0].top, regions[0].left
    else:
        top, left = (int(at) for at in np.unravel_index(anomaly_map.argmax(), anomaly_map.shape))
        high = wide = 1
    side = max(2 * high, 2 * wide, SMALLEST * min(height, width))
    rows, columns = (
        slice(max(0, round(middle - side / 2)), max(1, round(middle + side / 2)))
        for middle in (top + high / 2, left + wide / 2)
    )
    return fit(image[rows, columns], min(SIDE, max(height, width)))


def _bounded(image: np.ndarray) -> np.ndarray:
    return fit(image, SIDE) if max(image.shape[:2]) > SIDE else image
