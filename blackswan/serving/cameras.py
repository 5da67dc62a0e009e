"""Frames as they come: of a file, a folder that fills, or a camera that may be lost and send noise.

What is live is read by a thread of its own that keeps the newest frame alone: a detector that is
slower than the camera misses frames, which are counted, and never falls behind.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from blackswan.data.decoding import decode_turned
from blackswan.data.files import list_images
from blackswan.data.sources import video
from blackswan.data.sources.film import Picture
from blackswan.data.sources.video import Sampling
from blackswan.errors import InputError, shown

SCHEMES = ("rtsp://", "rtsps://", "http://", "https://", "tcp://", "udp://")
USB = "usb:"
FIRST_SECONDS, MOST_SECONDS = 1.0, 60.0  # between two tries to connect, doubled in between
SILENT_SECONDS = 10.0  # after which a camera that sends nothing is lost
GARBAGE = 50  # packets in a row that cannot be decoded, after which it is connected anew
SETTLED_SECONDS = 1.0  # since a file of a folder was written last: it may be half of one


class Shot(NamedTuple):
    """A frame and when it is from: seconds of a film, or since 1970."""

    image: np.ndarray  # uint8 (H, W, 3), RGB
    time: float


@dataclass
class Counts:
    """What became of the frames of a source."""

    scored: int = 0
    dropped: int = 0  # came while another was scored, or before the next was due
    garbage: int = 0  # could not be decoded
    lost: int = 0  # times that the stream broke off
    connected: bool = False


def open_camera(
    source: str, bit_depth: int, every_n_seconds: float, counts: Counts, ended: threading.Event
) -> Iterator[Shot]:
    """Yield the frames of a source until it ends, or `ended` is set.

    `rtsp://...` and other URLs are live, `usb:0` is a camera of this machine, a folder is watched
    for new images, a film is read once. Raises InputError where the source is none of these.
    """
    if source.startswith((*SCHEMES, USB)):
        return Live(source, every_n_seconds, counts, ended).shots()
    path = Path(source)
    if path.is_dir():
        return watch_folder(path, bit_depth, counts, ended)
    if path.is_file() and video.list_videos(path):
        return read_film(path, every_n_seconds, counts, ended)
    raise InputError(
        f"{shown(source)} is no film, folder or camera; name a file, a folder, usb:0 or an URL "
        f"that begins with {', '.join(SCHEMES)}"
    )


def read_film(
    path: Path, every_n_seconds: float, counts: Counts, ended: threading.Event
) -> Iterator[Shot]:
    """Yield each frame of a film: it waits, so none is dropped."""
    counts.connected = True
    sampling = Sampling(every_n_seconds=every_n_seconds, start_s=0, end_s=None, max_frames=None)
    for item in video.iterate_frames(path, sampling):
        if ended.is_set():
            break
        yield Shot(item.read()[0], item.frame.timestamp_s or 0.0)
    counts.connected = False


def watch_folder(
    folder: Path, bit_depth: int, counts: Counts, ended: threading.Event
) -> Iterator[Shot]:
    """Yield the images that come into a folder from now on, in the order of writing.

    They wait in the folder, so none is dropped.
    """
    seen = {path: _written(path) for path in list_images(folder)}
    return _newer(folder, seen, bit_depth, counts, ended)


def _newer(
    folder: Path, seen: dict[Path, int], bit_depth: int, counts: Counts, ended: threading.Event
) -> Iterator[Shot]:
    counts.connected = True
    while not ended.wait(SETTLED_SECONDS / 4):
        before = time.time_ns() - int(SETTLED_SECONDS * 1e9)
        try:
            listed = list_images(folder)
        except InputError:  # one was taken away while the others were listed
            continue
        seen = {path: seen[path] for path in listed if path in seen}
        for written, path in sorted((_written(path), path) for path in listed):
            if seen.get(path) == written or written > before:
                continue
            seen[path] = written
            try:
                image = decode_turned(path, path.name, bit_depth)[0]
            except InputError:
                counts.garbage += 1
                continue
            yield Shot(image, written / 1e9)
            if ended.is_set():
                return


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # taken away since it was listed
        return 0


class Live:
    """The newest frame of a camera."""

    def __init__(
        self,
        address: str,
        every_n_seconds: float,
        counts: Counts,
        ended: threading.Event,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        """Begin to read, in a thread."""
        self._address, self._every = address, every_n_seconds
        self._first = self._wait = first_seconds
        self._counts, self._ended = counts, ended
        self._changed = threading.Condition()
        self._newest: tuple[Picture, float] | None = None
        threading.Thread(target=self._read, name="camera", daemon=True).start()

    def shots(self) -> Iterator[Shot]:
        """Yield the newest frame whenever the last was dealt with and the next is due."""
        due = 0.0
        while not self._ended.is_set():
            self._ended.wait(max(0.0, due - time.monotonic()))
            with self._changed:
                # Now and then whoever asks is let go, to see whether all is to end.
                self._changed.wait_for(lambda: self._newest is not None, timeout=0.1)
                newest, self._newest = self._newest, None
            if newest is None:
                continue
            due = time.monotonic() + self._every
            yield Shot(newest[0].rgb(), newest[1])

    def _read(self) -> None:
        while not self._ended.is_set():
            # no stream, or no longer one
            with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
                self._read_once()
            self._counts.connected = False
            self._counts.lost += 1
            self._ended.wait(self._wait)
            self._wait = min(2 * self._wait, MOST_SECONDS)

    def _read_once(self) -> None:
        """Read until the stream breaks off or is nothing but garbage."""
        in_a_row = 0
        with self._open() as container:
            film = container.streams.best("video")
            if not isinstance(film, av.VideoStream):
                return
            aspect = Fraction(film.sample_aspect_ratio or 1)
            for packet in container.demux(film):
                if self._ended.is_set() or in_a_row >= GARBAGE:
                    break
                try:
                    frames = [frame for frame in packet.decode() if not frame.is_corrupt]
                except av.error.FFmpegError:
                    self._counts.garbage += 1
                    frames = []
                in_a_row = 0 if frames else in_a_row + 1
                for frame in frames:
                    self._put(Picture(frame, aspect, round(frame.rotation / 90) % 4))

    def _open(self) -> av.container.InputContainer:
        if self._address.startswith(USB):
            device = self._address.removeprefix(USB)
            path = f"/dev/video{device}" if device.isdigit() else device
            return av.open(path, format="v4l2", timeout=SILENT_SECONDS)
        options = {"rtsp_transport": "tcp"} if self._address.startswith("rtsp") else {}
        return av.open(self._address, options=options, timeout=SILENT_SECONDS)

    def _put(self, picture: Picture) -> None:
        self._counts.connected, self._wait = True, self._first
        with self._changed:
            self._counts.dropped += self._newest is not None
            self._newest = (picture, time.time())
            self._changed.notify_all()
