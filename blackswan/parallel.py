"""Work on all cores with a bounded number of items, and of bytes, in flight."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import is_dataclass
from types import FrameType, TracebackType
from typing import TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")

BUDGET = 640_000_000  # bytes; one image of 80 megapixels takes 7 or 8 a pixel while it is decoded


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yield function(item) in the order of `items`, computed by threads; at most 4 a worker wait.

    Threads are enough: decoding, resizing and encoding release the interpreter lock. Pixels and
    files in items and results count toward the budget of `memory`. The first exception of an item
    is raised here and what has not begun is dropped. Not to be called by `function` again.
    """
    workers = workers or available_cores()
    cv2.setNumThreads(1)  # one image per thread beats many threads per image
    waiting: deque[tuple[Future[Result], int]] = deque()
    fetched, over = 0, False

    def work(item: Item, number: int) -> Result:
        with _Job(lambda: over or number == fetched) as job:
            result = function(item)
            job.keeps = size_of(result)
        return result

    def fetch() -> Result:
        nonlocal fetched
        future, weight = waiting[0]
        with _uninterrupted() as interrupted:
            while not interrupted() and not wait([future], timeout=0.1).done:
                pass
        result = future.result()
        waiting.popleft()
        fetched += 1
        _shared.release(weight + size_of(result))
        return result

    try:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for number, item in enumerate(items):
                    weight = size_of(item)
                    while waiting and not _shared.has_room_for(weight):
                        yield fetch()
                    _shared.keep(weight)
                    with _uninterrupted():
                        waiting.append((pool.submit(work, item, number), weight))
                    del item  # else the last one lives on while its result is awaited
                    if len(waiting) >= 4 * workers:
                        yield fetch()
                while waiting:
                    yield fetch()
            finally:
                over = True
                for future, _ in waiting:
                    future.cancel()
                _shared.release(0)  # wakes those who waited for their result to be the next
    finally:
        for future, weight in waiting:
            finished = not future.cancelled() and future.exception() is None
            _shared.release(weight + (size_of(future.result()) if finished else 0))


@contextmanager
def memory(amount: int) -> Iterator[None]:
    """Wait until the block may use `amount` bytes beside all other blocks, in whatever thread.

    What fits into BUDGET goes at once and in parallel, what is larger goes alone. Inside
    `parallel_map` the bytes are held until the item is done, and blocks that follow share them.
    """
    job = getattr(_thread, "job", None)
    if job is not None:
        job.grow(amount)
        yield
    else:
        with _Job(lambda: True) as job:
            job.grow(amount)
            yield


def size_of(value: object) -> int:
    """Return the bytes of the arrays and byte strings in a value, a sequence or a dataclass."""
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(map(size_of, value))
    if hasattr(value, "nbytes"):
        return int(value.nbytes)
    return sum(map(size_of, vars(value).values())) if is_dataclass(value) else 0


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _uninterrupted() -> Iterator[Callable[[], bool]]:
    """Hold Ctrl-C back until the end of the block, which may ask whether it came.

    The locks of concurrent.futures are taken in Python code: an interruption between its lines
    leaves them taken, and the threads would wait for ever.
    """
    came: list[tuple[int, FrameType | None]] = []
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, lambda *call: came.append(call))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)
    if came and callable(before):
        before(*came[0])


class _Budget:
    """Bytes that jobs use and that items and results keep while they wait.

    One job always moves: none waits while it uses something, and the one whose result is fetched
    next waits for no result of others.
    """

    def __init__(self) -> None:
        self._used = self._kept = 0
        self._lock = threading.RLock()  # Ctrl-C on the way into a Condition would leave it taken
        self._changed = threading.Condition(self._lock)

    def take(self, amount: int, is_next: Callable[[], bool]) -> None:
        with self._lock:
            self._changed.wait_for(
                lambda: (
                    self._used + self._kept + amount <= BUDGET
                    or (not self._used and (not self._kept or is_next()))
                )
            )
            self._used += amount

    def give(self, amount: int, keeps: int = 0) -> None:
        with self._lock:
            self._used -= amount
            self._kept += keeps
            self._changed.notify_all()

    def keep(self, amount: int) -> None:
        with self._lock:
            self._kept += amount

    def release(self, amount: int) -> None:
        with self._lock:
            self._kept -= amount
            self._changed.notify_all()

    def has_room_for(self, amount: int) -> bool:
        """Say whether half of the budget is left to the jobs when an item waits too."""
        with self._lock:
            return amount == 0 or self._kept + amount <= BUDGET // 2


class _Job:
    """What a thread uses from here to the end of the block."""

    def __init__(self, is_next: Callable[[], bool]) -> None:
        self._is_next = is_next
        self._used = self.keeps = 0

    def grow(self, amount: int) -> None:
        if amount > self._used:
            _shared.give(self._used)  # two that hold a part and want more would wait for ever
            self._used = 0
            _shared.take(amount, self._is_next)
            self._used = amount

    def __enter__(self) -> "_Job":
        _thread.job = self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _thread.job = None
        _shared.give(self._used, self.keeps)


_shared = _Budget()
_thread = threading.local()
