"""The dataset contract: Parquet shards that `datasets`, pandas, DuckDB and Spark read as they are.

Each split has a folder of its own, so that what learns can depend on no test image at all.
Images and masks are PNG bytes in the Hugging Face `Image` layout {bytes, path}. Row groups are
small, so that one row can be read at random without holding the shard in memory.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from blackswan.data.images import decode_image, decode_mask, png_size
from blackswan.data.preprocessing import Preprocessing
from blackswan.errors import InputError

LABELS = ["normal", "anomalous"]
ROWS_PER_GROUP = 16
GROUP_BYTES = 64_000_000  # of images, after which a group ends before it has all its rows
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "mask": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": LABELS},
    "defect": {"_type": "Value", "dtype": "string"},
    "synthetic": {"_type": "Value", "dtype": "bool"},
    "augmented": {"_type": "Value", "dtype": "bool"},
    "group": {"_type": "Value", "dtype": "string"},
    "timestamp_s": {"_type": "Value", "dtype": "float64"},
    "height": {"_type": "Value", "dtype": "int32"},
    "width": {"_type": "Value", "dtype": "int32"},
}
SCHEMA = pa.schema(
    [
        ("image", PICTURE),
        ("mask", PICTURE),
        ("label", pa.int64()),
        ("defect", pa.string()),
        ("synthetic", pa.bool_()),
        ("augmented", pa.bool_()),
        ("group", pa.string()),
        ("timestamp_s", pa.float64()),
        ("height", pa.int32()),  # of the image, pixels
        ("width", pa.int32()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)
PREPROCESSING = b"blackswan.preprocessing"  # in the metadata of each shard
FACTS = ["label", "defect", "synthetic", "augmented", "group", "timestamp_s"]
SIZE = ["height", "width"]


@dataclass(frozen=True)
class Row:
    """One image of the dataset; `mask` is None for a normal image and where nobody drew one."""

    path: str
    image: bytes  # PNG
    mask: bytes | None  # PNG
    label: int  # 0 normal, 1 anomalous
    defect: str
    synthetic: bool
    augmented: bool
    group: str
    timestamp_s: float | None


def write_shards(
    folder: Path,
    split: str,
    rows: Iterable[Row],
    rows_per_shard: int,
    preprocessing: Preprocessing | None = None,
) -> int:
    """Write rows into the folder of a split, holding one row group in memory; return their number.

    The shards are <split>/<split>-00000-of-0000N.parquet, one without rows where there is none.
    """
    (folder / split).mkdir(parents=True, exist_ok=True)
    iterator, shards, count = iter(rows), 0, 0
    for row in chain([next(iterator, None)], iterator):
        part = [] if row is None else chain([row], islice(iterator, rows_per_shard - 1))
        count += write_shard(folder / split / f"{shards}.parquet", part, preprocessing)
        shards += 1
    for shard in range(shards):
        (folder / split / f"{shard}.parquet").rename(shard_path(folder, split, shard, shards))
    return count


def shard_count(rows: int, rows_per_shard: int) -> int:
    """Return how many shards a split of so many rows has."""
    return max(1, -(-rows // rows_per_shard))


def shard_path(folder: Path, split: str, shard: int, shards: int) -> Path:
    """Return where a shard lies that is one of `shards` of its split."""
    return folder / split / f"{split}-{shard:05d}-of-{shards:05d}.parquet"


def write_shard(path: Path, rows: Iterable[Row], preprocessing: Preprocessing | None = None) -> int:
    """Write one shard, holding one row group in memory; return the number of its rows.

    Its metadata say what was done to the images, so that new ones can be prepared alike.
    """
    done = (preprocessing or Preprocessing(steps=[])).model_dump_json()
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, PREPROCESSING: done})
    iterator, count = map(_to_dict, rows), 0
    # Image bytes are compressed already.
    with pq.ParquetWriter(
        path, schema, compression="none", use_dictionary=["defect", "group"]
    ) as writer:
        while group := list(islice(iterator, 1)):
            while len(group) < ROWS_PER_GROUP and _size(group) < GROUP_BYTES:
                if (row := next(iterator, None)) is None:
                    break
                group.append(row)
            writer.write_table(pa.Table.from_pylist(group, schema))
            count += len(group)
    return count


def _size(group: list[dict[str, Any]]) -> int:
    return sum(len(row["image"]["bytes"]) for row in group)


def _to_dict(row: Row) -> dict[str, Any]:
    mask = (
        None if row.mask is None else {"bytes": row.mask, "path": f"{Path(row.path).stem}-mask.png"}
    )
    return {
        "image": {"bytes": row.image, "path": row.path},
        "mask": mask,
        **{name: getattr(row, name) for name in FACTS},
        **dict(zip(SIZE, png_size(row.image), strict=True)),
    }


class Split(Sequence[Row]):
    """Random access to the rows of one split; only one row group is held in memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.paths = sorted((folder / name).glob("*.parquet"))
        if not self.paths:
            raise InputError(f"{folder} has no {name} shard; run `dvc repro build_dataset`")
        groups = [
            (path, group)
            for path in self.paths
            for group in range(pq.ParquetFile(path).num_row_groups)
        ]
        self._groups = groups
        sizes = [pq.ParquetFile(path).metadata.row_group(group).num_rows for path, group in groups]
        self._ends = np.cumsum(sizes)  # (row groups,)
        self._read = lru_cache(maxsize=1)(_read_group)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        group = int(np.searchsorted(self._ends, index, side="right"))
        begin = int(self._ends[group - 1]) if group else 0
        return self._read(*self._groups[group])[index - begin]

    @cached_property
    def facts(self) -> pd.DataFrame:
        """Everything but the pixels, one line per row: path, has_mask, those of FACTS and SIZE."""
        columns = [*FACTS, *SIZE]
        read = ["image.path", "mask.path", *columns]  # pixels stay on disk
        table = pa.concat_tables([pq.read_table(path, columns=read) for path in self.paths])
        facts = table.rename_columns(["path", "has_mask", *columns]).to_pandas()
        return facts.assign(has_mask=facts.has_mask.notna())

    @property
    def preprocessing(self) -> Preprocessing:
        """What was done to the images of the source; InputError where the shards do not say."""
        metadata = pq.read_schema(self.paths[0]).metadata or {}
        if PREPROCESSING not in metadata:
            raise InputError(
                f"{self.paths[0]} does not say how its images were cropped and scaled (metadata "
                f"{PREPROCESSING.decode()}), so no new image can be prepared alike; write it again "
                "with `dvc repro build_dataset`"
            )
        return Preprocessing.model_validate_json(metadata[PREPROCESSING])

    def images(self, indices: Iterable[int]) -> "Pictures":
        """Return the decoded images of some rows, to be iterated again and again."""
        return Pictures([(self, int(index)) for index in indices])

    @property
    def normal_images(self) -> "Pictures":
        """The normal images as they are, without augmented copies."""
        facts = self.facts
        return self.images(np.flatnonzero((facts.label == 0) & ~facts.augmented))


