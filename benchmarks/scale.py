"""What do more images cost: time, memory and disk of every stage, and a `dvc repro` of no change?

    python benchmarks/scale.py                                all of SIZES: twenty minutes
    python benchmarks/scale.py --images 100 200 400 --out X   smaller ones, into another folder

Writes benchmarks/scale.{json,png}. The photos are drawn, 64 pixels a side, no two alike, and every
stage runs as `dvc repro` runs it, from params.yaml less what depends on their size: the detectors
see 64 pixels too, and `bank_patches` is as much smaller as an image has fewer patches, so that
PatchCore's bank is full from 625 images on, as it is by default. train_vit and `dino_memory`,
which learns from 16 images whatever their number, are left out. Seconds are of the processor, of
all cores, start and imports included; those of the clock stand beside them, and for a `dvc repro`
that changes nothing they are what counts. An exponent is the slope on logarithmic axes, over all
sizes and between the last two, where the start counts least. Peaks below that of this script
itself, some 160 MB, are not told apart: a process takes over its parent's. What is there is written
after each size, and a size that is there is not measured again.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from measured import record
from pipeline import Cost, measure

from blackswan.data.images import write_png
from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.parallel import available_cores
from blackswan.reporting.charts import DASHES, PALETTE
from blackswan.reporting.drawing import STYLE

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
SIZES = [1000, 5000, 20_000]
SIDE = 64  # pixels
BANK_PATCHES = 400  # 625 images x 64 patches x coreset_ratio
REPETITIONS = 3  # of the `dvc repro` that changes nothing
BACKBONE = "efficientnet_lite0"
DETECTORS = ("padim", "patchcore")
JUDGED = ("median_residual", *DETECTORS)
Outputs = list[str]
STAGES: dict[str, tuple[list[str], Outputs]] = {  # name -> script with its arguments, outputs
    "extract_frames": (["extract_frames"], ["data/frames"]),
    "synthesize_anomalies": (["synthesize_anomalies"], ["data/anomalies"]),
    "label": (["label"], ["data/labels.csv"]),
    "build_dataset": (["build_dataset"], ["data/dataset"]),
    "fit_baseline": (["fit_baseline"], ["data/models/median_residual"]),
    **{f"fit {name}": (["fit_detector", name], [f"data/models/{name}"]) for name in DETECTORS},
    **{
        f"evaluate {name}": (
            ["evaluate_detector", name], [f"data/detectors/{name}", f"data/scores/{name}"]
        )
        for name in JUDGED
    },
    "compare": (["compare"], ["metrics/pictures", "metrics/report.html"]),
}  # fmt: skip
UNITS = {"seconds": "processor seconds", "peak_mb": "MB of memory at most", "disk_mb": "MB on disk"}


def draw(number: int) -> np.ndarray:
    """Return photo `number`, uint8 RGB (SIDE, SIDE, 3): a disc on clouds that never come again."""
    rng = np.random.default_rng([0, number])
    clouds = rng.normal(120, 40, (rng.integers(4, 12), rng.integers(4, 12), 3)).astype(np.float32)
    image = cv2.resize(clouds, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    centre = tuple(int(value) for value in rng.integers(SIDE // 3, 2 * SIDE // 3, 2))
    cv2.circle(image, centre, int(rng.integers(8, 16)), rng.uniform(40, 220, 3).tolist(), -1)
    image += rng.standard_normal(image.shape, np.float32) * 4
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def prepare(folder: Path, images: int) -> None:
    """Lay out the repository in `folder`, with that many photos as its source."""
    shutil.copytree(ROOT / "blackswan", folder / "blackswan")
    shutil.copytree(ROOT / "stages", folder / "stages")
    shutil.copytree(ROOT / "data/weights" / BACKBONE, folder / "data/weights" / BACKBONE)
    # Else DVC writes .gitignore files into folders that stages depend on, and they run again.
    tracked = [".dvcignore", ".gitignore", "data/.gitignore", "metrics/robustness.json"]
    (folder / "metrics").mkdir()
    for name in [*tracked, "data/corrections.csv", "data/ignore.json"]:
        shutil.copy(ROOT / name, folder / name)
    photos = folder / "data/raw/photos"
    photos.mkdir(parents=True)
    for number in range(images):
        write_png(photos / f"part-{number:05d}.png", draw(number))

    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["source"]["path"] = "data/raw/photos"
    params["extract_frames"]["size"] = params["build_dataset"]["image_size"] = SIDE
    size = {"backbone": BACKBONE, "image_size": SIDE}
    params["detectors"] = {name: params["detectors"][name] | size for name in DETECTORS}
    params["detectors"]["patchcore"]["bank_patches"] = BANK_PATCHES
    params["compare"]["references"] = {"median_residual": "learns nothing"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")

    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    pipeline["stages"]["fetch_weights"]["matrix"]["name"] = [BACKBONE]
    del pipeline["stages"]["train_vit"], pipeline["plots"], pipeline["artifacts"]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False), encoding="utf-8")
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def measure_stages(folder: Path) -> dict[str, dict[str, float]]:
    """Run every stage and return what each took."""
    taken = {}
    for name, ((script, *arguments), outputs) in STAGES.items():
        cost = measure([sys.executable, f"stages/{script}.py", *arguments], folder)
        taken[name] = entry(cost) | {"disk_mb": megabytes(folder, outputs)}
        print(f"  {name}: {taken[name]}", file=sys.stderr, flush=True)
    return taken


def measure_dvc(folder: Path) -> dict[str, dict[str, float]]:
    """Let DVC hash and keep everything, then find that nothing changed."""
    os.environ["DVC_SITE_CACHE_DIR"] = str(folder / ".dvc/site")  # else it outlives the folder
    commit = measure(["dvc", "commit", "--quiet", "--force", "--with-deps", "compare"], folder)
    costs = [measure(["dvc", "repro", "compare"], folder) for _ in range(REPETITIONS)]
    if any("Running stage" in cost.output for cost in costs):
        raise InputError(f"`dvc repro` computes what is there: {costs[0].output[-500:]}")
    repro = sorted(costs, key=lambda cost: cost.seconds)[REPETITIONS // 2]  # the median
    found = {
        "dvc commit": entry(commit) | {"disk_mb": megabytes(folder, [".dvc/cache"])},
        "dvc repro, no change": entry(repro),
    }
    print(f"  {found}", file=sys.stderr, flush=True)
    return found


def entry(cost: Cost) -> dict[str, float]:
    """Return what of a command's cost is written down."""
    return {
        "seconds": round(cost.processor_seconds, 2),
        "clock_seconds": round(cost.seconds, 2),
        "peak_mb": round(cost.peak_mb, 1),
    }


