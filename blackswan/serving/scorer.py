"""One detector, one thread that asks it, and the images that wait: together, in bounded memory.

Detectors keep state while they score, so a single thread scores; it takes what waits as one batch
and leaves the cores to torch. Images are decoded and prepared by other threads meanwhile.
"""

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from blackswan.data.decoding import FORMATS, decode_turned
from blackswan.data.regions import Ignored
from blackswan.errors import InputError
from blackswan.evaluation.model import Seen, Verdicts
from blackswan.parallel import available_cores
from blackswan.serving.confidence import confidences
from blackswan.serving.detectors import Loaded
from blackswan.serving.limits import Limits
from blackswan.serving.problems import Refused

BATCH = 16  # images that a detector gets at once
READY_BYTES = 256_000_000  # of prepared images, past which decoding waits for the detector
LINGER = 0.005  # seconds for which a batch that is not full waits for images being decoded


@dataclass(frozen=True)
class Upload:
    """An image that was sent."""

    read: Callable[[], io.BytesIO]  # raises InputError
    name: str  # in messages
    ignored: Ignored | None = None  # what does not count of its camera's pictures


@dataclass(frozen=True)
class Judged:
    """What a detector says of one image."""

    by: Loaded
    image: np.ndarray  # (H, W, 3) as the detector saw it
    shape: tuple[int, int]  # height and width of the photo, upright
    pose: np.ndarray | None
    found: Verdicts  # of the images that were scored together
    number: int  # which of them this is
    confidence: float
    ignored: list[Ignored]  # the regions that did not count
    embedding: np.ndarray | None = None  # (K,) what a log keeps of it


# Sums up the embeddings (N, D) of a detector as (N, K), for a log.
Summary = Callable[[np.ndarray], np.ndarray]


@dataclass(eq=False)
class _Waiting:
    by: Loaded
    upload: Upload
    future: "Future[Judged]" = field(default_factory=Future)
    seen: Seen | None = None
    shape: tuple[int, int] = (0, 0)


