"""The table of decisions: rows are added, two reviewers collide, a full disk loses nothing."""

import errno
import os
import threading

import pytest

from blackswan.data.known import sha256_of
from blackswan.errors import InputError
from blackswan.serving.decisions import Decision, Decisions, OvertakenError

A, B = sha256_of(b"a"), sha256_of(b"b")


def decision(sha256=A, user="anna", label="normal", camera="line1", verdict="anomalous", **other):
    values = {"name": "part.png", "detector": "padim", "detector_hash": "h", "score": 7.5,
              "p_value": 0.02, "defect": "", "note": ""} | other  # fmt: skip
    return Decision(
        id=0, sha256=sha256, version=0, camera=camera, user=user, time="", verdict=verdict,
        label=label, **values,
    )  # fmt: skip


@pytest.fixture
def decisions(tmp_path):
    kept = Decisions(tmp_path / "kept")
    yield kept
    kept.close()


def test_a_row_is_added_for_each_decision_and_the_latest_counts(decisions, tmp_path):
    first = decisions.keep(decision(), b"a", 0)
    second = decisions.keep(decision(label="anomalous", user="ben"), b"a", 1)
    assert (first.id, first.version, second.id, second.version) == (1, 1, 2, 2)
    assert [row.user for row in decisions.page(10)] == ["ben", "anna"]
    assert decisions.counted() == [second] == [decisions.latest(A)]
    assert decisions.image(A).read_bytes() == b"a"
    assert first.time <= second.time  # in milliseconds, which two may share
    again = Decisions(tmp_path / "kept")  # as another process would
    assert again.page(10) == [second, first]
    again.close()


def test_who_decides_without_having_seen_the_latest_is_told(decisions):
    decisions.keep(decision(user="anna"), None, 0)
    with pytest.raises(OvertakenError) as overtaken:
        decisions.keep(decision(user="ben", label="anomalous"), None, 0)
    assert (overtaken.value.latest.user, overtaken.value.latest.version) == ("anna", 1)
    with pytest.raises(OvertakenError) as ahead:
        decisions.keep(decision(sha256=B), None, 3)
    assert ahead.value.latest is None
    assert len(decisions.page(10)) == 1


def test_a_decision_whose_answer_was_lost_is_kept_once(decisions):
    first = decisions.keep(decision(), None, 0)
    assert decisions.keep(decision(), None, 0) == first
    assert len(decisions.page(10)) == 1


def test_of_two_at_once_one_is_kept(decisions, tmp_path):
    others, found = [decisions, Decisions(tmp_path / "kept")], []
    barrier = threading.Barrier(2)

    def decide(number):
        barrier.wait()
        try:
            others[number].keep(decision(user=f"user{number}"), b"a", 0)
            found.append("kept")
        except OvertakenError as overtaken:
            found.append(overtaken.latest.user)

    threads = [threading.Thread(target=decide, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (row,) = decisions.page(10)
    assert sorted(found) == sorted(["kept", row.user])
    others[1].close()


def test_a_full_disk_is_said_and_what_was_kept_stays(decisions):
    decisions.keep(decision(), None, 0)
    pages = decisions._table.execute("PRAGMA page_count").fetchone()[0]
    decisions._table.execute(f"PRAGMA max_page_count = {pages}")
    kept = []

    def fill():
        for number in range(100):
            one = decision(sha256=sha256_of(bytes([number])), note="n" * 900)
            kept.append(decisions.keep(one, None, 0))

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        fill()
    assert decisions.page(500)[:-1] == kept[::-1]
    decisions._table.execute("PRAGMA max_page_count = 1000000")
    decisions.keep(decision(sha256=B), None, 0)
    assert len(decisions.page(500)) == len(kept) + 2


def test_pages_by_camera_and_day(decisions):
    rows = [decisions.keep(decision(sha256=sha256_of(bytes([n])), camera=f"line{n % 2}"), None, 0)
            for n in range(5)]  # fmt: skip
    assert [row.id for row in decisions.page(2)] == [5, 4]
    assert [row.id for row in decisions.page(2, before=4)] == [3, 2]
    assert [row.id for row in decisions.page(9, camera="line1")] == [4, 2]
    assert [row.id for row in decisions.page(9, sha256=rows[2].sha256)] == [3]
    day = rows[0].time[:10]
    assert len(decisions.page(9, day=day)) == 5
    assert decisions.page(9, day="2020-01-01") == []


def test_the_override_rate_counts_the_latest_of_each_image(decisions):
    decisions.keep(decision(label="normal"), None, 0)
    decisions.keep(decision(label="anomalous"), None, 1)  # the detector was right after all
    decisions.keep(decision(sha256=B, label="normal"), None, 0)
    decisions.keep(decision(sha256=sha256_of(b"c"), camera="line2", label="normal"), None, 0)
    found = {rate.camera: (rate.decided, rate.overrides, rate.rate) for rate in decisions.rates(7)}
    assert found == {"line1": (2, 1, 0.5), "line2": (1, 1, 1.0)}


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "decisions.sqlite").write_bytes(b"no table at all, but long enough " * 40)
    with pytest.raises(InputError, match="cannot be opened as a table of decisions; bring it back"):
        Decisions(tmp_path)


def test_every_commit_is_synchronous(decisions):
    assert decisions._table.execute("PRAGMA synchronous").fetchone() == (2,)
    assert decisions._table.execute("PRAGMA journal_mode").fetchone() == ("wal",)
