"""Which anomalies should the ViT learn from, to find those that it never saw?

    PYTHONPATH=stages python benchmarks/generators.py      writes benchmarks/generators.json

Settings, fixed before the first run, by the time they take. Sources: every other frame of the
sample clip, and MVTec AD screw where it lies in ../shared/data, of which 40 train images are drawn.
The stages prepare each source once for every mixture of generators: `salt_and_pepper` alone, the
default; `poisson_blend` alone; all eight; and, for each of the seven that are not the default, all
but that one. The ViT trains at the settings of params.yaml, but for 3 epochs, on as many images
whatever the mixture, with one seed. It is tested on at most 20 normal images of the test split
against copies of 10 of them with the anomalies of each generator, the same copies for every
mixture, and against 8 real defects of each kind where the source has them. Image AUROC; no
threshold is looked at, and no setting was chosen by these numbers. `left_out` is the mean of what
the mixture without each of the seven has on it, `by_salt_and_pepper` that of the default on the
same seven, which it never saw. With so few images and one seed, a difference of .1 in a single cell
is noise.
"""

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import numpy as np
from frozen_blocks import ROOT, SHARED, fit, prepare
from measured import record
from sklearn.metrics import roc_auc_score
from train_vit import DATASET

from blackswan.data import synthesis
from blackswan.data.dataset import Split
from blackswan.data.images import decode_image
from blackswan.data.sources import opening
from blackswan.detectors import vit
from blackswan.errors import run
from blackswan.outputs import write_json
from blackswan.parallel import available_cores
from blackswan.params import load_section
from blackswan.seeds import generator

RESULT = ROOT / "benchmarks/generators.json"
SCREW = SHARED / "mvtec/screw"
KINDS: tuple[synthesis.GeneratorName, ...] = get_args(synthesis.GeneratorName)
DEFAULT = "salt_and_pepper"
ALONE = (DEFAULT, "poisson_blend")
UNSEEN = [kind for kind in KINDS if kind != DEFAULT]
MIXTURES: dict[str, list[str]] = {
    **{kind: [kind] for kind in ALONE},
    "all": list(KINDS),
    **{f"all but {kind}": [other for other in KINDS if other != kind] for kind in UNSEEN},
}
EVERY_N_SECONDS = 0.08  # of the clip, which has 25 frames a second
LEARNT = 40  # train images of screw, of which the stages take some for validation
TESTED = 20  # normal test images
PASTED = 10  # of them, which get the anomalies of each generator
DEFECTS = 8  # real ones of each kind
BATCH = 8
EPOCHS = 3


def few(source: Path, folder: Path) -> Path:
    """Link an MVTec-style tree with LEARNT of its train images, drawn once."""
    tree = folder / source.name
    images = sorted((source / "train/good").iterdir())
    (tree / "train/good").mkdir(parents=True)
    for position in generator(0, "generators").permutation(len(images))[:LEARNT]:
        (tree / "train/good" / images[position].name).symlink_to(images[position])
    for name in ("test", "ground_truth"):
        (tree / name).symlink_to(source / name)
    return tree


def measure(job: tuple[str, Path, str]) -> dict[str, Any]:
    """Prepare a source with a mixture, train, and return the image AUROCs. One run a core."""
    source, path, mixture = job
    with tempfile.TemporaryDirectory() as temporary, chdir(temporary):
        video = load_section(opening.Params, "extract_frames", ROOT / "params.yaml").video
        changes = {
            "extract_frames": {"video": video.model_dump() | {"every_n_seconds": EVERY_N_SECONDS}},
            "synthesize_anomalies": {"generators": MIXTURES[mixture], "unseen": []},
        }
        prepare(Path(temporary), path, changes)
        detector, loss = fit({"epochs": EPOCHS, "seed": 0}, "run")
        normals, defects = read_test()
        scores = score(detector, normals)
        aurocs = {kind: auroc(scores, score(detector, paste(normals, kind))) for kind in KINDS}
        of_real = {kind: score(detector, images) for kind, images in defects.items()}
    real = {kind: auroc(scores, found) for kind, found in of_real.items()}
    if real:
        real["together"] = auroc(scores, [each for found in of_real.values() for each in found])
    return {
        "source": source,
        "mixture": mixture,
        "validation_loss": loss,
        "image_auroc": aurocs,
        **({"real_defects": real} if real else {}),
    }