class Scorer:
    """Scores images that come from many threads."""

    def __init__(
        self,
        loaded: Loaded,
        limits: Limits,
        batched: Callable[[int], None],
        summary_of: Callable[[Loaded], Summary | None] | None = None,
    ) -> None:
        """Start the threads; `batched` hears how many images were scored at once.

        `summary_of` tells how embeddings are summed up for a log, if there is one.
        """
        self.current = loaded  # replaced whole: images that came before stay with theirs
        self._limits, self._batched, self._summary_of = limits, batched, summary_of
        self._changed = threading.Condition()
        self._ready: deque[_Waiting] = deque()
        self._errands: deque[tuple[Future[None], Callable[[], None]]] = deque()
        self._ready_bytes = self._decoding = self.pending = 0
        self._seconds = 0.1  # an image took lately
        self._closed = False
        cv2.setNumThreads(1)  # one image per thread beats many threads per image
        self.pool = ThreadPoolExecutor(available_cores(), "decode")
        self._worker = threading.Thread(target=self._work, name="score", daemon=True)
        self._worker.start()

    @property
    def alive(self) -> bool:
        """Say whether images that are sent will be scored."""
        return self._worker.is_alive() and not self._closed

    @property
    def has_room(self) -> bool:
        """Say whether one more image would be taken."""
        return self.pending < self._limits.waiting

    def swap(self, loaded: Loaded, instead_of: Loaded | None = None) -> bool:
        """Let another detector judge what is sent from now on: in the place of that one alone."""
        with self._changed:
            if instead_of is not None and self.current is not instead_of:
                return False
            self.current = loaded
            return True

    def between(self, work: Callable[[], None]) -> "Future[None]":
        """Have work that needs the detector done by the thread that scores, between two batches."""
        future: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise Refused(503, "the service is shutting down; try again soon", 5)
            self._errands.append((future, work))
            self._changed.notify_all()
        return future

    def judge(self, uploads: Sequence[Upload]) -> "list[Future[Judged]]":
        """Take images, all or none; a future that is cancelled drops its image.

        Raises Refused where there are too many, or no room.
        """
        if len(uploads) > self._limits.files:
            raise Refused(413, too_many(len(uploads), self._limits.files))
        with self._changed:
            if self._closed:
                raise Refused(503, "the service is shutting down; try again soon", 5)
            if self.pending + len(uploads) > self._limits.waiting:
                raise Refused(
                    429,
                    f"{self.pending} images wait already and at most {self._limits.waiting} may; "
                    "try again after the seconds of Retry-After",
                    self.pending * self._seconds,
                )
            self.pending += len(uploads)
            self._decoding += len(uploads)
            by = self.current  # of all images of a request
        items = [_Waiting(by, upload) for upload in uploads]
        for item in items:
            item.future.add_done_callback(self._leave)
            self.pool.submit(self._prepare, item)
        return [item.future for item in items]

    def close(self) -> None:
        """Score what waits, take nothing more, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.pool.shutdown()
        self._worker.join()

    def _leave(self, _: "Future[Judged]") -> None:
        with self._changed:
            self.pending -= 1

    def _prepare(self, item: _Waiting) -> None:
        try:
            if not item.future.cancelled():
                self._decode(item)
        except Exception as error:  # whatever it is, it belongs to who sent the image
            _fail(item, error)
        finally:
            with self._changed:
                if item.seen is not None and not item.future.done():
                    # Nothing waits for room while nothing is there to be scored.
                    size = item.seen.image.nbytes
                    self._changed.wait_for(
                        lambda: not self._ready or self._ready_bytes + size <= READY_BYTES
                    )
                    self._ready_bytes += size
                    self._ready.append(item)
                self._decoding -= 1
                self._changed.notify_all()

    def _decode(self, item: _Waiting) -> None:
        source, name = item.upload.read(), item.upload.name
        check_pixels(source, name, self._limits.pixels)
        preprocessing = item.by.model.facts.preprocessing
        photo = decode_turned(source, name, preprocessing.bit_depth)[0]
        item.shape = photo.shape[:2]
        item.seen = item.by.model.see(photo, item.upload.ignored, name)

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            self._run_errands()
            batch = [item for item in taken if item.future.set_running_or_notify_cancel()]
            if not batch:
                continue
            begin = time.monotonic()
            self._score(batch)
            self._batched(len(batch))
            lately = (time.monotonic() - begin) / len(batch)
            self._seconds += 0.1 * (lately - self._seconds)

    def _run_errands(self) -> None:
        while self._errands:
            future, work = self._errands.popleft()
            try:
                work()
                future.set_result(None)
            except Exception as error:  # it belongs to who sent it
                future.set_exception(error)

    def _take(self) -> list[_Waiting] | None:
        """Wait for images, or errands, and return those of one detector; None at the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ready or self._errands or (self._closed and not self._decoding)
            )
            if not self._ready:
                return [] if self._errands else None
            self._changed.wait_for(
                lambda: len(self._ready) >= BATCH or not self._decoding, timeout=LINGER
            )
            batch: list[_Waiting] = []
            while self._ready and len(batch) < BATCH:
                if batch and self._ready[0].by is not batch[0].by:
                    break
                batch.append(self._ready.popleft())
            self._ready_bytes -= sum(item.seen.image.nbytes for item in batch if item.seen)
            self._changed.notify_all()
            return batch

    def _score(self, batch: list[_Waiting]) -> None:
        by, images = batch[0].by, [item.seen for item in batch if item.seen]
        try:
            found, embeddings = self._found(by, images)
            sure = confidences(by.model, found)
        except Exception as error:
            if len(batch) > 1:  # one of them may be at fault, and the others are not
                for item in batch:
                    self._score([item])
            else:
                batch[0].future.set_exception(error)
            return
        for number, (item, seen) in enumerate(zip(batch, images, strict=True)):
            judged = Judged(
                by, seen.image, item.shape, seen.pose, found, number, float(sure[number]),
                by.model.regions(item.upload.ignored),
                None if embeddings is None else embeddings[number],
            )  # fmt: skip
            item.future.set_result(judged)

    def _found(self, by: Loaded, images: list[Seen]) -> tuple[Verdicts, np.ndarray | None]:
        summary = self._summary_of(by) if self._summary_of else None
        if summary is None:
            return by.model.score_seen(images), None
        from blackswan.drift.embedding import overhearing  # an export is served without scipy

        with overhearing(by.model.detector) as heard:
            found = by.model.score_seen(images)
        embedded = heard.embeddings(by.model.detector, [seen.image for seen in images])
        return found, None if embedded is None else summary(embedded)


def _fail(item: _Waiting, error: Exception) -> None:
    if item.future.set_running_or_notify_cancel():
        item.future.set_exception(error)


def too_many(count: int, most: int) -> str:
    """Say that a request has too many images."""
    return f"the request has {count:,} images, the limit is {most}; send fewer at a time"


def check_pixels(source: io.BytesIO | Path, name: str, most: int) -> None:
    """Raise InputError where an image has more pixels than the service takes.

    What cannot be read says so when it is decoded.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
    except Exception:  # Pillow's parsers raise anything; `decode_turned` says it in a sentence
        return
    if width * height > most:
        raise InputError(
            f"{name} has {width} x {height} pixels, the limit is {most:,}; scale it down"
        )
