"""Do more Gaussians, or more layers, help gaussian_patches on MVTec AD screw?

    python benchmarks/screw/gaussian_patches.py ../shared/data/mvtec/screw

At 320 pixels, without a pipeline. The choice is made without a test image: each setting is fitted
on 256 of the normal train images and ranks the other 64 against copies of them into which our own
generators put a patch on the screw, small or large; the best in the mean over generators and sizes
is the choice. All settings are then fitted on all train images, over seeds that move k-means, and
judged on the test images, which decide nothing. PatchCore with its layers stands beside.
Writes benchmarks/screw/gaussian_patches.json.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

sys.path.append("benchmarks")
from clip_thresholds import Frames
from measured import record

from blackswan.data import synthesis
from blackswan.data.images import read_image
from blackswan.detectors import gaussian_patches, patchcore
from blackswan.detectors.interface import Detector, Resources
from blackswan.errors import InputError, run
from blackswan.networks.backbones import load_backbone
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import write_json
from blackswan.seeds import generator

RESULT = Path("benchmarks/screw/gaussian_patches.json")
WEIGHTS = Path("data/weights")
BACKBONE, SIDE = "efficientnet_lite0", 320
LEARNT = 256  # normals that a choice is fitted on
SEEDS = range(5)
GENERATORS: list[synthesis.GeneratorName] = ["cut_paste", "gaussian_blur"]
RADII = {"small": (0.015, 0.04), "large": (0.04, 0.1)}  # of the shorter side
SETTINGS: dict[str, tuple[ModuleType, list[int], dict[str, Any]]] = {
    "1 component": (gaussian_patches, [2, 4], {"components": 1}),
    "16 components": (gaussian_patches, [2, 4], {"components": 16}),
    "64 components": (gaussian_patches, [2, 4], {"components": 64}),
    "1 component, layer 3 too": (gaussian_patches, [2, 3, 4], {"components": 1}),
    "1 component, layer 6 too": (gaussian_patches, [2, 4, 6], {"components": 1}),
    "patchcore": (patchcore, [2, 4], {}),
}
SHARED = {
    gaussian_patches: {"regularization": 0.01, "top_fraction": 0.01},
    patchcore: {
        "features": None, "projection": "sparse", "coreset_ratio": 0.01, "bank_patches": None,
        "neighbors": 1, "top_fraction": None, "reweighting": 9,
    },
}  # fmt: skip


def fit(name: str, images: list[np.ndarray], seed: int, backbone: RememberedBackbone) -> Detector:
    """Fit the setting `name`."""
    module, layers, options = SETTINGS[name]
    params = module.Params(
        backbone=BACKBONE, layers=layers, image_size=SIDE, tiles=1, smoothing=0.018,
        neighborhood=3, **SHARED[module], **options,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        resources = Resources([], WEIGHTS, Path(folder), seed, backbone)
        return module.fit(Frames([*map(str, range(len(images)))], images), params, resources)


def with_patches(images: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Return copies with a patch at least half of which lies on the screw, which is dark."""
    made: dict[str, list[np.ndarray]] = {}
    for kind in GENERATORS:
        for size, (least, most) in RADII.items():
            params = synthesis.Params(
                patches_min=1, patches_max=1, radius_min=least, radius_max=most, vertices_min=5,
                vertices_max=12, irregularity=0.5, noise_ratio=0.5, salt_ratio=0.5,
            )  # fmt: skip
            copies = made.setdefault(f"{kind}, {size}", [])
            for number, image in enumerate(images):
                rng = generator(0, kind, size, str(number))
                grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
                dark = grey < cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)[0]
                for _ in range(300):
                    drawn = synthesis.synthesize(image, kind, params, rng)
                    if drawn is not None and dark[drawn[1]].mean() >= 0.5:
                        copies.append(drawn[0])
                        break
    return made


def choose(normals: list[np.ndarray]) -> dict[str, Any]:
    """Return how each setting, fitted on some normals, tells the others from patched copies."""
    order = generator(0, "gaussian_patches", "choice").permutation(len(normals))
    learnt, held_out = ([normals[i] for i in part] for part in np.split(order, [LEARNT]))
    patched = with_patches(held_out)
    every = [*normals, *(copy for copies in patched.values() for copy in copies)]
    found: dict[str, Any] = {}
    for names, backbone in by_layers(every):
        for name in names:
            detector = fit(name, learnt, 0, backbone)
            found[name] = {
                kind: roc_auc_score(
                    [0] * len(held_out) + [1] * len(copies),
                    detector.score([*held_out, *copies]).image_scores,
                )
                for kind, copies in patched.items()
            }
            found[name]["mean"] = float(np.mean([*found[name].values()]))
            print("synthetic", name, found[name], flush=True)
    return found


def judge(normals: list[np.ndarray], root: Path) -> dict[str, Any]:
    """Return the image AUROC of each setting on the test images, by seeds."""
    tested = sorted((root / "test").glob("*/*.png"))
    test = [read_image(path) for path in tested]
    labels = [path.parent.name != "good" for path in tested]
    found: dict[str, Any] = {}
    for names, backbone in by_layers([*normals, *test]):
        for name in names:
            drawn = SETTINGS[name][2].get("components") != 1  # one Gaussian draws nothing
            seeds = []
            for seed in SEEDS if drawn else SEEDS[:1]:
                scores = fit(name, normals, seed, backbone).score(test).image_scores
                seeds.append(roc_auc_score(labels, scores))
            deviation = float(np.std(seeds, ddof=1)) if drawn else None
            mean = float(np.mean(seeds))
            found[name] = {"seeds": seeds, "mean": mean, "standard_deviation": deviation}
            print("test", name, found[name], flush=True)
    return found


def by_layers(images: list[np.ndarray]) -> Iterator[tuple[list[str], RememberedBackbone]]:
    """Yield the settings that share layers, and a backbone that knows the images."""
    for layers in ([2, 4], [2, 3, 4], [2, 4, 6]):
        with tempfile.TemporaryDirectory(dir="data") as folder:
            opened = load_backbone(WEIGHTS / BACKBONE, layers, SIDE)
            known = RememberedBackbone(opened, images, len(images), Path(folder))
            yield [name for name, setting in SETTINGS.items() if setting[1] == layers], known


def main() -> None:
    """Choose on synthetic anomalies, write that down, then judge all settings on test images."""
    if len(sys.argv) != 2:
        raise InputError("name the folder of screw: gaussian_patches.py PATH")
    root = Path(sys.argv[1])
    normals = [read_image(path) for path in sorted((root / "train/good").glob("*.png"))]
    synthetic = choose(normals)
    ours = [name for name in synthetic if name != "patchcore"]
    choice = max(ours, key=lambda name: synthetic[name]["mean"])
    write_json(RESULT, {"choice": choice, "synthetic": synthetic})
    write_json(RESULT, {"choice": choice, "synthetic": synthetic, "test": judge(normals, root)})
    record([str(RESULT.relative_to("benchmarks"))])


if __name__ == "__main__":
    run(main)
