import threading
import time

import pytest

from blackswan.parallel import available_cores, parallel_map


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


def test_there_is_a_core():
    assert available_cores() >= 1