def read_test() -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    """Return the first normal images of the test split, and the first of each real defect."""
    normals: list[np.ndarray] = []
    defects: dict[str, list[np.ndarray]] = {}
    for row in Split(DATASET, "test"):
        images = normals if row.label == 0 else defects.setdefault(row.defect, [])
        if not row.synthetic and len(images) < (DEFECTS if row.label else TESTED):
            images.append(decode_image(row.image))
    return normals, {kind: images for kind, images in defects.items() if images}


def paste(normals: list[np.ndarray], kind: synthesis.GeneratorName) -> list[np.ndarray]:
    """Return the first of the normal images with an anomaly of a kind, where they took one."""
    patch = load_section(synthesis.Params, "synthesize_anomalies.patch")
    made = []
    for position, image in enumerate(normals[:PASTED]):
        other = normals[(position + len(normals) // 2) % len(normals)]
        rng = generator(0, kind, str(position))
        made.append(synthesis.synthesize(image, kind, patch, rng, other))
    return [each[0] for each in made if each]


def score(detector: vit.Detector, images: list[np.ndarray]) -> list[float]:
    """Return the image scores."""
    starts = range(0, len(images), BATCH)
    batches = [detector.score(images[start : start + BATCH]).image_scores for start in starts]
    return [float(each) for batch in batches for each in batch]


def auroc(normal: list[float], anomalous: list[float]) -> float | None:
    """Return the image AUROC; None where there is no anomaly."""
    if not anomalous:
        return None
    truth = [0] * len(normal) + [1] * len(anomalous)
    return float(roc_auc_score(truth, [*normal, *anomalous]))


def summarise(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by source what mixtures and the default have on generators that they never saw."""
    table: dict[str, dict[str, float]] = {}
    for source in dict.fromkeys(each["source"] for each in runs):
        found = {each["mixture"]: each for each in runs if each["source"] == source}
        table[source] = {
            "left_out": mean([found[f"all but {kind}"]["image_auroc"][kind] for kind in UNSEEN]),
            "by_salt_and_pepper": mean([found[DEFAULT]["image_auroc"][kind] for kind in UNSEEN]),
        }
        for name in (*ALONE, "all"):
            if real := found[name].get("real_defects"):
                table[source][f"real defects, {name}"] = real["together"]
    return table


def mean(aurocs: list[float | None]) -> float:
    """Return the mean of those that are defined."""
    return float(np.mean([each for each in aurocs if each is not None]))


def main() -> None:
    """Train on every mixture and source; write all, and the means."""
    with tempfile.TemporaryDirectory() as temporary:
        sources = {"sample.mp4": ROOT / "data/sample.mp4"}
        if SCREW.exists():
            sources["screw"] = few(SCREW, Path(temporary))
        jobs = [(name, path, mixture) for name, path in sources.items() for mixture in MIXTURES]
        runs = []
        with ProcessPoolExecutor(available_cores(), get_context("spawn")) as pool:
            for number, result in enumerate(pool.map(measure, jobs), 1):
                runs.append(result)
                print(f"{number} of {len(jobs)}: {result}", file=sys.stderr, flush=True)
    table = summarise(runs)
    write_json(RESULT, {"epochs": EPOCHS, "summary": table, "runs": runs})
    record([RESULT.name])
    for source, row in table.items():
        for what, value in row.items():
            print(f"{source}: {what} {value:.3f}")


if __name__ == "__main__":
    run(main)
