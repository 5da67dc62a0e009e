"""Do the 95 % intervals hold? How often they cover the truth where it is known, and how wide.

Images: binormal scores; a share of their variance (the correlation) belongs to the group. Paired:
each group holds normal images and as many anomalous ones, with one effect in common, as frames and
their altered copies do. Unpaired: a group is all normal or all anomalous. Beside it stands the
percentile bootstrap of groups, which the intervals replaced. Pixels: noise with an effect of the
group and defects of a strength that differs by group (log-normal), against 800 groups.
Where no interval is shown nothing is covered: `none` is that share, coverage is of the others.
Writes benchmarks/intervals.json in under four minutes on two cores.
`python benchmarks/intervals.py`
"""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from measured import record
from scipy.stats import norm
from tqdm import tqdm

from blackswan.evaluation.metrics import image_metrics
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.outputs import write_json
from blackswan.seeds import generator

RESULT = Path("benchmarks/intervals.json")
SIMULATIONS = 1000  # of a cell of images
PIXEL_SIMULATIONS = 200
RESAMPLES = 200  # of the bootstrap
GROUPS = (2, 3, 5, 7, 10, 20)
UNEQUAL = ((3, 20), (20, 3), (5, 20), (20, 5), (10, 40), (40, 10))
SIDE = 24  # pixels of a map


class Images(NamedTuple):
    """A cell: what is simulated of images."""

    auroc: float
    paired: bool
    correlation: float
    groups: tuple[int, int]  # with normal and with anomalous images; paired: the same ones
    images: int  # of a class in a group

    def __str__(self) -> str:
        count = self.groups[0] if self.groups[0] == self.groups[1] else f"{self.groups}"
        return (
            f"{'paired' if self.paired else 'unpaired'}, groups {count}, images {self.images}, "
            f"correlation {self.correlation}, AUROC {self.auroc}"
        )


class Pixels(NamedTuple):
    """A cell: what is simulated of pixels."""

    paired: bool
    strength: float  # of the middle defect, in standard deviations of the noise
    groups: int

    def __str__(self) -> str:
        paired = "paired" if self.paired else "unpaired"
        return f"{paired}, groups {self.groups}, strength {self.strength}"


def average_precision(auroc: float, share: float) -> float:
    """Return the average precision of the binormal model with a share of anomalous images."""
    distance = np.sqrt(2) * norm.ppf(auroc)
    cut = np.linspace(distance - 9, distance + 9, 20_001)
    found, alarms = share * norm.sf(cut - distance), (1 - share) * norm.sf(cut)
    return float(np.trapezoid(norm.pdf(cut - distance) * found / (found + alarms), cut))


def bootstrap(wins: np.ndarray, paired: bool, rng: np.random.Generator) -> dict[str, float]:
    """Return the percentile bootstrap of AUROC, from the pairs won between groups (G0, G1)."""
    sizes = wins.shape
    total = sizes[0] if paired else sum(sizes)
    weights = rng.multinomial(total, np.full(total, 1 / total), RESAMPLES)
    normal, anomalous = weights[:, : sizes[0]], weights[:, -sizes[1] :]
    kept = normal.any(axis=1) & anomalous.any(axis=1)
    normal, anomalous = normal[kept], anomalous[kept]
    drawn = ((normal @ wins) * anomalous).sum(axis=1) / normal.sum(axis=1) / anomalous.sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"bootstrap_low": float(low), "bootstrap_high": float(high)}


def simulate_images(cell: Images) -> dict[str, float]:
    """Return coverage, mean width and share of `none` of the intervals of one cell."""
    rng, (normal, anomalous) = generator(0, "images", str(cell)), cell.groups
    labels = np.repeat([0, 1], [normal * cell.images, anomalous * cell.images])
    group = np.repeat(np.arange(normal + anomalous), cell.images)
    if cell.paired:
        group %= normal
    names = [f"{number:03}" for number in group]
    shift, own = np.sqrt(2) * norm.ppf(cell.auroc), np.sqrt(1 - cell.correlation)
    truth = {"image_auroc": cell.auroc, "bootstrap": cell.auroc}
    truth["image_ap"] = average_precision(cell.auroc, labels.mean())
    results = []
    for _ in range(SIMULATIONS):
        effects = np.sqrt(cell.correlation) * rng.normal(size=normal + anomalous)
        scores = shift * labels + effects[group] + own * rng.normal(size=len(labels))
        found = image_metrics(labels, scores, 0.0, names)
        low, high = (scores[labels == label].reshape(-1, cell.images) for label in (0, 1))
        wins = (high[None, :, :, None] > low[:, None, None, :]).mean((2, 3))
        results.append(found | bootstrap(wins, cell.paired, rng))
    return judge(results, truth)


