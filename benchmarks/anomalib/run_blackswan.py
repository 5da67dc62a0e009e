"""Fit and score one detector of ours on a job of compare.py, in a process of its own."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from blackswan.data.decoding import read_header
from blackswan.data.images import read_image
from blackswan.detectors import padim, patchcore
from blackswan.detectors.interface import Resources, load_module
from blackswan.networks.backbones import load_backbone

BATCH = 32  # of anomalib's data module too


class Folder:
    """The PNG images of a folder, read when they are asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.sizes = [read_header(path).upright for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(read_image, self.paths)


def peak_gb() -> float:
    """Return the peak resident memory; ru_maxrss would count that of the parent process too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def main() -> None:
    """Run the job and write what run_anomalib.py writes too."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    data, weights = Path(job["data"]), Path(job["weights"])
    train = Folder(sorted((data / "train/good").glob("*.png")))
    module = load_module(job["model"])
    params = module.Params.model_validate(job["params"])
    resources = Resources(train, weights.parent, Path(job["results"]), job["seed"])
    if job["model"] == "padim":  # the channels that anomalib drew: what is left is no luck
        channels = torch.from_numpy(np.sort(np.load(job["channels"])))
        padim._selection = lambda *_: channels
    coreset: list[float] = []
    k_center = patchcore.k_center

    def timed_k_center(points: torch.Tensor, picks: int, start: int) -> torch.Tensor:
        begin = time.perf_counter()
        found = k_center(points, picks, start)
        coreset.append(time.perf_counter() - begin)
        return found

    patchcore.k_center = timed_k_center
    begin = time.perf_counter()
    detector = module.fit(train, params, resources)
    fitted = time.perf_counter() - begin
    test = sorted((data / "test").glob("*/*.png"))
    begin = time.perf_counter()
    scores, maps = [], []
    for start in range(0, len(test), BATCH):
        scores.append(detector.score(list(Folder(test[start : start + BATCH]))))
        maps.append(scores[-1].anomaly_maps)  # anomalib draws its maps too
    scored = time.perf_counter() - begin
    measured = {
        "fit_seconds": fitted,
        "score_ms": 1000 * scored / len(test),
        "peak_gb": peak_gb(),
    }
    if coreset:
        measured["coreset_seconds"] = coreset[0]
    backbone = load_backbone(weights, params.layers, params.image_size)
    features = backbone.embed([read_image(test[0])])
    np.savez(
        job["scores"],
        paths=np.array([str(path.relative_to(data)) for path in test]),
        image_scores=np.concatenate([part.image_scores for part in scores]),
        maps=np.concatenate(maps),
        feature_path=str(test[0].relative_to(data)),
        **{f"features_{k}": value.numpy() for k, value in enumerate(features)},  # type: ignore[arg-type]
    )
    Path(job["measured"]).write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
