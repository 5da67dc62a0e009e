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
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

sys.path.append("benchmarks")
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
    "256 components": (gaussian_patches, [2, 4], {"components": 256}),
    "1 component, layer 3 too": (gaussian_patches, [2, 3, 4], {"components": 1}),
    "64 components, layer 3 too": (gaussian_patches, [2, 3, 4], {"components": 64}),
    "1 component, layer 6 too": (gaussian_patches, [2, 4, 6], {"components": 1}),
    "patchcore": (patchcore, [2, 4], {}),
}
SHARED = {
    gaussian_patches: {"regularization": 0.01, "top_fraction": 0.01},
    patchcore: {
        "features": None, "projection": "sparse", "coreset_ratio": 0.01, "bank_patches": None,
        "neighbors": 9,
    },
}  # fmt: skip


class Listed(list[np.ndarray]):
    """Images that know their names."""

    @property
    def paths(self) -> list[str]:
        """Name the images."""
        return [f"{number}.png" for number in range(len(self))]


def fit(name: str, images: Sequence[np.ndarray], seed: int, backbone: Any) -> Detector:  # noqa: ANN401
    """Fit the setting `name`."""
    module, layers, options = SETTINGS[name]
    params = module.Params(
        backbone=BACKBONE, layers=layers, image_size=SIDE, tiles=1, smoothing=0.018,
        neighborhood=3, **SHARED[module], **options,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        resources = Resources([], WEIGHTS, Path(folder), seed, backbone)
        return module.fit(Listed(images), params, resources)


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


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Return the share of pairs that are ranked right; ties count half."""
    wins, ties = anomalous[:, None] > normal, anomalous[:, None] == normal
    return float(wins.mean() + ties.mean() / 2)


def main() -> None:
    """Choose on synthetic anomalies, then judge all settings on the test images."""
    if len(sys.argv) != 2:
        raise InputError("name the folder of screw: gaussian_patches.py PATH")
    root = Path(sys.argv[1])
    normals = [read_image(path) for path in sorted((root / "train/good").glob("*.png"))]
    tested = sorted((root / "test").glob("*/*.png"))
    test = [read_image(path) for path in tested]
    good = np.array([path.parent.name == "good" for path in tested])
    order = generator(0, "gaussian_patches", "choice").permutation(len(normals))
    learnt, held_out = ([normals[i] for i in part] for part in np.split(order, [LEARNT]))
    patched = with_patches(held_out)

    chosen: dict[str, Any] = {}
    judged: dict[str, Any] = {}
    for layers in ([2, 4], [2, 3, 4], [2, 4, 6]):
        names = [name for name, setting in SETTINGS.items() if setting[1] == layers]
        images = [*normals, *test, *(copy for copies in patched.values() for copy in copies)]
        with tempfile.TemporaryDirectory(dir="data") as folder:
            backbone = RememberedBackbone(
                load_backbone(WEIGHTS / BACKBONE, layers, SIDE), images, len(images), Path(folder)
            )
            for name in names:
                detector = fit(name, learnt, 0, backbone)
                normal = detector.score(held_out).image_scores
                chosen[name] = {
                    kind: auroc(normal, detector.score(copies).image_scores)
                    for kind, copies in patched.items()
                }
                chosen[name]["mean"] = float(np.mean([*chosen[name].values()]))
                print("synthetic", name, chosen[name], flush=True)
                seeds, seconds = [], []
                for seed in SEEDS:
                    begin = time.process_time()
                    detector = fit(name, normals, seed, backbone)
                    seconds.append(time.process_time() - begin)
                    scores = detector.score(test).image_scores
                    seeds.append(auroc(scores[good], scores[~good]))
                    if SETTINGS[name][2].get("components") == 1:
                        break  # no draw in it
                judged[name] = {
                    "seeds": seeds,
                    "mean": float(np.mean(seeds)),
                    "standard_deviation": float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None,
                    "fit_seconds": round(min(seconds), 1),
                }
                print("test", name, judged[name], flush=True)
                ours = [name for name in chosen if name != "patchcore"]
                choice = max(ours, key=lambda name: chosen[name]["mean"])
                write_json(RESULT, {"choice": choice, "synthetic": chosen, "test": judged})
    record([str(RESULT.relative_to("benchmarks"))])


if __name__ == "__main__":
    run(main)