class Pictures:
    """Decoded images of one split or several: uint8 (H, W, 3) RGB, one at a time."""

    def __init__(self, rows: list[tuple[Split, int]]) -> None:
        self._rows = rows

    @property
    def facts(self) -> pd.DataFrame:
        """What the splits say of these images, one line an image, in the order of iteration."""
        splits = {id(split): split for split, _ in self._rows}
        begins, begin = {}, 0
        for key, split in splits.items():
            begins[key], begin = begin, begin + len(split)
        every = pd.concat([split.facts for split in splits.values()], ignore_index=True)
        return every.iloc[[begins[id(split)] + index for split, index in self._rows]].reset_index(
            drop=True
        )

    @property
    def paths(self) -> list[str]:
        """Paths of the frames, in the order of iteration."""
        return self.facts.path.tolist()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths, in the order of iteration."""
        facts = self.facts
        return list(zip(facts.height.tolist(), facts.width.tolist(), strict=True))

    def take(self, positions: Iterable[int]) -> "Pictures":
        """Return some of the images, by their positions here."""
        return Pictures([self._rows[position] for position in positions])

    def __add__(self, others: "Pictures") -> "Pictures":
        return Pictures(self._rows + others._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (decode_image(split[index].image) for split, index in self._rows)


def mask_of(row: Row, shape: tuple[int, int]) -> np.ndarray | None:
    """Return the mask, bool (H, W): all False for a normal image, None where nobody drew one."""
    if row.mask is not None:
        return decode_mask(row.mask)
    return np.zeros(shape, bool) if row.label == 0 else None


def _read_group(path: Path, group: int) -> list[Row]:
    return [
        Row(
            path=item["image"]["path"],
            image=item["image"]["bytes"],
            mask=item["mask"]["bytes"] if item["mask"] else None,
            **{name: item[name] for name in FACTS},
        )
        for item in pq.ParquetFile(path).read_row_group(group).to_pylist()
    ]
