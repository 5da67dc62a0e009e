"""N of M with hysteresis, and a webhook that hears of each alarm at least once."""

import json
import time
from functools import partial
from itertools import count

import numpy as np
import pytest
from kills import killed_at
from servers import serving

from blackswan.errors import InputError
from blackswan.serving.alarms import SIGNED_BY, Outbox, Webhook, Window, signature

PICTURES = {"frame": np.zeros((4, 4, 3), np.uint8)}


def changes(window, flags):
    return [window.add(flag == "x", number) for number, flag in enumerate(flags)]


def test_n_of_m_raise_an_alarm_and_it_ends_at_fewer():
    window = Window(3, 5, 1)
    found = changes(window, ".x.x.x" + "x.x.x" + ".....x..")
    # 3 of 5 at frame 5; the count stays at 2 and more until frame 13
    assert [(number, change) for number, change in enumerate(found) if change] == [
        (5, "raised"), (13, "ended"),
    ]  # fmt: skip
    assert window.alarm is False


def test_single_flags_raise_nothing_and_a_count_that_wavers_raises_once():
    assert changes(Window(3, 5, 1), "x....x....xx....") == [None] * 16
    wavering = changes(Window(3, 5, 1), "xxx.x.x.x.xx.x.x")
    assert [change for change in wavering if change] == ["raised"]


def test_an_alarm_begins_at_the_first_flagged_frame_of_the_window():
    window = Window(2, 4, 0)
    changes(window, "..x.x")
    assert (window.alarm, window.began) == (True, 2)


@pytest.mark.parametrize("rule", [(3, 2, 0), (3, 5, 3), (2, 4, -1)])
def test_a_rule_that_cannot_be_is_refused(rule):
    with pytest.raises(InputError, match="cannot be; choose end-at < raise-at <= of"):
        Window(*rule)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_each_alarm_is_told_signed_until_it_is_acknowledged(tmp_path, monkeypatch):
    monkeypatch.setenv(SIGNED_BY, "of-the-test")
    heard, statuses = [], iter([500, 302, 200, 204])

    def answer(body, headers):
        heard.append((body, headers))
        return next(statuses), {"Location": "http://127.0.0.1:1/"}, b""

    outbox = Outbox(tmp_path)
    with serving(answer_post=answer) as url:
        webhook = Webhook(url, outbox, first_seconds=0.01)
        outbox.keep("a", {"alarm": "a"}, PICTURES, tell=True)
        until(lambda: outbox.pending() == [])
        outbox.keep("b", {"alarm": "b"}, PICTURES, tell=True)
        outbox.keep("c", {"alarm": "c"}, PICTURES, tell=False)
        until(lambda: outbox.pending() == [])
        webhook.close()
    assert [json.loads(body)["alarm"] for body, _ in heard] == ["a", "a", "a", "b"]
    for body, headers in heard:
        assert headers["X-Blackswan-Signature"] == signature(
            b"of-the-test", headers["X-Blackswan-Timestamp"], body
        )
        assert headers["X-Blackswan-Alarm"] == json.loads(body)["alarm"]
    assert signature(b"other", "1", b"{}") != signature(b"of-the-test", "1", b"{}")
    # openssl: printf '1.{}' | openssl dgst -sha256 -hmac k
    assert signature(b"k", "1", b"{}") == (
        "sha256=3dd49b2593d0f9a349e9e71c4bde3e2b862c2be4003fe9b4ba81332029310158"
    )


def test_what_was_not_told_is_told_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.setenv(SIGNED_BY, "of-the-test")
    killed, heard = Outbox(tmp_path), []
    for name in ("1", "2"):
        killed.keep(name, {"alarm": name}, PICTURES, tell=True)
    (tmp_path / "pending/3").touch()  # noted, and killed before it was written
    outbox = Outbox(tmp_path)
    assert outbox.pending() == ["1", "2"]

    def answer(body, _):
        heard.append(json.loads(body)["alarm"])
        return 200, {}, b""

    with serving(answer_post=answer) as url:
        Webhook(url, outbox).close(20)
    assert heard == ["1", "2"]
    assert Outbox(tmp_path).pending() == []
    assert outbox.facts("1") == {"alarm": "1"}


def test_killed_at_any_moment_an_alarm_that_is_there_is_yet_to_be_told(tmp_path):
    def keep(folder):
        Outbox(folder).keep("a", {"alarm": "a"}, PICTURES, tell=True)

    found = []
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        if not killed_at(number, partial(keep, folder)):
            break
        there = (folder / "alarms/a").is_dir()
        assert Outbox(folder).pending() == (["a"] if there else [])
        found.append(there)
    assert len(found) > 3
    assert Outbox(folder).pending() == ["a"]


def test_an_end_is_added_to_the_alarm(tmp_path):
    outbox = Outbox(tmp_path)
    outbox.keep("a", {"raised": 1.0}, PICTURES, tell=False)
    outbox.end("a", ended=2.0)
    assert outbox.facts("a") == {"raised": 1.0, "ended": 2.0}


def test_a_webhook_needs_a_secret_and_a_url(tmp_path, monkeypatch):
    monkeypatch.delenv(SIGNED_BY, raising=False)
    with pytest.raises(InputError, match=f"needs a secret to sign with; set {SIGNED_BY}"):
        Webhook("https://here", Outbox(tmp_path))
    monkeypatch.setenv(SIGNED_BY, "s")
    with pytest.raises(InputError, match="is no URL"):
        Webhook("here", Outbox(tmp_path))
