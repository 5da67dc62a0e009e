"""What PatchCore's defaults reach on MVTec AD screw over seeds, beside the paper's scoring.

    python benchmarks/screw/patchcore.py ../shared/data/mvtec/screw

The settings stood in params.yaml before the first run of this script: a patch scores the mean of
its 3 nearest distances, an image the mean of its highest 1 %, at 320 pixels. They come from a study
that had seen these test images among others, so this is no clean test of them. They are fitted on
all normal train images without a pipeline, and seeds move the first pick of the bank. Writes
benchmarks/screw/patchcore.json.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

sys.path.append("benchmarks")
from clip_thresholds import Frames
from measured import record

from blackswan.data.images import read_image
from blackswan.detectors.interface import Resources, load_module
from blackswan.detectors.patches import PatchParams
from blackswan.errors import InputError, run
from blackswan.networks.backbones import load_backbone
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import write_json
from blackswan.params import load_section

RESULT = Path("benchmarks/screw/patchcore.json")
WEIGHTS = Path("data/weights")
SEEDS = range(5)
SETTINGS = {
    "the defaults": {},
    "equation 7": {"neighbors": 1, "top_fraction": None},
    "224 pixels": {"image_size": 224},
}


def read(paths: list[Path]) -> Frames:
    """Read images under their names."""
    return Frames([path.as_posix() for path in paths], [read_image(path) for path in paths])


def screws(root: Path) -> tuple[Frames, Frames, list[bool]]:
    """Return the normal train images, the test images, and which of these show a defect."""
    tested = sorted((root / "test").glob("*/*.png"))
    labels = [path.parent.name != "good" for path in tested]
    return read(sorted((root / "train/good").glob("*.png"))), read(tested), labels


def measure(
    name: str, normals: Frames, test: Frames, labels: list[bool], params: PatchParams
) -> dict[str, object]:
    """Return the image AUROC by seed, its mean and its standard deviation."""
    opened = load_backbone(WEIGHTS / params.backbone, params.layers, params.image_size)
    every, aurocs = [*normals, *test], []
    with tempfile.TemporaryDirectory(dir="data") as folder:
        known = RememberedBackbone(opened, every, len(every), Path(folder))
        for seed in SEEDS:
            resources = Resources([], WEIGHTS, Path(folder), seed, known)
            detector = load_module(name).fit(normals, params, resources)
            scores = detector.score(test.images).image_scores
            aurocs.append(float(roc_auc_score(labels, scores)))
    deviation = float(np.std(aurocs, ddof=1))
    return {"seeds": aurocs, "mean": float(np.mean(aurocs)), "standard_deviation": deviation}


def main() -> None:
    """Measure every setting and write what came out."""
    if len(sys.argv) != 2:
        raise InputError("name the folder of screw: patchcore.py PATH")
    normals, test, labels = screws(Path(sys.argv[1]))
    params = load_section(load_module("patchcore").Params, "detectors.patchcore")
    found = {}
    for name, changes in SETTINGS.items():
        changed = type(params)(**params.model_dump() | changes)
        found[name] = measure("patchcore", normals, test, labels, changed)
        print(name, found[name], flush=True)
        write_json(RESULT, found)
    record([str(RESULT.relative_to("benchmarks"))])


if __name__ == "__main__":
    run(main)
