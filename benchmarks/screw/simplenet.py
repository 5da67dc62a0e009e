"""How well does simplenet tell anomalies it never saw, and with how much noise should it learn?

    python benchmarks/screw/simplenet.py ../shared/data

On MVTec AD screw and on the photos of aliens, at 320 pixels, without a pipeline. The choice is made
without a test image: each setting is fitted on some of the normal images and ranks others, held
out, against copies of these with a patch of our own generators, small or large; the best in the
mean over sources, generators and sizes is the choice, and is written before a test image is
read. It is then fitted on all normals that are not for testing, over seeds, and judged on the test
images; so is PatchCore as it stands in params.yaml, with one seed. Screw comes with its
test; of the aliens the last fifth of the normals, in an order drawn by seed, tests beside all
anomalies. Writes benchmarks/screw/simplenet.json.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

sys.path.append("benchmarks")
from clip_thresholds import Frames
from gaussian_patches import with_patches
from measured import record

from blackswan.data.images import read_image
from blackswan.detectors import patchcore, simplenet
from blackswan.detectors.interface import Detector, Resources
from blackswan.errors import InputError, run
from blackswan.networks.backbones import load_backbone
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import write_json
from blackswan.params import Section, load_section
from blackswan.seeds import generator

RESULT = Path("benchmarks/screw/simplenet.json")
WEIGHTS = Path("data/weights")
SEEDS = range(5)
HELD_OUT = 32  # normals of screw that a choice is made on
SHARED = {
    "backbone": "efficientnet_lite0", "layers": [2, 4], "image_size": 320, "tiles": 1,
    "smoothing": 0.018, "neighborhood": 3, "hidden": 128, "steps": 1000, "learning_rate": 2e-3,
    "weight_decay": 1e-5, "top_fraction": 0.01,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    f"{layers} hidden layers, noise {noise}": {"hidden_layers": layers, "noise": noise}
    for layers, noise in ((1, 0.25), (2, 0.25), (2, 0.5), (3, 0.25))
}


@dataclass(frozen=True)
class Source:
    """Images of one kind: normals to learn from, others to choose on, and paths of a test."""

    learnt: list[np.ndarray]
    held_out: list[np.ndarray]
    test: list[Path]
    labels: list[bool]  # of the test: anomalous

    def test_images(self) -> list[np.ndarray]:
        """Read the images that decide nothing."""
        return [read_image(path) for path in self.test]


def screw(shared: Path) -> Source:
    """Divide screw."""
    root = shared / "mvtec/screw"
    normals = [read_image(path) for path in drawn(sorted((root / "train/good").glob("*.png")))]
    test = sorted((root / "test").glob("*/*.png"))
    labels = [path.parent.name != "good" for path in test]
    return Source(normals[HELD_OUT:], normals[:HELD_OUT], test, labels)


def aliens(shared: Path) -> Source:
    """Divide the photos of aliens, which come without a test."""
    root = shared / "folder/aliens"
    normals = drawn(sorted((root / "normal").iterdir()))
    anomalies = sorted((root / "anomaly").iterdir())
    fifth = len(normals) // 5
    images = [read_image(path) for path in normals[:-fifth]]
    labels = [False] * fifth + [True] * len(anomalies)
    return Source(images[fifth:], images[:fifth], [*normals[-fifth:], *anomalies], labels)


SOURCES = {"screw": screw, "aliens": aliens}


def drawn(paths: list[Path]) -> list[Path]:
    """Return the paths in an order of their own."""
    return [paths[i] for i in generator(0, "simplenet", "choice").permutation(len(paths))]


@contextmanager
def known(images: list[np.ndarray]) -> Iterator[RememberedBackbone]:
    """Open the backbone with the embeddings of the images at hand."""
    opened = load_backbone(WEIGHTS / SHARED["backbone"], SHARED["layers"], SHARED["image_size"])
    with tempfile.TemporaryDirectory(dir="data") as folder:
        yield RememberedBackbone(opened, images, len(images), Path(folder))


def fit(
    module: ModuleType,
    params: Section,
    images: list[np.ndarray],
    seed: int,
    backbone: RememberedBackbone,
) -> Detector:
    """Fit a detector."""
    with tempfile.TemporaryDirectory() as folder:
        resources = Resources([], WEIGHTS, Path(folder), seed, backbone)
        return module.fit(Frames([*map(str, range(len(images)))], images), params, resources)


def choose(source: Source) -> dict[str, dict[str, float]]:
    """Return how each setting tells normals that are held out from patched copies."""
    patched = with_patches(source.held_out)
    every = [
        *source.learnt,
        *source.held_out,
        *(copy for each in patched.values() for copy in each),
    ]
    found = {}
    with known(every) as backbone:
        for name, setting in SETTINGS.items():
            params = simplenet.Params(**SHARED, **setting)
            detector = fit(simplenet, params, source.learnt, 0, backbone)
            normal = detector.score(source.held_out).image_scores
            aurocs = {
                kind: auroc(normal, detector.score(copies).image_scores)
                for kind, copies in patched.items()
            }
            found[name] = aurocs | {"mean": float(np.mean([*aurocs.values()]))}
            print("synthetic", name, found[name], flush=True)
    return found


def judge(source: Source, choice: str) -> dict[str, Any]:
    """Return the image AUROC of the choice on the test images, by seeds, and of PatchCore."""
    normals, test = [*source.learnt, *source.held_out], source.test_images()
    labels = np.array(source.labels)
    with known([*normals, *test]) as backbone:

        def measured(module: ModuleType, params: Section, seed: int) -> float:
            scores = fit(module, params, normals, seed, backbone).score(test).image_scores
            return auroc(scores[~labels], scores[labels])

        params = simplenet.Params(**SHARED, **SETTINGS[choice])
        seeds = []
        for seed in SEEDS:
            seeds.append(measured(simplenet, params, seed))
            print("test", seed, seeds[-1], flush=True)
        reference = load_section(patchcore.Params, "detectors.patchcore")
        return {
            "seeds": seeds,
            "mean": float(np.mean(seeds)),
            "standard_deviation": float(np.std(seeds, ddof=1)),
            "patchcore": measured(patchcore, reference, 0),
        }


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Return how often an anomalous image scores higher."""
    labels = [0] * len(normal) + [1] * len(anomalous)
    return float(roc_auc_score(labels, [*normal, *anomalous]))


def main() -> None:
    """Choose on synthetic anomalies, write that down, then judge the choice on test images."""
    if len(sys.argv) != 2:
        raise InputError("name the folder of mvtec and folder: simplenet.py PATH")
    sources = {name: divide(Path(sys.argv[1])) for name, divide in SOURCES.items()}
    synthetic = {name: choose(source) for name, source in sources.items()}
    choice = max(
        SETTINGS, key=lambda setting: sum(found[setting]["mean"] for found in synthetic.values())
    )
    found: dict[str, Any] = {"choice": choice, "synthetic": synthetic}
    write_json(RESULT, found)
    write_json(RESULT, found | {"test": {name: judge(sources[name], choice) for name in sources}})
    record([str(RESULT.relative_to("benchmarks"))])


if __name__ == "__main__":
    run(main)
