"""Images from many threads go through one detector: together, in order, and none is lost."""

import io
import threading
import time

import numpy as np
import pytest
from conftest import make_model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from blackswan.data.images import encode_png
from blackswan.errors import InputError
from blackswan.evaluation.model import Model
from blackswan.serving import scorer as module
from blackswan.serving.detectors import Loaded
from blackswan.serving.limits import Limits
from blackswan.serving.problems import Refused
from blackswan.serving.scorer import BATCH, Scorer, Upload


def upload(level=100):
    """A flat image, which the detector of the tests scores 0."""
    content = encode_png(np.full((16, 16, 3), level, np.uint8))
    return Upload(lambda: io.BytesIO(content), f"level {level}")


class Held:
    """A detector that scores once it is let go, and refuses an image whose first pixel is 13."""

    def __init__(self):
        self.inner = make_model().detector
        self.go, self.sizes, self.threads = threading.Event(), [], set()

    def score(self, images):
        assert self.go.wait(10)
        self.sizes.append(len(images))
        self.threads.add(threading.get_ident())
        if any(image[0, 0, 0] == 13 for image in images):
            raise InputError("thirteen")
        return self.inner.score(images)


def loaded(detector, hash_="a"):
    model = make_model()
    return Loaded(Model(detector, model.facts, model.normal_scores), "here", hash_, None)


@pytest.fixture
def held():
    """A detector that waits, and its scorer, which has begun on a first image."""
    detector, batches = Held(), []
    scorer = Scorer(loaded(detector), Limits(waiting=40), batches.append)
    scorer.batches = batches
    scorer.judge([upload()])
    until(lambda: not scorer._ready and not scorer._decoding)
    yield detector, scorer
    detector.go.set()
    scorer.close()


def until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never came")


def test_what_comes_together_is_scored_together(held):
    detector, scorer = held
    futures = [scorer.judge([upload(level)])[0] for level in range(100, 120)]
    until(lambda: len(scorer._ready) == 20)
    detector.go.set()
    judged = [future.result(10) for future in futures]
    assert [int(one.image[0, 0, 0]) for one in judged] == [*range(100, 120)]
    until(lambda: len(scorer.batches) == 3)
    assert scorer.batches == detector.sizes == [1, BATCH, 4]
    assert len(detector.threads) == 1


def test_a_full_queue_refuses_and_takes_again(held):
    detector, scorer = held
    futures = scorer.judge([upload()] * 39)
    assert not scorer.has_room
    with pytest.raises(Refused, match="40 images wait already and at most 40 may") as refused:
        scorer.judge([upload()])
    assert refused.value.status == 429
    assert refused.value.retry_seconds > 0
    detector.go.set()
    for future in futures:
        future.result(10)
    until(lambda: scorer.pending == 0)
    assert scorer.judge([upload()])[0].result(10).found.threshold == 5


def test_who_goes_away_leaves_room_and_costs_nothing(held):
    detector, scorer = held
    for future in scorer.judge([upload()] * 39):
        assert future.cancel()
    assert scorer.pending == 1
    (last,) = scorer.judge([upload()])
    detector.go.set()
    last.result(10)
    assert sum(detector.sizes) == 2


def test_one_image_spoils_no_other(held):
    detector, scorer = held
    futures = scorer.judge([upload(100), upload(13), upload(101)])
    until(lambda: len(scorer._ready) == 3)
    detector.go.set()
    assert [int(futures[n].result(10).image[0, 0, 0]) for n in (0, 2)] == [100, 101]
    with pytest.raises(InputError, match="thirteen"):
        futures[1].result(10)


def test_an_image_that_cannot_be_read_is_of_who_sent_it(held):
    detector, scorer = held

    def fail():
        raise InputError("no image")

    futures = scorer.judge([Upload(fail, "a"), upload()])
    detector.go.set()
    with pytest.raises(InputError, match="no image"):
        futures[0].result(10)
    assert futures[1].result(10).confidence < 0.5


def test_a_swap_loses_nothing(held):
    detector, scorer = held
    old = scorer.judge([upload()] * 3)
    until(lambda: len(scorer._ready) == 3)
    scorer.swap(loaded(make_model().detector, "b"))
    new = scorer.judge([upload()] * 3)
    until(lambda: len(scorer._ready) == 6)
    detector.go.set()
    assert [future.result(10).by.hash for future in old + new] == ["a"] * 3 + ["b"] * 3
    until(lambda: len(scorer.batches) == 3)
    assert scorer.batches == [1, 3, 3]


def test_closing_scores_what_waits_and_takes_no_more():
    scorer = Scorer(loaded(make_model().detector), Limits(), lambda _: None)
    futures = scorer.judge([upload()] * 30)
    scorer.close()
    assert all(future.done() and not future.cancelled() for future in futures)
    assert not scorer.alive
    with pytest.raises(Refused, match="shutting down") as refused:
        scorer.judge([upload()])
    assert refused.value.status == 503


def test_prepared_images_take_bounded_memory(held, monkeypatch):
    monkeypatch.setattr(module, "READY_BYTES", 3 * 16 * 16 * 3)
    detector, scorer = held
    futures = scorer.judge([upload()] * 20)
    until(lambda: len(scorer._ready) == 3)
    time.sleep(0.05)
    assert scorer._ready_bytes == 3 * 16 * 16 * 3
    detector.go.set()
    for future in futures:
        future.result(10)
    assert max(detector.sizes) <= 3


def test_too_many_images_of_a_request(held):
    _, scorer = held
    scorer._limits = Limits(files=2)
    with pytest.raises(Refused, match="the request has 3 images, the limit is 2") as refused:
        scorer.judge([upload()] * 3)
    assert refused.value.status == 413
