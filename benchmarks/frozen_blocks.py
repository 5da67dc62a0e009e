"""How many blocks of the ViT should stay as they are? Chosen without a test image.

    PYTHONPATH=stages python benchmarks/frozen_blocks.py      writes benchmarks/frozen_blocks.json

The stages prepare the data of three sources; the ViT trains on salt and pepper with half or more of
its 12 blocks frozen, and ranks the normal images of the validation split against copies of them
into which the generators that it never saw paste anomalies. Written down before the first run: the
choice is the number with the highest image AUROC, in the mean over seeds, generators and sources,
and of numbers within .01 of it the largest, which trains fastest. The sample clip, which takes
longest, runs with one seed. A design with none and four frozen, too, was stopped for its time
before it had scored anything. The sources besides the sample lie in ../shared/data, the weights in
data/weights.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from measured import record
from sklearn.metrics import roc_auc_score
from train_vit import DATASET, WEIGHTS, Params, train
from transformers import set_seed

from blackswan.data import synthesis
from blackswan.data.dataset import Split
from blackswan.data.images import decode_image
from blackswan.detectors import vit
from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.parallel import available_cores
from blackswan.params import load_section
from blackswan.seeds import generator

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks/frozen_blocks.json"
SHARED = (ROOT / "../shared/data").resolve()
SOURCES: dict[str, tuple[Path, dict[str, Any], list[int]]] = {  # path, params of `split`, seeds
    "blackswan.mp4": (
        SHARED / "video/blackswan.mp4",
        {"train": 0.45, "validation": 0.3, "guard_seconds": 0.04},
        [0, 1],
    ),
    "aliens": (SHARED / "folder/aliens", {}, [0, 1]),
    "sample.mp4": (ROOT / "data/sample.mp4", {}, [0]),
}
ALPHA = 0.1  # which all of them support; no threshold is looked at
STAGES = ("extract_frames", "synthesize_anomalies", "label", "build_dataset")
COUNTS = (6, 8, 10)  # frozen blocks
UNSEEN: list[synthesis.GeneratorName] = ["perlin_texture", "cut_paste", "gaussian_blur"]
TIE = 0.01


def prepare(folder: Path, path: Path, changes: dict[str, dict[str, Any]]) -> None:
    """Lay out a repository in `folder` and run the stages in front of training.

    `changes` are params by block.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["source"]["path"] = str(path)
    params["evaluate"]["alpha"] = ALPHA
    for block, values in changes.items():
        params[block] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (folder / "data").mkdir()
    (folder / WEIGHTS).symlink_to(ROOT / WEIGHTS)
    for name in STAGES:
        command = [sys.executable, str(ROOT / f"stages/{name}.py")]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def measure(job: tuple[str, Path, int, int]) -> dict[str, Any]:
    """Train on a prepared source with some blocks frozen; return image AUROCs by generator.

    One run a core: that makes the most of them, and no time is taken here.
    """
    source, folder, count, seed = job
    with chdir(folder):
        detector, loss = fit({"frozen_blocks": count, "seed": seed}, f"{count}-{seed}")
        normals = score(detector, (image for _, image in normal_images()))
        aurocs = {}
        for kind in UNSEEN:
            pasted = score(detector, paste(kind))
            truth = [0] * len(normals) + [1] * len(pasted)
            aurocs[kind] = float(roc_auc_score(truth, [*normals, *pasted]))
    facts = {"source": source, "frozen_blocks": count, "seed": seed}
    return {**facts, "image_auroc": aurocs, "validation_loss": loss}


def fit(changes: dict[str, Any], name: str) -> tuple[vit.Detector, float]:
    """Train the ViT on the data of this folder; return it and the lowest validation loss.

    `changes` are params of train_vit, `name` that of the checkpoints.
    """
    torch.set_num_threads(1)
    params = load_section(Params, "train_vit").model_copy(update=changes)
    set_seed(params.seed)
    weights = WEIGHTS / params.backbone
    network = vit.Network.from_weights(weights)
    inputs = vit.Input.of_weights(weights, params.image_size)
    trainer = train(network, inputs, params, Path(f"data/checkpoints/{name}"))
    return vit.Detector(network, inputs), float(trainer.state.best_metric)


def normal_images() -> Iterator[tuple[str, np.ndarray]]:
    """Yield path and image of the normal rows of the validation split."""
    for row in Split(DATASET, "validation"):
        if row.label == 0:
            yield row.path, decode_image(row.image)


def paste(kind: synthesis.GeneratorName) -> Iterator[np.ndarray]:
    """Yield the normal validation images with anomalies of a kind, where they took one."""
    patch = load_section(synthesis.Params, "synthesize_anomalies.patch")
    for path, image in normal_images():
        if made := synthesis.synthesize(image, kind, patch, generator(0, f"{kind}/{path}")):
            yield made[0]


def score(detector: vit.Detector, images: Iterator[np.ndarray]) -> list[float]:
    """Return the image scores."""
    return [float(detector.score([image]).image_scores[0]) for image in images]


def mean_of(runs: list[dict[str, Any]], count: int) -> float:
    """Return the mean over sources of their image AUROC with so many blocks frozen."""
    found: dict[str, list[float]] = {}
    for each in runs:
        if each["frozen_blocks"] == count:
            found.setdefault(each["source"], []).extend(each["image_auroc"].values())
    return float(np.mean([np.mean(aurocs) for aurocs in found.values()]))


def main() -> None:
    """Train on every source with every number of frozen blocks; write all, and the choice."""
    if missing := [str(path) for path, *_ in SOURCES.values() if not path.exists()]:
        raise InputError(f"{missing[0]} is missing; this benchmark needs the real data beside it")
    runs = []
    with tempfile.TemporaryDirectory() as temporary:
        jobs = []
        for source, (path, split, seeds) in SOURCES.items():
            folder = Path(temporary) / Path(source).stem
            folder.mkdir()
            prepare(folder, path, {"split": split})
            jobs += [(source, folder, count, seed) for seed in seeds for count in COUNTS]
        with ProcessPoolExecutor(available_cores(), get_context("spawn")) as pool:
            for number, result in enumerate(pool.map(measure, jobs), 1):
                runs.append(result)
                print(f"{number} of {len(jobs)}: {result}", file=sys.stderr, flush=True)
    means = {count: mean_of(runs, count) for count in COUNTS}
    choice = max(count for count, mean in means.items() if mean >= max(means.values()) - TIE)
    write_json(RESULT, {"choice": choice, "mean_image_auroc": means, "runs": runs})
    record([RESULT.name])
    for count, mean in means.items():
        print(f"{count:2} frozen blocks: mean image AUROC of unseen generators {mean:.3f}")
    print(f"choice: {choice}")


if __name__ == "__main__":
    run(main)
