"""A dataset, weights and params so small that stages/train_vit.py ends in seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from tiny_weights import write_weights

from blackswan.data.dataset import Row, write_shards
from blackswan.data.images import encode_png

PARAMS = {
    "seed": 3,
    "backbone": "tiny",
    "image_size": 56,
    "frozen_blocks": 0,
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
    "weight_decay": 0.01,
    "early_stopping_patience": 1,
}


def write_project(folder: Path, **changes: float) -> Path:
    """Write all that the stage reads; the images have two shapes, and no batch is their divisor."""
    write_weights(folder / "data/weights/tiny", "dinov2")
    write_splits(folder, train=13, validation=7, heights=(56, 56, 28))
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_vit": PARAMS | changes}))
    return folder


def write_splits(folder: Path, train: int, validation: int, heights: Sequence[int] = (56,)) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("validation", validation)):
        rows = (draw(rng, index, heights[index % len(heights)]) for index in range(count))
        write_shards(folder / "data/dataset", split, rows, 100)


def draw(rng: np.random.Generator, index: int, height: int) -> Row:
    image = rng.integers(100, 120, (height, 56, 3), dtype=np.uint8)
    mask = np.zeros((height, 56), bool)
    mask[:14, :14] = index % 2
    image[mask] = 255
    return Row(
        path=f"{index}.png",
        image=encode_png(image),
        mask=encode_png(mask) if index % 2 else None,
        label=index % 2,
        defect="salt_and_pepper" if index % 2 else "",
        synthetic=bool(index % 2),
        augmented=False,
        group=str(index),
        timestamp_s=None,
    )
