"""The picture of the README: PatchCore finds what was pasted into a clip of a real black swan.

Runs the stages on the clip in a temporary folder, whose test frames set nothing, and draws the test
frame with the largest anomaly, whatever its score -> benchmarks/swan.jpg
`python benchmarks/swan.py blackswan.mp4` (DAVIS 2016; needs `dvc repro fetch_weights`)
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from blackswan.data.dataset import Split
from blackswan.data.images import decode_mask
from blackswan.errors import InputError, run
from blackswan.reporting.drawing import DPI
from blackswan.reporting.examples import read_examples
from blackswan.reporting.heatmaps import HeatmapScale
from blackswan.reporting.sheets import strip

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "data/weights"
PICTURE = ROOT / "benchmarks/swan.jpg"
WIDTH = 420  # pixels of one panel
STAGES = (
    ["extract_frames"], ["synthesize_anomalies"], ["label"], ["build_dataset"],
    ["fit_detector", "patchcore"], ["evaluate_detector", "patchcore"],
)  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {  # for two seconds of video, as in the README, uncropped
    "extract_frames": {"crop": "none", "size": None},
    "build_dataset": {"image_size": None},
    "split": {"train": 0.45, "validation": 0.3, "guard_seconds": 0.04},
    "synthesize_anomalies": {"generators": ["cut_paste"], "unseen": []},
    "evaluate": {"alpha": 0.1},
}


def params_of(clip: Path, params: dict[str, Any]) -> dict[str, Any]:
    """Return the params of the repository with the clip and CHANGES in them."""
    changed = copy.deepcopy(params)
    changed["source"]["path"] = str(clip.resolve())
    for block, values in CHANGES.items():
        changed[block] |= values
    return changed


def run_stages(folder: Path) -> None:
    """Run STAGES in `folder`, which has params.yaml and data/weights."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for name, *arguments in STAGES:
        command = [sys.executable, str(ROOT / "stages" / f"{name}.py"), *arguments]
        done = subprocess.run(command, cwd=folder, env=environment, check=False)
        if done.returncode:
            raise InputError(f"{name} ended with {done.returncode}; see what it says above")


def draw(folder: Path) -> Figure:
    """Draw the test frame with the largest anomaly."""
    scores = folder / "data/scores/patchcore"
    result = json.loads((folder / "metrics/detectors/patchcore.json").read_bytes())
    table = pd.read_parquet(scores / "scores.parquet")
    test = Split(folder / "data/dataset", "test")
    largest = max((row for row in test if row.mask), key=lambda row: decode_mask(row.mask).sum())
    chosen = table[table.path == largest.path]
    [example] = read_examples(chosen, test, scores / "maps.parquet")
    print(f"{largest.path}: {example.outcome}")
    return strip(example, HeatmapScale(**result["heatmap"]), WIDTH)


def main() -> None:
    """Run the pipeline on the clip and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path, help="blackswan.mp4 of DAVIS 2016")
    clip = parser.parse_args().clip
    if not WEIGHTS.exists():
        raise InputError(f"{WEIGHTS} is missing; run `dvc repro fetch_weights`")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        (folder / "data/weights").symlink_to(WEIGHTS, target_is_directory=True)
        changed = yaml.safe_dump(params_of(clip, params))
        (folder / "params.yaml").write_text(changed, encoding="utf-8")
        run_stages(folder)
        draw(folder).savefig(PICTURE, dpi=DPI, pil_kwargs={"quality": 88, "optimize": True})
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    run(main)
