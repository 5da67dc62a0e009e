"""Which detectors tell the anomalous photos of aliens, by settings that stood before?

    python benchmarks/aliens.py ../shared/data

Writes benchmarks/aliens.json: image AUROC over seeds, fitted on four fifths of the normal photos
and tested on the others and on all anomalies, as benchmarks/screw/simplenet.py divides them. The
settings are the defaults of params.yaml, and those that docs/detectors.md names, which were chosen
on synthetic anomalies (benchmarks/screw) before this was first run.
"""

import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

sys.path.append("benchmarks/screw")
import simplenet as chosen
from clip_thresholds import Frames
from measured import record

from blackswan.data.images import read_image
from blackswan.detectors import dino_memory, gaussian_patches, padim, patchcore, simplenet
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.params import load_section

RESULT = Path("benchmarks/aliens.json")
WEIGHTS = Path("data/weights")
SEEDS = range(5)
DEFAULTS: dict[str, ModuleType] = {
    "padim": padim,
    "patchcore": patchcore,
    "dino_memory": dino_memory,
}
MORE: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "simplenet": (
        simplenet,
        chosen.SHARED | chosen.SETTINGS["2 hidden layers, noise 0.5"],
    ),
    "gaussian_patches": (
        gaussian_patches,
        {
            "backbone": "efficientnet_lite0", "layers": [2, 4], "image_size": 320, "tiles": 1,
            "neighborhood": 3, "components": 64, "regularization": 0.01, "top_fraction": 0.01,
            "smoothing": 0.018,
        },
    ),
}  # fmt: skip
ALL_REFERENCES = {
    "references": None, "bank_patches": 10_000, "image_size": 336, "top_fraction": 0.001,
}  # fmt: skip


def settings() -> dict[str, tuple[ModuleType, Any]]:
    """Return module and params of each detector."""
    found = {
        name: (module, load_section(module.Params, f"detectors.{name}"))
        for name, module in DEFAULTS.items()
    }
    found |= {name: (module, module.Params(**params)) for name, (module, params) in MORE.items()}
    every = found["dino_memory"][1].model_dump() | ALL_REFERENCES
    found["dino_memory, all references"] = dino_memory, dino_memory.Params(**every)
    return found


def main() -> None:
    """Fit and judge each setting by every seed; write the means."""
    if len(sys.argv) != 2:
        raise InputError("name the folder that holds folder/aliens: aliens.py PATH")
    source = chosen.aliens(Path(sys.argv[1]))
    normals, test = [*source.learnt, *source.held_out], [*map(read_image, source.test)]
    frames, labels = Frames([*map(str, range(len(normals)))], normals), np.array(source.labels)
    result = {"normal": int((~labels).sum()), "anomalous": int(labels.sum()), "image_auroc": {}}
    for name, (module, params) in settings().items():
        seeds = []
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                detector = module.fit(frames, params, Resources([], WEIGHTS, Path(folder), seed))
                scores = np.concatenate([detector.score([image]).image_scores for image in test])
            seeds.append(chosen.auroc(scores[~labels], scores[labels]))
        found = {
            "seeds": seeds,
            "mean": float(np.mean(seeds)),
            "standard_deviation": float(np.std(seeds, ddof=1)),
        }
        result["image_auroc"][name] = found
        print(name, found, flush=True)
    write_json(RESULT, result)
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
