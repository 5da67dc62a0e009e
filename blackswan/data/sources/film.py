"""The film of one file by PyAV: whole frames, upright, with square pixels and rising times."""

import re
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import av.filter
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from blackswan.data.sources.clock import Clock, missing
from blackswan.errors import InputError

# Of these a packet is a frame, so that frames can be numbered without decoding them.
_COUNTABLE = frozenset({"av1", "h264", "hevc", "mjpeg", "mpeg2video", "mpeg4", "prores", "vp9"})
# In these a damaged part takes frames along unseen; others list all frames in one place.
_WITHOUT_LIST = frozenset({"asf", "flv", "matroska", "mpeg", "mpegts"})
_MANY = 0.1  # share of times that are mended: too many to look for gaps
_STILLS = frozenset({"bmp", "gif", "mjpeg", "png", "webp"})  # beside a film, they are its cover
_RATE = Fraction(25)  # of streams that declare none, as FFmpeg has it
_MAX_ASPECT = 10  # width of a pixel by its height, or the other way round
_OPTIONS = {"err_detect": "explode"}  # what FFmpeg would conceal is an error instead
_HEAD = 2**20  # bytes at either end of a file, in one of which the name of the codec is
_CODEC = re.compile(rb"vmhd.*?stsd.{12}(.{4})|vids(.{4})|(V_[A-Z0-9_/]+)", re.DOTALL)

# What goes wrong in a stream is told in one line of ours, not in many of FFmpeg's.
av.logging.set_level(None)


