"""Files beside images or videos that would label them, and the param that reads each.

Nothing here reads labels; it keeps anomalies from training as normal because no param names the
file that tells of them.
"""

import csv
import mmap
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from blackswan.data.drawings import is_yolo, read_drawing
from blackswan.data.files import list_files
from blackswan.data.sources.video import SUFFIXES as VIDEOS
from blackswan.errors import InputError

TIMES = ["video", "start_s", "end_s", "defect"]  # columns of a table of videos
TABLE = ["image", "label"]  # columns that a table of images needs
TRIED = 20  # files that look like drawings and turn out to be none
_BOXES = "lines of left, top, right and bottom in pixels"


class Hint(NamedTuple):
    """What a file is, and what reads it."""

    what: str
    remedy: str


def find(path: Path, names: Collection[str], anomalous: str) -> list[Hint]:
    """Find what would label the files of a source, `names` below `path`.

    Those of photos come without suffix. `anomalous` is the sub-folder that masks are laid out like.
    """
    try:
        files = list_files(path, {".json", ".jsonl", ".manifest", ".csv", ".txt"}).files
    except InputError:  # of files that nothing else reads
        return []
    are_videos = any(PurePosixPath(name).suffix.lower() in VIDEOS for name in names)
    found: dict[str, Hint] = {}
    drawn = {".json": 0, ".txt": 0}
    for file in files:
        name = file.relative_to(path)
        suffix = file.suffix.lower()
        masks = "" if are_videos else _masks(PurePosixPath(name.as_posix()), names, anomalous)
        if masks and drawn[suffix] < TRIED:
            drawn[suffix] += 1
            if hint := _drawing(file, name, masks):
                found.setdefault(suffix, hint)
                drawn[suffix] = TRIED
        elif not masks and (what := _annotations(file, are_videos)):
            remedy = f"extract_frames.folder.annotations={name.as_posix()}"
            found.setdefault(name.as_posix(), Hint(f"{name.as_posix()}, {what}", remedy))
    return list(found.values())


def _masks(name: PurePosixPath, names: Collection[str], anomalous: str) -> str:
    """Return the param `masks` that would take a file as the mask of an image, "" if none would."""
    stem = name.with_suffix("")
    if name.suffix.lower() not in (".json", ".txt"):
        return ""
    if stem.as_posix() in names:
        return f"'*{name.suffix}'"
    image = PurePosixPath(anomalous, *stem.parts[1:])
    is_like = anomalous and len(stem.parts) > 1 and image.as_posix() in names
    return stem.parts[0] if is_like else ""


def _drawing(file: Path, name: Path, masks: str) -> Hint | None:
    remedy = f"extract_frames.folder.masks={masks}"
    if file.suffix.lower() == ".txt" and is_yolo(file):
        what = f"boxes as shares of the image (YOLO), such as {name.as_posix()}"
        return Hint(what, f"{remedy} once they are {_BOXES}")
    try:
        drawing = read_drawing(file)
    except InputError:
        return None
    if file.suffix.lower() == ".txt" and not drawing.polygons:
        return None  # a note without words
    kind = "LabelMe files" if file.suffix.lower() == ".json" else "boxes"
    return Hint(f"{kind} such as {name.as_posix()}", remedy)


def _annotations(file: Path, are_videos: bool) -> str:
    """Say what `annotations` would read in a file, "" where it would refuse it."""
    with file.open("rb") as content:
        head = content.readline(1 << 16)
    suffix = file.suffix.lower()
    if suffix == ".csv":
        columns = next(csv.reader([head.decode("utf-8-sig", "replace").strip()]), [])
        if are_videos:
            return "a table of times" if columns == TIMES else ""
        return "a table of images and labels" if set(TABLE) <= set(columns) else ""
    if are_videos:
        return ""
    if suffix == ".json":
        return "a COCO file" if head and _has(file, b'"images"', b'"file_name"') else ""
    is_manifest = suffix in (".jsonl", ".manifest") and b'"source-ref"' in head
    return "a manifest of SageMaker Ground Truth" if is_manifest else ""


def _has(file: Path, *keys: bytes) -> bool:
    """Look for keys in a file that may be large."""
    with (
        file.open("rb") as content,
        mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        return all(mapped.find(key) >= 0 for key in keys)
