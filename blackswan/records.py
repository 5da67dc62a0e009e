"""The frame record: what every source yields and every index file holds, one row per image."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from blackswan.errors import InputError
from blackswan.outputs import replace_file


@dataclass(frozen=True)
class Frame:
    """One image on disk; paths are relative to the index, unknowns are empty."""

    image: str
    source: str
    timestamp_s: float | None = None
    group: str = ""  # what is never divided between splits: a block of time, the shots of one part
    split: str = ""  # train, validation, test
    label: str = ""  # normal, anomalous
    defect: str = ""
    mask: str = ""


@dataclass(frozen=True)
class SourceImage:
    """What a source yields: the record (its `image` without suffix) and how to read the pixels.

    `read` returns the RGB image, uint8 (H, W, 3), and its mask, bool (H, W), or None. It may be
    called in any thread.
    """

    frame: Frame
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]


COLUMNS = [field.name for field in fields(Frame)]


def write_index(path: Path, frames: Iterable[Frame]) -> None:
    """Write the records as CSV, sorted by image."""
    table = pd.DataFrame([asdict(frame) for frame in frames], columns=COLUMNS)
    table["timestamp_s"] = table["timestamp_s"].astype("float64")
    with replace_file(path) as partial:
        table.sort_values("image").to_csv(partial, index=False, float_format="%.6f")


def read_index(path: Path) -> list[Frame]:
    """Read the records of `path`; raises InputError where it is missing or is no index."""
    try:
        table = pd.read_csv(
            path,
            dtype={name: float if name == "timestamp_s" else str for name in COLUMNS},
            keep_default_na=False,
            na_values={"timestamp_s": [""]},
        )
    except (FileNotFoundError, pd.errors.EmptyDataError):
        raise InputError(
            f"{path} is missing or empty; run the stage that writes it with `dvc repro`"
        ) from None
    except ValueError:
        raise InputError(f"{path} is no index of images; write it again with `dvc repro`") from None
    if list(table.columns) != COLUMNS:
        raise InputError(f"{path} has the columns {list(table.columns)}; expected {COLUMNS}")
    return [
        Frame(**{**row, "timestamp_s": None if pd.isna(row["timestamp_s"]) else row["timestamp_s"]})
        for row in table.to_dict("records")
    ]