@dataclass(frozen=True)
class Picture:
    """A decoded frame, not yet RGB."""

    frame: VideoFrame
    aspect: Fraction  # width of a pixel by its height
    quarters: int  # counter-clockwise turns by 90 degrees

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height of the upright image in pixels."""
        size = (self._width, self.frame.height)
        return size[::-1] if self.quarters % 2 else size

    @property
    def nbytes(self) -> int:
        """Return the bytes that wait in the frame."""
        return sum(plane.buffer_size for plane in self.frame.planes)

    @property
    def _width(self) -> int:
        return max(1, round(self.frame.width * self.aspect))

    def rgb(self) -> np.ndarray:
        """Return the upright image, uint8 (H, W, 3); the same bytes for any number of threads."""
        rgb = self.frame.reformat(
            width=self._width, format="rgb24", interpolation=Interpolation.BICUBIC, threads=1
        ).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, self.quarters))


@dataclass(frozen=True)
class _Timed:
    frame: VideoFrame
    number: int
    timestamp_s: float
    quarters: int


def open_container(path: Path) -> InputContainer:
    """Open a file; what it holds beside its streams, such as a title, may be no UTF-8."""
    return av.open(str(path), metadata_errors="replace")


class Film:
    """The moving picture of an opened file; counts what it decodes, leaves out and mends."""

    def __init__(self, path: Path, container: InputContainer) -> None:
        self._path = path
        self._container = container
        self._stream = _find_film(path, container)
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.options = _OPTIONS
        self._aspect = _pixel_aspect(path, self._stream)
        self._clock = Clock(self._stream.average_rate or self._stream.guessed_rate or _RATE)
        self._times = array("d")
        self.declared = max(0, self._stream.frames)
        self.decoded = self.damaged = 0
        self.passed = 0  # frames until here, with the damaged and those before the keyframe

    def frames(self, start_s: float) -> Iterator[tuple[int, float, Picture]]:
        """Yield number in the stream, time in seconds and picture of each whole frame.

        Decoding may begin at a keyframe before `start_s`; numbers and times are those of the whole.
        """
        keyframe = self._find_keyframe(start_s) if start_s else None
        for timed in _deinterlaced(self._timed(keyframe)):
            self.decoded += 1
            yield (
                timed.number,
                timed.timestamp_s,
                Picture(timed.frame, self._aspect, timed.quarters),
            )

    def complaints(self) -> Iterator[str]:
        """Yield what was damaged and what was mended, a clause each."""
        if self.damaged:
            yield f"{self.damaged} frames are damaged, or build on such, and are left out"
        if (lost := self._count_missing()) > 0:
            yield f"{lost} frames are missing, by the gaps in the times"
        if self._clock.mended:
            yield (
                f"the clock steps back or stands still at {self._clock.mended} frames; times were "
                "made to rise"
            )

    def _count_missing(self) -> int:
        """Return how many frames left no trace but a gap in the times, less those counted."""
        kinds = self._container.format.name.split(",")
        is_made_up = self._clock.mended > _MANY * len(self._times)
        if is_made_up or _WITHOUT_LIST.isdisjoint(kinds):
            return 0
        return missing(self._times) - self.damaged

    def _timed(self, keyframe: tuple[int, int] | None) -> Iterator[_Timed]:
        """Yield the whole frames, from the keyframe on, in the order of showing."""
        origin, unit = self._stream.start_time or 0, self._stream.time_base
        for frame in self._whole(keyframe):
            time = None if frame.pts is None or unit is None else float((frame.pts - origin) * unit)
            number, quarters = self.passed - 1, round(frame.rotation / 90) % 4
            self._times.append(self._clock.read(time))
            yield _Timed(frame, number, self._times[-1], quarters)

    def _whole(self, keyframe: tuple[int, int] | None) -> Iterator[VideoFrame]:
        """Yield what decodes without error and does not build on what did not.

        A damaged stream is read again by one thread: of several, errors come late, and whole frames
        are lost with them.
        """
        self.passed, from_pts = keyframe or (0, None)
        intact = 0
        try:
            for packet in _packets(self._container, self._stream, from_pts):
                frames = packet.decode()
                if any(frame.is_corrupt for frame in frames):
                    break
                for frame in frames:
                    intact += 1
                    self.passed += 1
                    yield frame
            else:
                return
        except av.error.FFmpegError:
            pass
        yield from islice(self._whole_of_damaged(keyframe), intact, None)

    def _whole_of_damaged(self, keyframe: tuple[int, int] | None) -> Iterator[VideoFrame]:
        """Yield the same, read by one thread; frames are numbered by their times, if they can."""
        self.passed, from_pts = first, _ = keyframe or (0, None)
        times = self._list_times()[0]
        whole = 0
        with open_container(self._path) as container:
            stream = container.streams.video[self._container.streams.video.index(self._stream)]
            stream.codec_context.options = _OPTIONS
            stream.codec_context.thread_count = 1
            for frame in self._among_damaged(_packets(container, stream, from_pts)):
                whole += 1
                if times and frame.pts is not None:
                    self.passed = bisect_left(times, frame.pts) + 1
                    self.damaged = self.passed - first - whole
                yield frame
        if times:
            self.passed, self.damaged = len(times), len(times) - first - whole

    def _among_damaged(self, packets: Iterator[Packet]) -> Iterator[VideoFrame]:
        broken = False
        try:
            for packet in packets:
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    broken = True
                    self._count(damaged=True)
                    continue
                for frame in frames:
                    broken = frame.is_corrupt or (broken and not frame.key_frame)
                    self._count(broken)
                    if not broken:
                        yield frame
        except av.error.FFmpegError:  # the container breaks off
            self._count(damaged=True)

    def _count(self, damaged: bool) -> None:
        self.passed += 1
        self.damaged += damaged

    def _list_times(self) -> tuple[list[int], list[int]]:
        """Return the sorted pts of all frames and of the keyframes, from packets, undecoded.

        Both are empty where a packet is not surely a frame or has no time of its own.
        """
        if self._stream.codec_context.name not in _COUNTABLE:
            return [], []
        if "avi" in self._container.format.name:
            return [], []  # it holds the order of decoding only
        with open_container(self._path) as container:
            packets = []
            try:
                for packet in container.demux(container.streams[self._stream.index]):
                    if packet.size and not packet.is_discard:
                        packets.append((packet.pts, packet.is_keyframe))
            except av.error.FFmpegError:
                pass  # the container breaks off here, as it will for the decoder
        times = sorted({pts for pts, _ in packets if pts is not None})
        keys = [pts for pts, is_key in packets if is_key and pts is not None]
        rises = len(times) == len(packets) and keys == sorted(keys)
        return (times, keys) if rises else ([], [])

    def _find_keyframe(self, start_s: float) -> tuple[int, int] | None:
        """Return number and pts of a keyframe before `start_s`, None where it cannot be told."""
        times, keys = self._list_times()
        unit = self._stream.time_base
        if not times or unit is None:
            return None
        start = bisect_left(times, (self._stream.start_time or 0) + int(start_s / unit) - 1)
        # Deinterlacing looks at the frame before: one more than is needed.
        keys = [pts for pts in keys if bisect_left(times, pts) <= start - 2]
        if not keys or keys[-1] == times[0]:
            return None
        with open_container(self._path) as container:
            stream = container.streams[self._stream.index]
            container.seek(keys[-1], stream=stream)
            reached = next(container.demux(stream)).pts
        is_before = reached is not None and reached <= keys[-1]
        return (bisect_left(times, keys[-1]), keys[-1]) if is_before else None


def _packets(
    container: InputContainer, stream: VideoStream, from_pts: int | None
) -> Iterator[Packet]:
    """Yield the packets from that of `from_pts` on, less those that build on earlier ones."""
    if from_pts is not None:
        container.seek(from_pts, stream=stream)
    started = from_pts is None
    for packet in container.demux(stream):
        started = started or packet.pts == from_pts
        leads = from_pts is not None and packet.pts is not None and packet.pts < from_pts
        if started and not leads:
            yield packet


def _deinterlaced(frames: Iterator[_Timed]) -> Iterator[_Timed]:
    """Yield a frame for each; from the first interlaced one on, interlaced frames are filtered."""
    graph: av.filter.Graph | None = None
    form: tuple[int, int, str] | None = None
    waiting: deque[_Timed] = deque()
    for timed in frames:
        frame = timed.frame
        if graph is None and not frame.interlaced_frame:
            yield timed
            continue
        if graph is None or form != (frame.width, frame.height, frame.format.name):
            if graph is not None:
                graph.vpush(None)
                yield from _pulled(graph, waiting)
            graph, form = _build_graph(frame), (frame.width, frame.height, frame.format.name)
        waiting.append(timed)
        graph.vpush(frame)
        yield from _pulled(graph, waiting)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph, waiting)


def _pulled(graph: av.filter.Graph, waiting: deque[_Timed]) -> Iterator[_Timed]:
    while waiting:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        timed = waiting.popleft()
        yield replace(timed, frame=frame)


def _build_graph(frame: VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=frame.time_base or 1 / _RATE,
        ),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _find_film(path: Path, container: InputContainer) -> VideoStream:
    """Return the video stream that is no cover picture; InputError where there is none."""
    films = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not films:
        held = "sound but no moving picture" if container.streams.audio else "no film"
        raise InputError(f"{path} holds {held}; take the file that has the video")
    moving = [
        stream
        for stream in films
        if stream.codec_context is not None and stream.codec_context.name not in _STILLS
    ]
    best = container.streams.best("video")
    film = next((stream for stream in moving if stream is best), (moving or films)[0])
    if film.codec_context is None:
        raise InputError(
            f"{path} uses the codec {_codec_of(path)}, which FFmpeg cannot decode; re-encode it to "
            "H.264 with the program that wrote it"
        )
    return film


def _pixel_aspect(path: Path, stream: VideoStream) -> Fraction:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
        raise InputError(
            f"{path} says that its pixels are {aspect} times as wide as high; re-encode it with "
            "the right aspect, e.g. with `ffmpeg -vf setsar=1`"
        )
    return aspect


def _codec_of(path: Path) -> str:
    """Return the name that the container gives to the codec of its first video stream."""
    with path.open("rb") as file:
        content = file.read(_HEAD)
        file.seek(max(0, path.stat().st_size - _HEAD))
        content += file.read()
    found = _CODEC.search(content)
    return ascii((found[1] or found[2] or found[3]).decode("latin-1")) if found else "of no name"
