"""Videos: decoded one frame at a time, sampled by the container's own timestamps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field
from tqdm import tqdm

from blackswan.data.files import is_plain, refuse_twins
from blackswan.data.records import Frame, SourceImage
from blackswan.errors import InputError
from blackswan.parallel import memory
from blackswan.params import Section

SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".gif"})
MIN_SIDE = 16  # pixels; below this no detector sees anything

# Where a stream breaks off is told in one line of ours, not in many of FFmpeg's.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


class Sampling(Section):
    """Which frames of a video are taken."""

    every_n_seconds: float = Field(ge=0)  # 0 takes every frame
    start_s: float = Field(ge=0)
    end_s: float | None = Field(gt=0)  # null: to the end
    max_frames: int | None = Field(ge=1)  # per video; null: no cap


def list_videos(path: Path) -> list[Path]:
    """Return the video itself, or the sorted videos of a folder, none of them twice by a link."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    videos = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    refuse_twins(videos)
    return videos


def iterate_frames(path: Path, sampling: Sampling) -> Iterator[SourceImage]:
    """Decode `path` and yield the sampled frames, named <stem>/<number of the frame>.

    Rotation metadata is honoured by the decoder. Decoding ends where the stream breaks off, and the
    progress bar and the last line say how many frames were declared and how many decoded. Raises
    InputError where nothing can be decoded or no frame falls into the sampled time.
    """
    decoded = taken = 0
    next_s = sampling.start_s
    with _open(path) as capture:
        declared = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        with tqdm(desc=path.name, total=declared or None, unit="frame", disable=None) as progress:
            while taken != sampling.max_frames and capture.grab():
                timestamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                decoded += 1
                progress.update()
                if sampling.end_s is not None and timestamp_s >= sampling.end_s:
                    break
                # Half a millisecond: containers round timestamps to one.
                if timestamp_s < next_s - 0.0005:
                    continue
                image = _retrieve(capture, path)
                frame = Frame(f"{path.stem}/{decoded - 1:06d}", path.name, round(timestamp_s, 6))
                yield SourceImage(frame, partial(_decoded, image), image.nbytes)
                taken += 1
                next_s = _next_sample(timestamp_s, sampling)
    if not decoded:
        raise InputError(
            f"{path} has no frame that can be decoded; re-encode it, or export it again"
        )
    if not taken:
        raise InputError(
            f"{path}: none of its {decoded} frames lies between extract_frames.video.start_s "
            "and end_s; widen them"
        )
    print(f"{path.name}: {declared or 'unknown'} frames declared, {decoded} decoded, {taken} taken")


def _decoded(image: np.ndarray) -> tuple[np.ndarray, None]:
    with memory(3 * image.nbytes):  # as it came, in RGB, and as it will be written
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None  # here, for decoding waits for no one


def _next_sample(timestamp_s: float, sampling: Sampling) -> float:
    """Return the first sampling time after `timestamp_s`, on a grid that starts at start_s."""
    step = sampling.every_n_seconds
    if not step:
        return timestamp_s
    return (
        sampling.start_s + (np.floor((timestamp_s + 0.0005 - sampling.start_s) / step) + 1) * step
    )


@contextmanager
def _open(path: Path) -> Iterator[cv2.VideoCapture]:
    if not path.is_file():
        raise InputError(f"{path} is a broken link or no regular file; mend or remove it")
    if not is_plain(path.name):
        raise InputError(
            f"the name {ascii(path.name)} is not UTF-8 or has a control character; rename the video"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; copy it again")
    with path.open("rb"):  # says "no permission" where OpenCV would only say "not opened"
        pass
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise InputError(
                f"{path} is no video that OpenCV can read; re-encode it, e.g. with ffmpeg to H.264"
            )
        yield capture
    finally:
        capture.release()


def _retrieve(capture: cv2.VideoCapture, path: Path) -> np.ndarray:
    decoded, image = capture.retrieve()  # (H, W, 3) BGR
    if not decoded:
        raise InputError(f"{path} has a frame that OpenCV cannot decode; re-encode the video")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise InputError(
            f"{path} is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed"
        )
    return image