def draw_group(
    paired: bool, strength: float, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Yield anomaly map, mask and kind of three normal and three anomalous images of a group."""
    strength *= np.exp(0.5 * rng.normal())
    level, size = 0.5 * rng.normal(size=2), rng.integers(3, 7)
    top, left = rng.integers(0, SIDE - size, 2)
    for number in range(6):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[top : top + size, left : left + size] = number >= 3
        noise = 4 * cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE)), (0, 0), 1.5)
        kind = "" if paired else f"{number >= 3}"
        yield (noise + level[0 if paired else number // 3] + strength * mask), mask, kind


def measure_pixels(cell: Pixels, groups: int, rng: np.random.Generator) -> dict[str, float]:
    """Return the metrics of the pixels of that many groups."""
    pixels = PixelMetrics()
    for group in range(groups):
        for anomaly_map, mask, kind in draw_group(cell.paired, cell.strength, rng):
            pixels.add(anomaly_map.astype(np.float32), mask, f"{group:03}{kind}")
    return pixels.compute()


def simulate_pixels(cell: Pixels) -> dict[str, float]:
    """Return coverage, mean width and share of `none` of the intervals of one cell."""
    truth = measure_pixels(cell, 800, generator(0, "pixels", str(cell._replace(groups=0))))
    rng = generator(1, "pixels", str(cell))
    results = [measure_pixels(cell, cell.groups, rng) for _ in range(PIXEL_SIMULATIONS)]
    return judge(results, {key: truth[key] for key in ("pixel_auroc", "pixel_aupro")})


def judge(results: list[dict[str, float]], truth: dict[str, float]) -> dict[str, float]:
    """Return what the intervals cover and how wide they are, for each metric of `truth`."""
    found: dict[str, float] = {}
    for key, value in truth.items():
        shown = [(r[f"{key}_low"], r[f"{key}_high"]) for r in results if f"{key}_low" in r]
        found[f"{key}_true"] = value
        found[f"{key}_none"] = 1 - len(shown) / len(results)
        if shown:
            found[f"{key}_coverage"] = float(np.mean([low <= value <= high for low, high in shown]))
            found[f"{key}_width"] = float(np.mean([high - low for low, high in shown]))
    return found


def main() -> None:
    """Simulate every cell on all cores; print the lowest coverage."""
    equal = [(count, count) for count in GROUPS]
    grid = product((0.8, 0.9, 0.97), (True, False), (0.0, 0.5), equal, (6,))
    images = [Images(*values) for values in grid]
    images += [Images(auroc, False, 0.5, each, 6) for auroc in (0.8, 0.97) for each in UNEQUAL]
    images += [
        Images(auroc, paired, 0.5, (count, count), 20)
        for auroc, paired, count in product((0.8, 0.9, 0.97), (True, False), (5, 7, 10))
    ]
    pixels = [Pixels(*values) for values in product((True, False), (2.0, 4.0, 8.0), (3, 5, 10))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        of_images = pool.map(simulate_images, images)
        of_pixels = pool.map(simulate_pixels, pixels)
        image_cells = dict(
            zip(map(str, images), tqdm(of_images, total=len(images), disable=None), strict=True)
        )
        pixel_cells = dict(
            zip(map(str, pixels), tqdm(of_pixels, total=len(pixels), disable=None), strict=True)
        )
    enough = [image_cells[str(cell)] for cell in images if min(cell.groups) >= 5]
    enough_pixels = [pixel_cells[str(cell)] for cell in pixels if cell.groups >= 5]
    lowest = {
        key: min(cell[f"{key}_coverage"] for cell in cells if f"{key}_coverage" in cell)
        for key, cells in {
            **dict.fromkeys(("image_auroc", "image_ap", "bootstrap"), enough),
            **dict.fromkeys(("pixel_auroc", "pixel_aupro"), enough_pixels),
        }.items()
    }
    write_json(
        RESULT,
        {
            "images": image_cells,
            "pixels": pixel_cells,
            "lowest_coverage_from_5_groups": lowest,
            "simulations": {"images": SIMULATIONS, "pixels": PIXEL_SIMULATIONS},
        },
    )
    record([RESULT.name])
    shown = ", ".join(f"{key} {value:.3f}" for key, value in lowest.items())
    print(f"lowest coverage from 5 groups: {shown}")


if __name__ == "__main__":
    main()
