"""The frame record: what every source yields and every index file holds, one row per image."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

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
    called in any thread. `nbytes` are the pixels that wait in it, decoded already.
    """

    frame: Frame
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    nbytes: int = 0


COLUMNS = [field.name for field in fields(Frame)]


def write_index(path: Path, frames: Iterable[Frame]) -> None:
    """Write the records as CSV, sorted by image."""
    with replace_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for frame in sorted(frames, key=lambda frame: frame.image):
            time = "" if frame.timestamp_s is None else f"{frame.timestamp_s:.6f}"
            writer.writerow({**asdict(frame), "timestamp_s": time})


def read_index(path: Path) -> list[Frame]:
    """Read the records of `path`; raises InputError where it is missing or is no index."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except FileNotFoundError:
        rows = []
    except (ValueError, csv.Error):
        raise InputError(f"{path} is no index of images; write it again with `dvc repro`") from None
    if not rows:
        raise InputError(
            f"{path} is missing or empty; run the stage that writes it with `dvc repro`"
        )
    if rows[0] != COLUMNS:
        raise InputError(f"{path} has the columns {rows[0][:8]}; expected {COLUMNS}")
    try:
        return [_to_frame(dict(zip(COLUMNS, row, strict=True))) for row in rows[1:]]
    except ValueError:
        raise InputError(f"{path} is no index of images; write it again with `dvc repro`") from None


def _to_frame(row: dict[str, str]) -> Frame:
    time = row.pop("timestamp_s")
    return Frame(**row, timestamp_s=float(time) if time else None)
