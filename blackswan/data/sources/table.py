"""Images that a table holds or names: a Parquet data set, or a CSV or Parquet file of paths.

A data set has a column `image` in the layout of Hugging Face, {bytes, path}, or of plain bytes; a
table of paths has a column `path`, relative to its own folder. A column `timestamp_s` is kept.
Rows are read a few at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from blackswan.data.dataset import PREPROCESSING
from blackswan.data.decoding import decode_turned
from blackswan.data.files import list_files
from blackswan.data.photos import Photo
from blackswan.data.preprocessing import Preprocessing
from blackswan.data.records import Frame, SourceImage
from blackswan.errors import InputError, cause

PARQUET, CSV = ".parquet", ".csv"
COLUMNS = ("image", "path", "timestamp_s")
ROWS = 16  # read at a time


@dataclass(frozen=True)
class Encoded:
    """The bytes of an image file; a call decodes them."""

    content: bytes
    name: str
    bit_depth: int

    def __call__(self) -> tuple[np.ndarray, None]:
        """Return uint8 (H, W, 3)."""
        return decode_turned(BytesIO(self.content), self.name, self.bit_depth)[0], None


def list_tables(path: Path) -> list[Path]:
    """List a table, or the Parquet files below a folder, sorted; none where `path` is neither."""
    if path.is_file():
        return [path] if path.suffix.lower() in (PARQUET, CSV) else []
    return list_files(path, {PARQUET}).files


def preprocessing_of(files: list[Path]) -> Preprocessing | None:
    """Return what was done to the images of a data set; None where its files do not say.

    Raises InputError where they say different things.
    """
    said = {
        file: (_opened(file).schema_arrow.metadata or {}).get(PREPROCESSING)
        for file in files
        if file.suffix.lower() == PARQUET
    }
    if len(set(said.values())) > 1:
        first, *_, last = said
        raise InputError(
            f"the images of {first} and {last} were not prepared alike; name one data set"
        )
    found = next(iter(said.values()), None)
    return None if found is None else Preprocessing.model_validate_json(found)


def iterate_rows(files: list[Path], bit_depth: int) -> Iterator[SourceImage]:
    """Yield the image of each row; raises InputError where a file or a row has none."""
    for file in files:
        number = 0
        for batch in _batches(file):
            for row in batch.to_pylist():
                yield _image(file, number, row, bit_depth)
                number += 1


def _image(file: Path, number: int, row: dict[str, Any], bit_depth: int) -> SourceImage:
    held, named = row.get("image"), row.get("path")
    if isinstance(held, dict):
        named = held.get("path") or named
        held = held.get("bytes")
    time = row.get("timestamp_s")
    name = str(named or f"{file.stem}/{number:06d}")
    frame = Frame(name, file.stem, timestamp_s=time if isinstance(time, float) else None)
    if isinstance(held, bytes):
        return SourceImage(frame, Encoded(held, f"{file}, {name},", bit_depth))
    if not isinstance(named, str) or not named:
        raise InputError(f"row {number} of {file} holds and names no image; remove the row")
    return SourceImage(frame, Photo(file.parent / named, bit_depth=bit_depth))


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file, with those of COLUMNS that it has."""
    try:
        if file.suffix.lower() == CSV:
            table = pyarrow.csv.open_csv(file)
            _check(file, table.schema)
            yield from table
        else:
            parquet = _opened(file)
            _check(file, parquet.schema_arrow)
            names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
            yield from parquet.iter_batches(ROWS, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} cannot be read ({cause(error)}); write it again") from None


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} is no Parquet file ({cause(error)}); write it again") from None


def _check(file: Path, schema: pa.Schema) -> None:
    if not {"image", "path"} & {*schema.names}:
        raise InputError(
            f"{file} has no column image (bytes, or bytes and path) and no column path, but "
            f"{', '.join(schema.names)}; name one of its columns so"
        )
