"""How soon is a drift found, how often is one reported where there is none, what does it cost?

    python benchmarks/drift.py detection          drifts of three sources found, and none
    python benchmarks/drift.py recalibration      thresholds of screws set anew

Writes benchmarks/drift.json; without arguments both.

Normal images of three sources are dealt at random: some fit PaDiM, the others are the pool. Half
of the pool, drawn anew each time, are the held-out images; of the other half, drifted or not, up to
50 are a window, and all a stream, no image twice, in which a drift is to be found by the 50th.
Frames of the clip, dealt at random, are exchangeable here, which those of a camera are not. The
level of a window test is 0.05, and the CUSUM may report once in 1,000 images. Then detectors on
screws, whose threshold is set anew by 50 drifted normal images, or whose scores are moved by the
median of the first 20. Detectors see 112 pixels. The sources besides the sample clip lie in
../shared/data.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from clip_thresholds import Frames
from measured import record
from tqdm import tqdm

from blackswan.data.dataset import Split
from blackswan.data.files import list_images
from blackswan.data.images import crop_and_resize, read_image
from blackswan.detectors.interface import Detector, Resources, load_module
from blackswan.drift.corruptions import NAMES, corrupt
from blackswan.drift.detection import WINDOW_TESTS, Cusum, reports, strangeness
from blackswan.drift.embedding import describe
from blackswan.drift.recalibration import rate, recentred
from blackswan.errors import InputError, run
from blackswan.evaluation.intervals import exact_bounds
from blackswan.evaluation.thresholds import conformal_threshold
from blackswan.outputs import write_json
from blackswan.params import load_section
from blackswan.seeds import generator

RESULT = Path("benchmarks/drift.json")
DATASET, WEIGHTS = Path("data/dataset"), Path("data/weights")
SHARED = Path("../shared/data")
SCREW = SHARED / "mvtec/screw"
FITTED = {"sample clip": 40, "screw": 80, "aliens": 14}  # images that PaDiM learns from
POOL = 240  # images at most
SIDE = 112  # pixels that a detector sees: half the default, for there are many images
SEVERITIES = (1, 3, 5)
LEVEL, PER_REPORT, WINDOW = 0.05, 1000, 50
DRAWS, DRAWS_OF_DRIFT = 500, 20
ALPHA, CALIBRATING, CONFIRMED, WARM_UP = 0.05, 60, 50, 20
RECALIBRATED = {
    "padim": ["exposure", "defocus", "sensor_noise"],
    "patchcore": ["exposure"],
}
SEED = 0


def read_folder(folder: Path) -> list[np.ndarray]:
    """Read photos at 224 pixels."""
    return [crop_and_resize(read_image(path), "none", (224, 224)) for path in list_images(folder)]


def read_sources() -> dict[str, list[np.ndarray]]:
    """Return the normal images of each source, dealt at random."""
    clip = [image for name in ("train", "validation", "test")
            for image in Split(DATASET, name).normal_images]  # fmt: skip
    found = {
        "sample clip": clip,
        "screw": read_folder(SCREW / "train/good"),
        "aliens": read_folder(SHARED / "folder/aliens/normal"),
    }
    return {
        name: [images[i] for i in generator(SEED, name).permutation(len(images))]
        for name, images in found.items()
    }


def fit(name: str, images: Sequence[np.ndarray]) -> Detector:
    """Fit a detector by the settings of params.yaml."""
    module = load_module(name)
    params = load_section(module.Params, f"detectors.{name}")
    params = params.model_copy(update={"image_size": (SIDE, SIDE)})
    frames = Frames([str(number) for number in range(len(images))], list(images))
    fitted: Detector = module.fit(frames, params, Resources(frames, WEIGHTS, Path(), SEED))
    return fitted


def watch(calibration: np.ndarray, stream: np.ndarray, usual: np.ndarray, seed: int) -> list[int]:
    """Return where the CUSUM reports; strange are the score and the distance from `usual`."""
    strange = [
        np.column_stack([rows[:, 0], strangeness(rows[:, 1:], usual)])
        for rows in (calibration, stream)
    ]
    return reports(Cusum(strange[0], PER_REPORT, seed), strange[1])


def measure(name: str, images: list[np.ndarray]) -> dict[str, Any]:
    """Return level, power and delay of all drift detectors on one source."""
    learnt, pool = images[: FITTED[name]], images[FITTED[name] :][:POOL]
    detector = fit("padim", learnt)
    usual = describe(detector, learnt)[:, 1:]
    still = describe(detector, pool)
    half = len(pool) // 2
    rng = generator(SEED, f"draws {name}")

    def drawn(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order = rng.permutation(len(still))
        stream = rows[order[half:]]
        return still[order[:half]], stream[:WINDOW], stream

    false = dict.fromkeys([*WINDOW_TESTS, "cusum"], 0)
    for number in tqdm(range(DRAWS), desc=f"{name}, no drift", disable=None):
        held_out, window, stream = drawn(still)
        for key, test in WINDOW_TESTS.items():
            false[key] += test(held_out, window, rng) <= LEVEL
        false["cusum"] += len(watch(held_out, stream, usual, number))
    power: dict[str, Any] = {}
    for drift in tqdm(NAMES, desc=f"{name}, drifts", disable=None):
        for severity in SEVERITIES:
            moved = describe(detector, [corrupt(image, drift, severity, SEED) for image in pool])
            found: dict[str, list[float]] = {key: [] for key in WINDOW_TESTS}
            delays = []
            for number in range(DRAWS_OF_DRIFT):
                held_out, window, _ = drawn(moved)
                for key, test in WINDOW_TESTS.items():
                    found[key].append(test(held_out, window, rng) <= LEVEL)
                delays += [at[0] + 1 for at in [watch(held_out, window, usual, number)] if at]
            power.setdefault(drift, {})[str(severity)] = {
                **{key: float(np.mean(values)) for key, values in found.items()},
                "cusum": len(delays) / DRAWS_OF_DRIFT,
                "cusum_delay": float(np.median(delays)) if delays else None,
            }
    cusum = false.pop("cusum")
    return {
        "fitted": len(learnt), "held_out": half, "window": min(WINDOW, len(pool) - half),
        "stream": len(pool) - half,
        "false_alarms": {
            key: dict(zip(("rate", "low", "high"),
                          (count / DRAWS, *exact_bounds(count / DRAWS, DRAWS)), strict=True))
            for key, count in false.items()
        },
        "cusum_reports_per_1000": 1000 * cusum / (DRAWS * (len(pool) - half)),
        "power": power,
        "missed_at_3": {
            key: [drift for drift in NAMES if power[drift]["3"][key] < 0.95]
            for key in [*WINDOW_TESTS, "cusum"]
        },
    }  # fmt: skip


def recalibrate(name: str, screws: list[np.ndarray]) -> dict[str, Any]:
    """Return false alarms and recall on screws before and after, at severity 3 of some drifts."""
    count = FITTED["screw"]
    detector = fit(name, screws[:count])
    held_out, confirmed, rest = np.split(
        np.arange(count, len(screws)), [CALIBRATING, CALIBRATING + CONFIRMED]
    )
    normal = [screws[i] for i in rest] + read_folder(SCREW / "test/good")
    flawed = [
        image for folder in sorted((SCREW / "test").iterdir()) if folder.name != "good"
        for image in read_folder(folder)
    ]  # fmt: skip

    def score(images: Sequence[np.ndarray], drift: str = NAMES[0], severity: int = 0) -> np.ndarray:
        parts = [detector.score([corrupt(image, drift, severity, SEED)]) for image in images]
        return np.concatenate([part.image_scores for part in parts]).astype(float)

    before = score([screws[i] for i in held_out])
    threshold = conformal_threshold(before, ALPHA)

    def rates(good: np.ndarray, bad: np.ndarray, limit: float) -> dict[str, Any]:
        return {"false_alarms": rate(good > limit), "recall": rate(bad > limit)}

    found: dict[str, Any] = {"no drift": rates(score(normal), score(flawed), threshold)}
    for drift in tqdm(RECALIBRATED[name], desc=f"{name} recalibrated", disable=None):
        good, bad = score(normal, drift, 3), score(flawed, drift, 3)
        new = score([screws[i] for i in confirmed], drift, 3)
        shift = recentred(new, WARM_UP, before)[0] - new[0]
        found[drift] = {
            "before": rates(good, bad, threshold),
            "recalibrated": rates(good, bad, conformal_threshold(new, ALPHA)),
            "recentred": rates(good + shift, bad + shift, threshold),
        }
    return {"normal": len(normal), "anomalous": len(flawed), "severity_3": found}


def main() -> None:
    """Measure on every source and write what came out."""
    for path in (DATASET, SCREW, SHARED / "folder/aliens"):
        if not path.exists():
            raise InputError(f"{path} is missing; run `make repro` and fetch ../shared/data")
    sources = read_sources()
    found = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    parts = sys.argv[1:] or ["recalibration", "detection"]
    if "recalibration" in parts:
        found["recalibration"] = {
            name: recalibrate(name, sources["screw"]) for name in RECALIBRATED
        }
    if "detection" in parts:
        found["detection"] = {name: measure(name, images) for name, images in sources.items()}
    write_json(RESULT, found)
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
