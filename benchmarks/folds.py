"""How many folds do cross-conformal thresholds of photos take? Asked of normal photos alone.

    python benchmarks/folds.py      writes benchmarks/folds.json

A fit on a part of the photos may score what it has not seen higher than the fit on all scores new
photos; a threshold from such scores is too high. Of each source three quarters of the normal photos
are D, the last quarter is kept apart, three draws. `bias` is the mean score of D by the fits
without its folds over the mean score of what was kept apart by the fit on all of D: 1 is fair.
`recall` is that of patches pasted into what was kept apart, `rate` its false alarms. No test
image and no real anomaly is read. The photos lie in ../shared/data, the backbones in data/weights.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from clip_thresholds import Frames
from measured import record

from blackswan.data import synthesis
from blackswan.data.sources import opening
from blackswan.detectors.interface import Detector, Resources, load_module
from blackswan.detectors.patches import open_backbone
from blackswan.errors import InputError, run
from blackswan.evaluation import calibration
from blackswan.evaluation.thresholds import conformal_threshold
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import write_json
from blackswan.params import load_section
from blackswan.seeds import generator

RESULT = Path("benchmarks/folds.json")
WEIGHTS = Path("data/weights")
SHARED = Path("../shared/data")
SOURCES = {  # path, and what `extract_frames.folder` says of it
    "aliens": (SHARED / "folder/aliens", {}),
    "cookies": (SHARED / "lookout_cookies", {"annotations": "manifest.jsonl"}),
    "boards": (SHARED / "deeppcb", {"masks": "boxes"}),
    "screw": (SHARED / "mvtec/screw", {}),
}
DETECTORS = ["padim", "patchcore"]  # dino_memory draws as many references from any part
FOLDS = [5, 20]
ANOMALIES = ["salt_and_pepper", "perlin_texture"]
ALPHA = 0.1
MOST = 100  # photos of a source
DRAWS = 3


def read_normals(path: Path, named: dict[str, str]) -> Frames:
    """Return the first normal photos of a source, prepared as the pipeline does."""
    params = load_section(opening.Params, "extract_frames")
    folder = params.folder.model_copy(update=named)
    source = opening.open_source(path, params.model_copy(update={"folder": folder}))
    chosen = [
        item
        for item in source.images
        if item.frame.label == "normal" and item.frame.split != "test"
    ][:MOST]
    images = [source.preprocessing(item.read()[0]) for item in chosen]
    return Frames([item.frame.image for item in chosen], images)


def paste(photos: Frames, kind: str) -> Frames:
    """Paste anomalies of a kind into photos."""
    patch = load_section(synthesis.Params, "synthesize_anomalies.patch")
    pasted = [
        synthesis.synthesize(image, kind, patch, generator(0, f"{kind}/{path}"))
        for path, image in zip(photos.paths, photos, strict=True)
    ]
    return Frames(photos.paths, [made[0] for made in pasted if made])


def measure(name: str, photos: Frames, draw: int) -> dict[int, dict[str, Any]]:
    """Calibrate one detector on one draw of D by each number of folds."""
    order = generator(draw, "folds").permutation(len(photos))
    apart, learnt = (photos.take(np.sort(part)) for part in np.split(order, [len(order) // 4]))
    pasted = [paste(apart, kind) for kind in ANOMALIES]
    module = load_module(name)
    params = load_section(module.Params, f"detectors.{name}")
    with tempfile.TemporaryDirectory() as folder:
        every = [image for images in (learnt, apart, *pasted) for image in images]
        opened = open_backbone(WEIGHTS / params.backbone, params)
        known = RememberedBackbone(opened, every, len(every), Path(folder))
        resources = Resources(apart, WEIGHTS, Path(folder), 0, known)

        def scores(detector: Detector, images: Frames) -> np.ndarray:
            return calibration.scorer(detector, images)(np.arange(len(images)))[0]

        def fit(positions: np.ndarray) -> calibration.Scorer:
            detector = module.fit(learnt.take(positions), params, resources)
            return calibration.scorer(detector, learnt)

        final = module.fit(learnt, params, resources)
        normal, anomalous = scores(final, apart), [scores(final, images) for images in pasted]
        facts = pd.DataFrame({"path": learnt.paths, "source": "", "group": learnt.paths})
        facts["timestamp_s"] = np.nan
        rows = {}
        for folds in FOLDS:
            plan = calibration.deal(facts.group.to_numpy(), folds, draw)
            found = calibration.calibrate(facts, plan, fit).image_score.to_numpy()
            threshold = conformal_threshold(found, ALPHA)
            rows[folds] = {
                "bias": found.mean() / normal.mean(),
                "rate": (normal > threshold).mean(),
                "recall": np.mean([(part > threshold).mean() for part in anomalous]),
            }
    return rows


def main() -> None:
    """Measure every source and detector, and write the means over the draws."""
    if missing := [str(path) for path, _ in SOURCES.values() if not path.exists()]:
        raise InputError(f"{missing[0]} is missing; fetch ../shared/data")
    table: dict[str, Any] = {}
    for source, where in SOURCES.items():
        photos = read_normals(*where)
        table[source] = {"learnt_from": len(photos) - len(photos) // 4}
        for name in DETECTORS:
            draws = [measure(name, photos, draw) for draw in range(DRAWS)]
            table[source][name] = {
                str(folds): pd.DataFrame([draw[folds] for draw in draws]).mean().to_dict()
                for folds in FOLDS
            }
            for folds, row in table[source][name].items():
                print(source, name, folds, {key: round(value, 3) for key, value in row.items()})
    write_json(RESULT, {"alpha": ALPHA, "draws": DRAWS, "sources": table})
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
