import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from blackswan import parallel
from blackswan.parallel import available_cores, memory, parallel_map, size_of


@pytest.mark.parametrize("workers", [1, 2, 7, None])
def test_results_come_in_the_order_of_the_items(workers):
    def slow_first(item):
        time.sleep(0.002 * (10 - item % 10))
        return item * item

    assert list(parallel_map(slow_first, range(40), workers)) == [n * n for n in range(40)]


def test_few_items_are_in_flight():
    taken, most = 0, 0

    def items():
        nonlocal taken
        for number in range(100):
            taken += 1
            yield number

    for done, _ in enumerate(parallel_map(lambda item: item, items(), 2)):
        most = max(most, taken - done)
    assert taken == 100
    assert most <= 8


def test_work_is_done_by_several_threads():
    meeting = threading.Barrier(2, timeout=5)
    assert len(list(parallel_map(lambda _: meeting.wait(), range(2), 2))) == 2


def test_the_first_exception_stops_the_work():
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise KeyError(item)
        return item

    with pytest.raises(KeyError):
        list(parallel_map(work, range(1000), 2))
    assert len(begun) < 50


def test_an_exception_of_the_items_is_raised():
    def items():
        yield 1
        raise OSError("the stream broke off")

    with pytest.raises(OSError, match="broke off"):
        list(parallel_map(lambda item: item, items(), 2))


@pytest.fixture
def ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_an_item_is_handed_over_is_raised_after(ctrl_c, monkeypatch):
    handed_over = []
    submit = ThreadPoolExecutor.submit

    def interrupted(pool, *call):
        ctrl_c()
        handed_over.append(call)  # no line of it is left out
        return submit(pool, *call)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(parallel_map(str, range(1000), 2))
    assert len(handed_over) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_ends_the_wait_for_a_result(ctrl_c):
    def work(item):
        if item == 3:
            ctrl_c()  # the signal is the main thread's, which waits
        return item

    with pytest.raises(KeyboardInterrupt):
        list(parallel_map(work, range(1000), 2))
    assert list(parallel_map(work, range(3), 2)) == [0, 1, 2]


def test_who_ignores_ctrl_c_is_not_interrupted(ctrl_c):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does of what runs in the background
    assert len(list(parallel_map(lambda item: ctrl_c() or item, range(10), 2))) == 10
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_there_is_a_core():
    assert available_cores() >= 1


@pytest.fixture
def budget(monkeypatch):
    """100 bytes, all of which are free again at the end."""
    monkeypatch.setattr(parallel, "BUDGET", 100)
    shared = parallel._Budget()
    monkeypatch.setattr(parallel, "_shared", shared)
    yield shared
    assert (shared._used, shared._kept) == (0, 0)


class Meter:
    """Counts the bytes in use and remembers the most."""

    def __init__(self):
        self.now = self.most = 0
        self.lock = threading.Lock()

    def add(self, amount):
        with self.lock:
            self.now += amount
            self.most = max(self.most, self.now)

    def use(self, amount):
        with memory(amount):
            self.add(amount)
            time.sleep(0.002)
            self.add(-amount)


def test_what_is_large_takes_turns(budget):
    meter = Meter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(meter.use, [60, 30, 5, 5, 60, 5, 250, 30] * 4))
    assert meter.now == 0
    assert meter.most == 250  # alone


def test_what_is_small_goes_at_once(budget):
    meeting = threading.Barrier(4, timeout=5)

    def meet(_):
        with memory(25):
            return meeting.wait()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(meet, range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_that_wait_count(budget, workers):
    meter = Meter()

    def make(item):
        with memory(40):
            meter.add(40)
        time.sleep(0.002 * (item % 3))
        return bytes(40)

    for result in parallel_map(make, range(30), workers):
        assert len(result) == 40
        meter.add(-40)
    assert meter.most <= 140  # the budget, and the one that is in the hand


def test_the_next_result_does_not_wait_for_results_of_others(budget):
    late = threading.Event()

    def make(item):
        if item == 0:
            assert late.wait(5)  # until the other result fills the budget
        with memory(100):
            pass
        if item == 1:
            late.set()
        return bytes(100 if item == 1 else 0)

    assert [len(result) for result in parallel_map(make, range(4), 4)] == [0, 100, 0, 0]


def test_two_that_hold_a_part_and_want_all_of_it(budget):
    meeting = threading.Barrier(2, timeout=5)

    def make(item):
        with memory(40):
            meeting.wait()
        with memory(100):
            return item

    assert list(parallel_map(make, range(2), 2)) == [0, 1]


def test_items_that_wait_count(budget):
    taken, most = 0, 0

    def items():
        nonlocal taken
        for _ in range(20):
            taken += 1
            yield np.zeros(20, np.uint8)

    for done, _ in enumerate(parallel_map(len, items(), 8)):
        most = max(most, taken - done)
    assert taken == 20
    assert most <= 3  # two of them in half the budget, and the one that was taken last


def test_an_exception_or_an_early_end_frees_the_budget(budget):
    def make(item):
        with memory(60):
            if item == 5:
                raise KeyError(item)
        return bytes(60)

    with pytest.raises(KeyError):
        list(parallel_map(make, range(20), 4))
    results = parallel_map(make, range(4), 4)
    next(results)
    results.close()


def test_sizes():
    @dataclass
    class Row:
        name: str
        image: bytes
        pixels: np.ndarray

    row = Row("a", bytes(5), np.zeros((2, 3), np.uint16))
    assert size_of([row, (row, None)]) == 34
    assert size_of({"a": 1}) == size_of("text") == size_of(Row) == 0
