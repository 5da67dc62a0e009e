"""Anomaly maps on disk: the patch scores, as fine as the detector sees, and how they become maps.

A map of every pixel would take ten times as much and say no more. What reads them enlarges them by
the function that scoring used, and so gets the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blackswan.detectors.interface import Scores
from blackswan.detectors.maps import to_maps

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("rows", pa.int32()),  # of patches
        ("columns", pa.int32()),
        ("kind", pa.string()),  # <f4 or |u1: of a patch score
        ("patch_scores", pa.binary()),  # row by row
        ("height", pa.int32()),  # of the map, pixels
        ("width", pa.int32()),
        ("smoothing", pa.float64()),  # and box, as maps.py takes them
        ("box", pa.int32()),
    ]
)


def open_writer(file: Path) -> pq.ParquetWriter:
    """Open the file that `to_table` fills, one row group a batch."""
    # A minimum and a maximum of patch scores would be as large as they are, and help nobody.
    return pq.ParquetWriter(
        file, SCHEMA, compression="zstd", use_dictionary=["kind"], write_statistics=["path"]
    )


def to_table(paths: Sequence[str], scores: Scores) -> pa.Table:
    """Return the maps of a batch of images with these paths."""
    patch_scores = scores.patch_scores
    stored = patch_scores.astype(patch_scores.dtype.newbyteorder("<"))
    height, width = scores.size
    shared = {
        "rows": stored.shape[1], "columns": stored.shape[2], "kind": stored.dtype.str,
        "height": height, "width": width, "smoothing": scores.smoothing, "box": scores.box,
    }  # fmt: skip
    return pa.Table.from_pylist(
        [
            {"path": path, "patch_scores": one.tobytes(), **shared}
            for path, one in zip(paths, stored, strict=True)
        ],
        SCHEMA,
    )


def read_map(file: Path, path: str) -> np.ndarray:
    """Return the map (H, W), float32, of the image with this path."""
    # A row group holds one batch, so the filter reads few others.
    [row] = pq.read_table(file, filters=[("path", "==", path)]).to_pylist()
    patch_scores = np.frombuffer(row["patch_scores"], row["kind"])
    patch_scores = patch_scores.reshape(1, row["rows"], row["columns"])
    size = row["height"], row["width"]
    return np.asarray(to_maps(patch_scores, size, row["smoothing"], row["box"])[0])
