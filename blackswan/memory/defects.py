"""A defect that was seen: where, of which type, what it looks like, its embedding; as Parquet.

Its id is the UUID5 of the pixels of the image and the box, so the same defect is known again
wherever it comes from, and under whatever name.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from uuid import UUID, uuid5

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blackswan.data.images import encode_png
from blackswan.errors import InputError, cause, shown
from blackswan.evaluation.model import FACTS, Facts
from blackswan.evaluation.regions import Region
from blackswan.memory.embedder import Embedder
from blackswan.params import Section, load_section

NAMESPACE = UUID("b6f0a1de-7a1c-5f5e-9c0b-0d2f4f3c8e11")
ROWS = 256  # of a row group, and in memory at a time
THUMBNAIL = 128  # pixels, the longer side of a crop that people look at
ORIGIN = b"blackswan.defects"  # in the metadata of a file


class Origin(Section):
    """What found the regions and what embedded them: vectors of others cannot be compared."""

    embedder: str  # hash
    detector: str
    detector_hash: str  # of DVC, of its files


@dataclass(frozen=True)
class Defect:
    """One region of an image, of which somebody knows the type."""

    id: str
    type: str
    image: str  # its path or name
    source: str
    camera: str
    date: str  # 2026-11-30, or empty
    group: str  # images that show the same part
    synthetic: bool
    left: int  # pixels of the image that the detector saw
    top: int
    width: int
    height: int
    score: float  # peak of the anomaly map
    crop: bytes  # PNG
    embedding: np.ndarray  # (D,) float32


SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "type", "image", "source", "camera", "date")),
        ("group", pa.string()),
        ("synthetic", pa.bool_()),
        *((name, pa.int32()) for name in ("left", "top", "width", "height")),
        ("score", pa.float64()),
        ("crop", pa.binary()),
        ("embedding", pa.list_(pa.float32())),
    ]
)


def map_threshold(folder: Path) -> float:
    """Return the value above which the maps of a complete detector are anomalous."""
    return load_section(Facts, "", folder / FACTS).heatmap.threshold


def describe(
    embedder: Embedder,
    image: np.ndarray,
    region: Region,
    *,
    type: str,  # noqa: A002 - what a person calls it
    name: str,
    source: str = "",
    camera: str = "",
    date: str = "",
    group: str = "",
    synthetic: bool = False,
) -> Defect:
    """Return the defect that a region of an RGB image, as the detector saw it, shows.

    Raises InputError where it has no type or its date is none.
    """
    if not type.strip():
        raise InputError(f"the defect of {name} has no type; name one, such as scratch")
    height, width = region.inside.shape
    crop, _ = embedder.crop(image, region)
    if (longer := max(crop.shape[:2])) > THUMBNAIL:
        size = [max(1, round(side * THUMBNAIL / longer)) for side in crop.shape[1::-1]]
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    return Defect(
        id=identity(image, (region.left, region.top, width, height)),
        type=type.strip(),
        image=name,
        source=source,
        camera=camera,
        date=checked_date(date, "date"),
        group=group or name,
        synthetic=synthetic,
        left=region.left,
        top=region.top,
        width=width,
        height=height,
        score=region.peak,
        crop=encode_png(crop),
        embedding=embedder.embed(image, region),
    )


def identity(image: np.ndarray, box: tuple[int, int, int, int]) -> str:
    """Return the id of the defect in a box (left, top, width, height) of an image."""
    pixels = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    return str(uuid5(NAMESPACE, f"{image.shape} {pixels} {box}"))


def checked_date(text: str, name: str) -> str:
    """Return a date as it is, or empty; raises InputError where it is none."""
    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError:
        raise InputError(
            f"{name} {shown(repr(text))} is no date; write year, month and day, as 2026-11-30"
        ) from None


def write_defects(path: Path, defects: Iterable[Defect], origin: Origin) -> int:
    """Write defects to a Parquet file, holding ROWS in memory; return their number."""
    schema = SCHEMA.with_metadata({ORIGIN: json.dumps(origin.model_dump())})
    iterator, count = iter(defects), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while rows := list(islice(iterator, ROWS)):
            writer.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema))
            count += len(rows)
    return count


def read_origin(path: Path) -> Origin:
    """Return what the defects of a file come from; raises InputError where it does not say."""
    try:
        return Origin.model_validate_json(pq.read_schema(path).metadata[ORIGIN])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no file of defects ({cause(error)}); write it by `dvc repro embed_defects`"
        ) from None


def read_defects(path: Path) -> Iterator[list[Defect]]:
    """Yield the defects of a file, at most ROWS at a time; raises InputError where it is broken."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS, columns=SCHEMA.names):
                rows = batch.to_pylist()
                yield [
                    Defect(**row | {"embedding": np.asarray(row["embedding"], np.float32)})
                    for row in rows
                ]
    except (OSError, pa.ArrowInvalid, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({cause(error)}); write it by `dvc repro embed_defects`"
        ) from None


def count_defects(path: Path) -> int:
    """Return how many defects a file has."""
    return int(pq.read_metadata(path).num_rows)
