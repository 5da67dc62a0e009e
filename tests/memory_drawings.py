"""Drawn defects, bright lines and dark discs on grey parts, and what the stage makes of them."""

from dataclasses import replace

import cv2
import numpy as np
from tiny_weights import write_weights

from blackswan.evaluation.regions import Region
from blackswan.memory.defects import Origin, describe, write_defects
from blackswan.memory.embedder import Embedder, Params


def draw(kind, seed):
    """Return an image with one defect, and its region."""
    rng = np.random.default_rng(seed)
    image = np.clip(120 + rng.normal(0, 3, (64, 64, 3)), 0, 255).astype(np.uint8)
    left, top = (int(value) for value in rng.integers(8, 40, 2))
    if kind == "scratch":
        image[top : top + 3, left : left + 16] = 255
    else:
        cv2.circle(image, (left + 8, top + 8), 7, (0, 0, 0), -1)
    inside = np.abs(image[top : top + 16, left : left + 16].astype(int) - 120).max(axis=2) > 20
    return image, Region(left, top, inside, 5.0)


def tiny_embedder(folder):
    """Return an embedder of random weights, which are written to `folder`."""
    params = Params(backbone="tiny", layers=[1, 2], image_size=56, context=0.5, pooling="region")
    return Embedder(params, write_weights(folder, "dinov2"))


def eight_of_each(embedder):
    """Return scratches and holes, half of them from either line."""
    return [
        replace(
            describe(embedder, *draw(kind, seed), type=kind, name=f"{kind}{seed}.png"),
            source=f"line{seed % 2}",
        )
        for kind in ("scratch", "hole")
        for seed in range(8)
    ]


def write_found(folder, embedder, defects, detector_hash="1.dir"):
    """Write the folder that the stage embed_defects writes."""
    folder.mkdir()
    embedder.save(folder / "embedder")
    origin = Origin(embedder=embedder.hash, detector="padim", detector_hash=detector_hash)
    write_defects(folder / "defects.parquet", defects, origin)
    return folder
