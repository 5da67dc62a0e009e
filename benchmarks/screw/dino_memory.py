"""What do more references, their variants and larger images give dino_memory on MVTec AD screw?

    python benchmarks/screw/dino_memory.py ../shared/data/mvtec/screw

The choice is made without a test image: each setting is fitted on 64 normal train images and ranks
20 others against copies of them into which our own generators put a patch, small or large; the best
in the mean over generators and sizes is the choice. It is then fitted on all train images and, as
the defaults, judged on the test images, which decide nothing, over seeds: they move the first pick
of a coreset and draw the references of the defaults. Every image passes the backbone once a size.
Writes benchmarks/screw/dino_memory.json.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from gaussian_patches import with_patches
from sklearn.metrics import roc_auc_score
from torch import Tensor

sys.path.append("benchmarks")
from clip_thresholds import Frames
from measured import record

from blackswan.data.images import read_image
from blackswan.detectors import dino_memory
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError, run
from blackswan.networks.backbones import Backbone, load_backbone
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import write_json
from blackswan.params import load_section
from blackswan.seeds import generator

RESULT = Path("benchmarks/screw/dino_memory.json")
WEIGHTS = Path("data/weights")
LAYERS = [*range(4, 13)]  # remembered of each image
LEARNT, HELD_OUT = 64, 20  # normals of the choice
SEEDS = range(5)
ALL = {"references": None, "bank_patches": 10000}
HIGHEST = {"image_size": 336, "top_fraction": 0.001}
SETTINGS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "all references": ALL,
    "all, the final norm": ALL | {"final_norm": True},
    "all, 336 pixels": ALL | {"image_size": 336},
    "all, 336 pixels, the highest patch": ALL | HIGHEST,
    "all, 336 pixels, the highest patch, a bank for each layer": ALL | HIGHEST | {"fusion": "maps"},
    "all, 336 pixels, the highest patch, the mask": ALL | HIGHEST | {"mask": "pca"},
    "16 in 8 rotations, 336 pixels, the highest patch": HIGHEST | {"rotations": 8},
    "all, 448 pixels, the highest patch": ALL | HIGHEST | {"image_size": 448},
}
# On top of a setting: its references once more, darker and brighter, as SuperADD has them.
BRIGHTNESS = {
    f"{name}, brightness": name
    for name in ("all, 336 pixels, the highest patch", "all, 448 pixels, the highest patch")
}
FACTORS = (0.8, 1.2)


def of(name: str) -> dino_memory.Params:
    """Return the params of the setting `name`."""
    defaults = load_section(dino_memory.Params, "detectors.dino_memory")
    return dino_memory.Params(**defaults.model_dump() | SETTINGS[BRIGHTNESS.get(name, name)])


def variants(name: str, references: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return what the setting `name` learns from, given normal images."""
    factors = FACTORS if name in BRIGHTNESS else ()
    scaled = [cv2.convertScaleAbs(image, alpha=each) for each in factors for image in references]
    return [*references, *scaled]


class Chosen(Backbone):
    """Some layers of a backbone that remembers more."""

    def __init__(self, known: Backbone, layers: Sequence[int]) -> None:
        self.__dict__.update(vars(known))
        self._known, self._places = known, [known.layers.index(layer) for layer in layers]
        self.layers = list(layers)
        self.channels = [known.channels[place] for place in self._places]
        self.grids = [known.grids[place] for place in self._places]

    def embed(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Return one float32 tensor (N, C, h, w) per layer."""
        every = self._known.embed(images)
        return [every[place] for place in self._places]


def score(
    name: str, learnt: Sequence[np.ndarray], asked: list[np.ndarray], seed: int, known: Backbone
) -> np.ndarray:
    """Return the image scores of the setting `name`, fitted on some images."""
    params = of(name)
    with tempfile.TemporaryDirectory(dir="data") as folder:
        resources = Resources([], WEIGHTS, Path(folder), seed, Chosen(known, params.layers))
        images = variants(name, learnt)
        frames = Frames([*map(str, range(len(images)))], images)
        return dino_memory.fit(frames, params, resources).score(asked).image_scores


def synthetic(normals: list[np.ndarray]) -> dict[str, Any]:
    """Return how each setting, fitted on some normals, tells others from their patched copies."""
    order = generator(0, "dino_memory", "choice").permutation(len(normals))[: LEARNT + HELD_OUT]
    references, asked = ([normals[i] for i in part] for part in np.split(order, [LEARNT]))
    patched = with_patches(asked)
    copies = [image for images in patched.values() for image in images]
    found: dict[str, Any] = {}
    every = [*SETTINGS, *BRIGHTNESS]
    for side in sorted({of(name).image_size for name in every}):
        with remembered([*references, *asked, *copies], side) as known:
            for name in (name for name in every if of(name).image_size == side):
                scores = np.split(
                    score(name, references, [*asked, *copies], 0, known),
                    np.cumsum([len(asked), *map(len, patched.values())])[:-1],
                )
                found[name] = {
                    kind: auroc(scores[0], anomalous)
                    for kind, anomalous in zip(patched, scores[1:], strict=True)
                }
                found[name]["mean"] = float(np.mean([*found[name].values()]))
                print("synthetic", name, found[name], flush=True)
    return found


def judged(normals: list[np.ndarray], root: Path, names: list[str]) -> dict[str, Any]:
    """Return the image AUROC of some settings on the test images, by seeds."""
    tested = sorted((root / "test").glob("*/*.png"))
    test = [read_image(path) for path in tested]
    good = np.array([path.parent.name == "good" for path in tested])
    found: dict[str, Any] = {}
    for name in names:
        every = [*variants(name, normals), *test] if of(name).references is None else test
        with remembered(every, of(name).image_size) as known:
            scores = [score(name, normals, test, seed, known) for seed in SEEDS]
        seeds = [auroc(each[good], each[~good]) for each in scores]
        deviation = float(np.std(seeds, ddof=1))
        found[name] = {
            "seeds": seeds, "mean": float(np.mean(seeds)), "standard_deviation": deviation,
        }  # fmt: skip
        print("test", name, found[name], flush=True)
    return found


@contextmanager
def remembered(images: list[np.ndarray], side: tuple[int, int]) -> Iterator[Backbone]:
    """Open the backbone of the settings with LAYERS, which knows the images."""
    with tempfile.TemporaryDirectory(dir="data") as folder:
        opened = load_backbone(WEIGHTS / of("the defaults").backbone, LAYERS, side)
        yield RememberedBackbone(opened, images, len(images), Path(folder))


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Return how well scores tell the two apart."""
    labels = [0] * len(normal) + [1] * len(anomalous)
    return float(roc_auc_score(labels, [*normal, *anomalous]))


def main() -> None:
    """Choose on synthetic anomalies, write that down, then judge choice and defaults on test."""
    if len(sys.argv) != 2:
        raise InputError("name the folder of screw: dino_memory.py PATH")
    root = Path(sys.argv[1])
    normals = [read_image(path) for path in sorted((root / "train/good").glob("*.png"))]
    result: dict[str, Any] = {"synthetic": synthetic(normals)}
    best = max(result["synthetic"], key=lambda name: result["synthetic"][name]["mean"])
    result["choice"] = best
    write_json(RESULT, result)
    result["test"] = judged(normals, root, ["the defaults", best])
    write_json(RESULT, result)
    record([str(RESULT.relative_to("benchmarks"))])


if __name__ == "__main__":
    run(main)