def megabytes(folder: Path, outputs: Outputs) -> float:
    """Return the size of some outputs, files or folders."""
    found = [each for out in outputs for each in (folder / out, *(folder / out).rglob("*"))]
    return round(sum(each.stat().st_size for each in found if each.is_file()) / 1e6, 3)


def exponents(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the slopes of every command's costs against the images on logarithmic axes."""
    images = [int(count) for count in rows]
    found: dict[str, dict[str, float]] = {}
    for name, first in next(iter(rows.values())).items():
        found[name] = {}
        for key in first:
            values = [row[name][key] for row in rows.values()]
            found[name][key] = slope(images, values)
            if key == "seconds":
                found[name]["seconds_at_the_end"] = slope(images[-2:], values[-2:])
    return found


def slope(images: list[int], values: list[float]) -> float:
    """Return the exponent that fits `values` best."""
    logarithms = [[math.log(each) for each in part] for part in (images, values)]
    return round(float(np.polyfit(*logarithms, 1)[0]), 3)


@rc_context(STYLE)
def picture(rows: Mapping[str, Mapping[str, Any]], slopes: Mapping[str, Any]) -> Figure:
    """Draw time, memory and disk of every command against the images."""
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    axes = figure.subplots(1, len(UNITS))
    images = [int(count) for count in rows]
    for number, name in enumerate(next(iter(rows.values()))):
        colour = PALETTE[number % len(PALETTE)]
        look = {"color": colour, "linestyle": DASHES[number // len(PALETTE)], "marker": "o"}
        label = f"{name} ({slopes[name]['seconds']:.2f}, {slopes[name]['seconds_at_the_end']:.2f})"
        for axis, key in zip(axes, UNITS, strict=True):
            if values := [row[name][key] for row in rows.values() if key in row[name]]:
                axis.loglog(images, values, label=label, **look)
    start = min(row["seconds"] for row in rows[str(images[0])].values())
    linear = [start * count / images[0] for count in images]
    axes[0].loglog(images, linear, color="#bbbbbb", linewidth=3, zorder=0, label="in proportion")
    for axis, unit in zip(axes, UNITS.values(), strict=True):
        axis.minorticks_off()
        axis.set_xticks(images, [f"{count:,}" for count in images])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set(xlabel=f"photos of {SIDE} pixels", ylabel=unit)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8,
        title="exponent of the seconds over all sizes, between the last two",
    )  # fmt: skip
    return figure


def main() -> None:
    """Measure all sizes; write, draw and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=Path, default=BENCHMARKS)
    chosen = parser.parse_args()
    if not (ROOT / "data/weights" / BACKBONE).exists():
        raise InputError(f"data/weights/{BACKBONE} is missing; run `dvc repro fetch_weights`")
    file = chosen.out / "scale.json"
    setting = {"cores": available_cores(), "pixels": SIDE, "bank_patches": BANK_PATCHES}
    result: dict[str, Any] = {"setting": setting, "photos": {}, "exponents": {}}
    if file.exists() and (known := json.loads(file.read_bytes()))["setting"] == setting:
        result = known
    rows = result["photos"]
    for images in sorted({*chosen.images} - {*map(int, rows)}):
        print(f"{images} photos", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=ROOT / "data") as folder:  # /tmp may be memory
            prepare(Path(folder), images)
            rows[str(images)] = measure_stages(Path(folder)) | measure_dvc(Path(folder))
        result["photos"] = rows = {str(count): rows[str(count)] for count in sorted(map(int, rows))}
        if len(rows) > 1:
            result["exponents"] = exponents(rows)
        write_json(file, result)
    if not (slopes := result["exponents"]):
        return
    picture(rows, slopes).savefig(chosen.out / "scale.png", dpi=100, metadata={"Software": None})
    if chosen.out == BENCHMARKS:
        record(["scale.json"])
    for name, found in slopes.items():
        seconds = " ".join(f"{row[name]['seconds']:9.1f}" for row in rows.values())
        peaks = " ".join(f"{row[name]['peak_mb']:7.0f}" for row in rows.values())
        exponent = f"{found['seconds']:.2f}, at the end {found['seconds_at_the_end']:.2f}"
        print(f"{name:24} {seconds} s, exponent {exponent};{peaks} MB")


if __name__ == "__main__":
    run(main)
