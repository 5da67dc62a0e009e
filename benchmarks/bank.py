"""What does PatchCore's memory bank cost against the images, and is it the bank of exact picks?

    python benchmarks/bank.py             measures all, draws it: about an hour and a half on a core
    python benchmarks/bank.py 625 1250    measures these numbers of images, and draws all there are
    python benchmarks/bank.py picks       compares picks from disk with those from memory
    python benchmarks/bank.py add         compares images that were added with a fit on all

Writes benchmarks/bank.{json,png}. Images are drawn, 320 pixels a side, each by its number; the
backbone sees every one of them, with the params of PatchCore in params.yaml. A fit runs in a
process of its own. Seconds are those of its processor, for others may use the machine too, and
beside them those of the clock; exponents are fitted to the sizes at which `bank_patches` bounds the
bank. `held_gb` is the memory that only this process can give back (RssAnon, twenty times a second);
`peak_gb` (VmHWM) also counts pages of the file of patches, which the system drops when it needs
them.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from clip_thresholds import Frames
from measured import record
from memory import memory
from sklearn.metrics import roc_auc_score

from blackswan.data.images import read_image
from blackswan.detectors import patchcore
from blackswan.detectors.coreset import k_center
from blackswan.detectors.interface import Resources
from blackswan.detectors.neighbors import nearest
from blackswan.detectors.patches import open_backbone
from blackswan.detectors.rows import DiskRows, held
from blackswan.errors import InputError, explained, run
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import write_json
from blackswan.params import load_section

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

RESULT = Path("benchmarks/bank.json")
PICTURE = RESULT.with_suffix(".png")
WEIGHTS = Path("data/weights")
SCREW = Path("../shared/data/mvtec/screw")
SIDE = 320
SIZES = [156, 312, 625, 1250, 2500, 5000, 10_000]
POINTS, DIMENSIONS, PICKS = 200_000, 32, 2000
SEEDS = range(5)
Part = dict[str, Any]


class Drawn:
    """Images of a part that lies any way round on a background that is never the same."""

    def __init__(self, count: int) -> None:
        self.paths = [f"{number:05d}.png" for number in range(count)]
        self.sizes = [(SIDE, SIDE)] * count

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(draw, range(len(self)))


def draw(number: int) -> np.ndarray:
    """Return image `number`, uint8 RGB (SIDE, SIDE, 3)."""
    rng = np.random.default_rng([0, number])
    clouds = rng.normal(120, 25, (rng.integers(3, 40), rng.integers(3, 40), 3)).astype(np.float32)
    image = cv2.resize(clouds, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    centre = tuple(rng.uniform(0.35, 0.65, 2) * SIDE)
    box = (centre, (rng.uniform(100, 140), rng.uniform(30, 45)), rng.uniform(0, 360))
    corners = cv2.boxPoints(box)
    cv2.fillPoly(image, [corners.astype(np.int32)], rng.uniform(150, 220, 3).tolist())
    for corner in corners:
        cv2.circle(image, [*map(int, corner)], int(rng.integers(8, 16)), (60, 60, 70), -1)
    image += rng.standard_normal(image.shape, np.float32) * rng.uniform(2, 8)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def params() -> patchcore.Params:
    """Return the params of PatchCore for images of SIDE pixels."""
    return load_section(patchcore.Params, "detectors.patchcore").model_copy(
        update={"image_size": SIDE}
    )


@contextmanager
def watched() -> Iterator[list[int]]:
    """Yield a list whose only number is the most RssAnon so far, bytes."""
    most, done = [memory("RssAnon")], Event()

    def watch() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], memory("RssAnon"))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def fit(count: int) -> Part:
    """Fit on `count` images in this process and say what it took."""
    patches: list[int] = []

    def timed(points: Any, picks: int, start: int) -> torch.Tensor:  # noqa: ANN401
        patches.append(points.shape[0])
        before = time.process_time()
        found = k_center(points, picks, start)
        seconds.append(time.process_time() - before)
        return found

    seconds: list[float] = []
    patchcore.k_center = timed
    with tempfile.TemporaryDirectory(dir="data") as folder, watched() as most:  # /tmp may be memory
        resources = Resources([], WEIGHTS, Path(folder), seed=0)
        before, begin = time.process_time(), time.perf_counter()
        bank = patchcore.fit(Drawn(count), params(), resources).tensors["memory_bank"]
        fitted = time.process_time() - before
    return {
        "images": count,
        "patches": patches[0],
        "bank": len(bank),
        "on_disk": not held(patches[0], bank.shape[1]),
        "fit_seconds": round(fitted, 1),
        "coreset_seconds": round(seconds[0], 1),
        "clock_seconds": round(time.perf_counter() - begin, 1),
        "held_gb": round(most[0] / 1e9, 3),
        "peak_gb": round(memory("VmHWM") / 1e9, 3),
    }


def picks() -> Part:
    """Compare picks from disk with those from memory, and how far they leave any point."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((500, DIMENSIONS))
    clusters = centres[rng.integers(0, 500, POINTS)] + rng.standard_normal((POINTS, DIMENSIONS))
    images = Drawn(POINTS // 1600)
    backbone = open_backbone(WEIGHTS / params().backbone, params())
    grid = max(backbone.grids)
    embedded = [
        patchcore._embed(backbone.embed([image]), grid, params().neighborhood, None)[0]
        for image in images
    ]
    points = {
        "random": torch.from_numpy(rng.standard_normal((POINTS, DIMENSIONS), np.float32)),
        "clustered": torch.from_numpy(clusters.astype(np.float32)),
        "patches": torch.cat(embedded),
    }
    return {kind: compared(values) for kind, values in points.items()}


def compared(points: torch.Tensor) -> Part:
    """Compare picks of points (N, D) on disk and in memory."""
    with tempfile.TemporaryDirectory(dir="data") as folder:
        rows = DiskRows(*points.shape, Path(folder))
        for block in points.split(5000):
            rows.append(block)
        found = {"disk": k_center(rows, PICKS, 0), "memory": k_center(points, PICKS, 0)}
    radius = {name: float(nearest(points, points[kept])[0].max()) for name, kept in found.items()}
    return {
        "points": len(points),
        "equal": torch.equal(found["disk"], found["memory"]),
        "radius_ratio": radius["disk"] / radius["memory"],
    }


def add() -> Part:
    """Return the image AUROC on screw where half of the normals are added, and by a fit on all."""
    if not SCREW.is_dir():
        raise InputError(f"{SCREW} is missing; add is measured where it lies")
    paths = sorted((SCREW / "train/good").glob("*.png"))
    normals = [read_image(path) for path in paths]
    tested = sorted((SCREW / "test").glob("*/*.png"))
    images = [read_image(path) for path in tested]
    labels = np.array([path.parent.name != "good" for path in tested])
    rows = []
    with tempfile.TemporaryDirectory(dir="data") as folder:
        backbone = open_backbone(WEIGHTS / params().backbone, params())
        all_images = [*normals, *images]
        known = RememberedBackbone(backbone, all_images, len(all_images), Path(folder))
        for seed in SEEDS:
            resources = Resources([], WEIGHTS, Path(folder), seed, known)
            half = np.random.default_rng(seed).permutation(len(normals))
            first, second = ([normals[i] for i in part] for part in np.array_split(half, 2))
            detector = patchcore.fit(listed(first), params(), resources)
            scored = [roc_auc_score(labels, detector.score(images).image_scores)]
            detector.add(second)
            scored.append(roc_auc_score(labels, detector.score(images).image_scores))
            refit = patchcore.fit(listed([*first, *second]), params(), resources)
            scored.append(roc_auc_score(labels, refit.score(images).image_scores))
            rows.append(dict(zip(("half", "added", "refit"), scored, strict=True)))
            print(rows[-1], flush=True)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    spread = float(np.std([row["refit"] for row in rows], ddof=1))
    return {"seeds": rows, "mean": means, "refit_standard_deviation": spread}


def listed(images: list[np.ndarray]) -> Frames:
    """Name images by their numbers."""
    return Frames([*map(str, range(len(images)))], images)


PARTS = {"picks": picks, "add": add}


def measure(name: str) -> Part:
    """Measure one part in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        if subprocess.run([sys.executable, __file__, name, str(result)]).returncode:
            raise InputError(f"{name} failed; run it by hand")
        return json.loads(result.read_bytes())


def measure_one() -> None:
    """Measure the part that the command line names, into the file that it names."""
    name, result = sys.argv[1:]
    part = PARTS[name]() if name in PARTS else fit(int(name))
    write_json(Path(result), part)


def exponent(rows: list[Part], key: str) -> float | None:
    """Return the slope of `key` against the images on logarithmic axes."""
    rows = [row for row in rows if key in row]
    if len(rows) < 3:
        return None
    slope, _ = np.polyfit([math.log(row["images"]) for row in rows],
                          [math.log(row[key]) for row in rows], 1)  # fmt: skip
    return float(slope)


def picture(rows: list[Part], exponents: Part) -> None:
    """Draw seconds and memory against the images."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    images = [row["images"] for row in rows]
    for key in ("fit_seconds", "coreset_seconds"):
        slope = "" if exponents[key] is None else f", exponent {exponents[key]:.2f}"
        label = key.replace("_seconds", "") + slope
        axes[0].loglog(images, [row[key] for row in rows], "o-", label=label)
    axes[0].legend(fontsize=8)
    axes[0].set(xlabel="images at 320 pixels", ylabel="processor seconds")
    held_patches = [4 * row["patches"] * 152 / 1e9 for row in rows]
    known = [row for row in rows if "held_gb" in row]
    axes[1].loglog(
        [row["images"] for row in known], [row["held_gb"] for row in known], "o-",
        label="memory of the fit",
    )  # fmt: skip
    axes[1].loglog(images, [row["peak_gb"] for row in rows], "o:", label="with pages of its file")
    axes[1].loglog(images, held_patches, "o--", label="all patches")
    axes[1].legend(fontsize=8)
    axes[1].set(xlabel="images at 320 pixels", ylabel="GB")
    for axis in axes:
        axis.minorticks_off()
        axis.set_xticks(images, [f"{count:,}" for count in images], fontsize=7)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def main() -> None:
    """Measure the parts that are named, all by default, and write and draw what is there."""
    names = sys.argv[1:] or [*map(str, SIZES), *PARTS]
    known = json.loads(RESULT.read_bytes()) if RESULT.exists() else {"fits": {}}
    for name in names:
        part = measure(name)
        print(name, part, flush=True)
        if name in PARTS:
            known[name] = part
        else:
            known["fits"][name] = part
        rows = sorted(known["fits"].values(), key=lambda row: row["images"])
        bounded = [row for row in rows if row["bank"] == params().bank_patches]
        known["exponents"] = {
            key: exponent(bounded, key)
            for key in ("fit_seconds", "coreset_seconds", "held_gb", "peak_gb")
        }
        write_json(RESULT, known)
        picture(rows, known["exponents"])
    record([RESULT.name])


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[2].endswith(".json"):
        explained(measure_one)
    else:
        run(main)
