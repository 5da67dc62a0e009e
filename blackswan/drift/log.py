"""The log of a service: what a detector said of each image, by the hash of the detector.

LOG/HASH/TIME-PROCESS-NUMBER.parquet   parts, each whole, of at most a thousand answers
LOG/HASH/reference/                    what it says of held-out normal images (reference.py)
LOG/HASH/drift-CAMERA.json             what `blackswan drift-report` found last (monitor.py)
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blackswan.errors import InputError, cause

SCHEMA = pa.schema(
    [
        ("time", pa.timestamp("us", "UTC")),  # of the answer
        ("camera", pa.string()),  # that the client named, or ''
        ("detector", pa.string()),
        ("detector_hash", pa.string()),
        ("height", pa.int32()),  # of the photo, upright
        ("width", pa.int32()),
        ("image_score", pa.float64()),
        ("p_value", pa.float64()),
        ("threshold", pa.float64()),
        ("verdict", pa.string()),  # normal, anomalous
        ("embedding", pa.list_(pa.float32())),  # principal components, or null
    ]
)
TIME = "%Y%m%dT%H%M%S.%fZ"  # of the first answer of a part: names sort by it
BATCH = 4096  # answers in memory at once


def part_name(time: datetime, process: int, number: int) -> str:
    """Return the name of a part that begins at `time`, UTC."""
    return f"{time:{TIME}}-{process}-{number:06d}.parquet"


def parts_of(log: Path, detector_hash: str) -> list[Path]:
    """List the parts of a version, the oldest first; raises InputError where there is none."""
    if not log.is_dir():
        raise InputError(f"{log} is no folder; name the one of `blackswan serve --log`")
    parts = sorted((log / detector_hash).glob("[0-9]*.parquet"))
    others = sorted({path.parent.name for path in log.glob("*/[0-9]*.parquet")})
    if not parts and others:
        raise InputError(
            f"{log} holds answers of {', '.join(others)} and none of the detector, whose hash is "
            f"{detector_hash}; name the folder of the version that was served with --detector"
        )
    if not parts:
        raise InputError(f"{log} holds no answer yet; send images to `blackswan serve --log {log}`")
    return parts


def read(parts: list[Path], detector_hash: str, hours: float) -> Iterator[pd.DataFrame]:
    """Yield the answers of the last hours before the newest one, a batch at a time.

    Raises InputError for a part that cannot be read, or holds answers of another version.
    """
    newest = max(batch.time.max() for batch in _batches(parts[-1], ["time"]))
    begin = newest - timedelta(hours=hours)
    first = f"{begin:{TIME}}"
    for path, after in zip(parts, [*parts[1:], None], strict=True):
        if after is not None and after.name < first:
            continue
        for batch in _batches(path, SCHEMA.names):
            if (batch.detector_hash != detector_hash).any():
                raise InputError(
                    f"{path} holds answers of another version of the detector than its folder is "
                    "named after; move it away"
                )
            yield batch[batch.time >= begin]


def _batches(path: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH, columns=columns):
                yield pa.Table.from_batches([batch]).select(columns).to_pandas()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(
            f"{path} cannot be read as a part of a log ({cause(error)}); bring it back from a copy,"
            " or move it away"
        ) from None
