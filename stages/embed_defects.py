"""Test images, a detector's maps of them -> data/defects: each anomalous region, embedded.

A region is where the map of an anomalous image lies above the pixel threshold; where somebody drew
a mask, one that does not touch it is a false alarm and left out. `blackswan index data/defects`
puts what came out into the defect memory. `dvc repro embed_defects`
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from tqdm import tqdm

from blackswan.data.dataset import Row, Split
from blackswan.data.images import decode_image, decode_mask
from blackswan.data.records import read_index
from blackswan.errors import InputError, run
from blackswan.evaluation.regions import Region, find_regions
from blackswan.evaluation.score_maps import read_map
from blackswan.memory import embedder
from blackswan.memory.defects import Defect, Origin, describe, map_threshold, write_defects
from blackswan.outputs import replace_folder
from blackswan.params import load_section
from blackswan.tracking.runs import dvc_hash

DATASET = Path("data/dataset")
LABELS = Path("data/labels.csv")
WEIGHTS = Path("data/weights")
DETECTORS = Path("data/detectors")
SCORES = Path("data/scores")
DEFECTS = Path("data/defects")


class Params(embedder.Params):
    """Whose regions are embedded, and how."""

    detector: str  # one that was evaluated
    regions: Annotated[int, Field(ge=1)]  # of an image at most, the highest peak first
    synthetic: bool  # drawn anomalies too; false: real defects alone


def touching(regions: list[Region], mask: bytes | None) -> list[Region]:
    """Return the regions that touch the mask, all where nobody drew one."""
    if mask is None:
        return regions
    drawn = decode_mask(mask)
    return [region for region in regions if (region.inside & _box(drawn, region)).any()]


def _box(mask: np.ndarray, region: Region) -> np.ndarray:
    height, width = region.inside.shape
    return mask[region.top : region.top + height, region.left : region.left + width]


def defects_of(
    row: Row, source: str, maps: Path, threshold: float, most: int, embeds: embedder.Embedder
) -> Iterator[Defect]:
    """Yield the defects of an image."""
    everything = find_regions(read_map(maps, row.path), threshold, sys.maxsize)
    for region in touching(everything, row.mask)[:most]:  # what is no defect takes no place
        yield describe(
            embeds, decode_image(row.image), region, type=row.defect or "anomalous", name=row.path,
            source=source, group=row.group, synthetic=row.synthetic,
        )  # fmt: skip


def main() -> None:
    """Find the regions, embed them, write what came out."""
    params = load_section(Params, "embed_defects")
    folder, maps = DETECTORS / params.detector, SCORES / params.detector / "maps.parquet"
    if not (folder.is_dir() and maps.exists()):
        raise InputError(
            f"embed_defects.detector = {params.detector} was not evaluated; choose one of "
            f"{', '.join(sorted(path.name for path in SCORES.glob('*')))}"
        )
    threshold = map_threshold(folder)
    settings = embedder.Params(**params.model_dump(include={*embedder.Params.model_fields}))
    embeds = embedder.Embedder(settings, WEIGHTS / params.backbone)
    sources = {frame.image: frame.source for frame in read_index(LABELS)}
    test = Split(DATASET, "test")
    facts = test.facts[test.facts.label == 1]
    chosen = facts if params.synthetic else facts[~facts.synthetic]

    def found() -> Iterator[Defect]:
        for place in tqdm(chosen.index, desc="embed_defects", unit="image", disable=None):
            row = test[int(place)]
            source = sources[row.path]
            source = sources.get(f"frames/{source}", source)  # the frame that was drawn on
            yield from defects_of(row, source, maps, threshold, params.regions, embeds)

    origin = Origin(embedder=embeds.hash, detector=params.detector, detector_hash=dvc_hash(folder))
    with replace_folder(DEFECTS) as partial:
        embeds.save(partial / "embedder")
        count = write_defects(partial / "defects.parquet", found(), origin)
    print(f"{count} defects of {len(chosen)} anomalous test images")


if __name__ == "__main__":
    run(main)
