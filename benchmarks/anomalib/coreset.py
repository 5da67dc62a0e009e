"""Time the coreset alone: a loop of anomalib's shape, ours, and the matrix product as the floor.

Points are real patches (blocks.2 and blocks.4, averaged 3 x 3, projected to 128 dimensions). The
loop is timed on its first picks and extrapolated, since every pick costs the same.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blackswan.data.images import read_image
from blackswan.detectors.coreset import ROWS, k_center, random_directions
from blackswan.detectors.patchcore import _embed
from blackswan.networks.backbones import load_backbone

DIMENSIONS, POINTS, RATIO = 128, 164_000, 0.01
NAIVE_PICKS = 12


def naive_seconds(points: Tensor, picks: int) -> float:
    """Return the seconds of `picks` rounds of subtract, norm, minimum and argmax."""
    far, pick = torch.full((len(points), 1), torch.inf), 0
    begin = time.perf_counter()
    for _ in range(NAIVE_PICKS):
        distances = torch.linalg.norm(points - points[pick], ord=2, dim=1, keepdim=True)
        far = torch.minimum(far, distances)
        pick = int(far.squeeze(1).argmax())
    return (time.perf_counter() - begin) * picks / NAIVE_PICKS


def product_seconds(points: Tensor, picks: int) -> float:
    """Return the seconds of the product of all points and `picks` centres, block by block."""
    centres, out = points[:picks].T.contiguous(), torch.empty(ROWS, picks)
    begin = time.perf_counter()
    for part in points.split(ROWS):
        torch.mm(part, centres, out=out[: len(part)])
    return time.perf_counter() - begin


def row(points: Tensor, picks: int) -> dict[str, float]:
    """Measure one size; ours twice, of which the faster counts."""
    ours = []
    for _ in range(2):
        begin = time.perf_counter()
        k_center(points, picks, 0)
        ours.append(time.perf_counter() - begin)
    return {
        "points": len(points),
        "picks": picks,
        "naive_seconds_extrapolated": naive_seconds(points, picks),
        "ours_seconds": min(ours),
        "product_seconds": min(product_seconds(points, picks) for _ in range(2)),
    }


@torch.inference_mode()
def main() -> None:
    """Write the rows for a growing number of points and of picks."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(job["threads"])
    backbone = load_backbone(Path(job["weights"]), [2, 4], job["image_size"])
    directions = random_directions(
        sum(backbone.channels), DIMENSIONS, "gaussian", np.random.default_rng(0)
    )
    images = sorted((Path(job["data"]) / "train/good").glob("*.png"))
    images = images[: -(-POINTS // (backbone.grids[0][0] ** 2))]
    points = torch.cat(
        [
            _embed(backbone.embed([read_image(path)]), backbone.grids[0], 3, directions)[0]
            for path in images
        ]
    )[:POINTS]
    shuffled = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    rows = {
        "against_points": [
            row(shuffled[:count], int(count * RATIO)) for count in (20_500, 41_000, 82_000)
        ],
        "against_picks": [row(points, int(len(points) * ratio)) for ratio in (0.0025, 0.005, 0.02)],
        "at_one_percent": row(points, int(len(points) * RATIO)),
    }
    Path(job["measured"]).write_text(json.dumps({"dimensions": DIMENSIONS, **rows}))


if __name__ == "__main__":
    main()
