"""Videos: decoded one frame at a time, sampled by the container's own timestamps."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import av
import numpy as np
from pydantic import Field
from tqdm import tqdm

from blackswan.data.decoding import MAX_PIXELS
from blackswan.data.files import first, is_plain, kind_of, list_files, refuse_twins
from blackswan.data.records import Frame, SourceImage
from blackswan.data.sources.film import Film, Picture, open_container
from blackswan.errors import InputError
from blackswan.parallel import memory, parallel_map
from blackswan.params import Section

SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v"}
    | {".m4v", ".mj2", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts"}
    | {".vob", ".webm", ".wmv"}
)
MIN_SIDE = 16  # pixels; below this no detector sees anything


class Sampling(Section):
    """Which frames of a video are taken."""

    every_n_seconds: float = Field(ge=0)  # 0 takes every frame
    start_s: float = Field(ge=0)
    end_s: float | None = Field(gt=0)  # null: to the end
    max_frames: int | None = Field(ge=1)  # per video; null: no cap


def list_videos(path: Path) -> list[Path]:
    """Return the video itself, or the sorted videos below a folder, none of them twice by a link.

    Raises InputError as `files.list_files` does.
    """
    if path.is_file():
        return [path] if kind_of(path) in SUFFIXES else []
    videos = list_files(path, SUFFIXES).files
    refuse_twins(videos)
    return videos


def check_headers(videos: list[Path]) -> None:
    """Raise one InputError with all the `videos` that cannot be opened as such."""

    def why_not(path: Path) -> str:
        try:
            with _open(path):
                return ""
        except InputError as error:
            return str(error)

    if broken := list(filter(None, parallel_map(why_not, videos))):
        raise InputError(first(broken, "; "))


def iterate_frames(path: Path, sampling: Sampling, name: str = "") -> Iterator[SourceImage]:
    """Decode `path` and yield the sampled frames, named <name>/<number of the frame>.

    `name` is that of the source, by default of the file. Rotation and the shape of pixels are
    honoured. The last line says how many frames were declared, decoded and taken, and one on stderr
    what was damaged and whose times were mended. Raises InputError where nothing can be decoded or
    no frame falls into the sampled time.
    """
    name = name or path.name
    stem = name.removesuffix(path.suffix)
    taken = 0
    next_s = sampling.start_s
    with _open(path) as film:
        progress = tqdm(desc=name, total=film.declared or None, unit="frame", disable=None)
        with progress:
            for number, timestamp_s, picture in film.frames(sampling.start_s):
                progress.update()
                if sampling.end_s is not None and timestamp_s >= sampling.end_s:
                    break
                # Half a millisecond: containers round timestamps to one.
                if timestamp_s < next_s - 0.0005:
                    continue
                width, height = picture.size
                if min(width, height) < MIN_SIDE:
                    raise InputError(
                        f"{path} is {width}x{height} pixels; "
                        f"at least {MIN_SIDE}x{MIN_SIDE} are needed"
                    )
                if width * height > MAX_PIXELS:
                    raise InputError(
                        f"{path} is {width}x{height} pixels; at most {MAX_PIXELS:,} are decoded, "
                        "scale it down"
                    )
                frame = Frame(f"{stem}/{number:06d}", name, round(timestamp_s, 6))
                yield SourceImage(frame, partial(_converted, picture), picture.nbytes)
                taken += 1
                if taken == sampling.max_frames:
                    break
                next_s = _next_sample(timestamp_s, sampling)
    if complaints := list(film.complaints()):
        print(f"{name}: {'; '.join(complaints)}", file=sys.stderr)
    if not film.decoded:
        raise InputError(
            f"{path} has no frame that can be decoded; re-encode it, or export it again"
        )
    if not taken:
        raise InputError(
            f"{path}: none of its {film.passed} frames lies between "
            "extract_frames.video.start_s and end_s; widen them"
        )
    declared = film.declared or "unknown"
    print(f"{name}: {declared} frames declared, {film.decoded} decoded, {taken} taken")


def _converted(picture: Picture) -> tuple[np.ndarray, None]:
    # As it came, in RGB, turned, and as it will be written.
    with memory(4 * 3 * math.prod(picture.size)):
        return picture.rgb(), None  # here, for decoding waits for no one


def _next_sample(timestamp_s: float, sampling: Sampling) -> float:
    """Return the first sampling time after `timestamp_s`, on a grid that starts at start_s."""
    step = sampling.every_n_seconds
    if not step:
        return timestamp_s
    return (
        sampling.start_s + (np.floor((timestamp_s + 0.0005 - sampling.start_s) / step) + 1) * step
    )


@contextmanager
def _open(path: Path) -> Iterator[Film]:
    if not path.is_file():
        raise InputError(f"{path} is a broken link or no regular file; mend or remove it")
    if not is_plain(path.name):
        raise InputError(
            f"the name {ascii(path.name)} is not UTF-8 or has a control character; rename the video"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; copy it again")
    with path.open("rb"):  # says "no permission" in our words
        pass
    try:
        container = open_container(path)
    except av.error.FFmpegError:
        raise InputError(_why_not_opened(path)) from None
    with container:
        yield Film(path, container)


def _why_not_opened(path: Path) -> str:
    if _lacks_index(path):
        return (
            f"{path} has no moov atom, the index that a recorder writes last; record or copy it "
            "again, or mend it, e.g. with untrunc"
        )
    return f"{path} is no video that FFmpeg can read; re-encode it, e.g. with ffmpeg to H.264"


def _lacks_index(path: Path) -> bool:
    """Tell whether an MP4 or MOV file has no `moov` box."""
    kinds = []
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            size, kind = int.from_bytes(header[:4]), header[4:8]
            size = int.from_bytes(header[8:16]) if size == 1 else size
            kinds.append(kind)
            if size < 8 or kind == b"moov":
                break
            file.seek(size - len(header), os.SEEK_CUR)
    return bool(kinds) and kinds[0] in {b"ftyp", b"mdat", b"wide"} and b"moov" not in kinds
