"""When single verdicts become an alarm, and where alarms are kept until they were told."""

import hashlib
import hmac
import json
import logging
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np

from blackswan.data.images import write_png
from blackswan.errors import InputError
from blackswan.outputs import replace_file, replace_folder

MOST_TOLD = 10  # alarms in a row, so that one which is refused holds up no other
SIGNED_BY = "BLACKSWAN_WEBHOOK_SECRET"
ALARMS, PENDING, FACTS = "alarms", "pending", "alarm.json"
FIRST_SECONDS, MOST_SECONDS = 1.0, 300.0  # between two tries of a webhook, doubled in between
ANSWER_SECONDS = 10.0

log = logging.getLogger(__name__)


class Window:
    """N of the last M frames raise an alarm; it ends once at most `least` of them are flagged."""

    def __init__(self, raise_at: int, of: int, end_at: int) -> None:
        """Begin without a frame; raises InputError where an alarm could never end or begin."""
        if not 0 <= end_at < raise_at <= of:
            raise InputError(
                f"an alarm at {raise_at} of {of} frames that ends at {end_at} cannot be; choose "
                "end-at < raise-at <= of"
            )
        self.raise_at, self.of, self.end_at = raise_at, of, end_at
        self.alarm = False
        self._times: deque[float | None] = deque(maxlen=of)  # of those flagged

    @property
    def began(self) -> float:
        """The time of the first flagged frame of the window."""
        return next(time for time in self._times if time is not None)

    def add(self, flagged: bool, time: float) -> Literal["raised", "ended"] | None:
        """Take the verdict on the frame of a time, in seconds; say what changed."""
        self._times.append(time if flagged else None)
        count = sum(time is not None for time in self._times)
        if not self.alarm and count >= self.raise_at:
            self.alarm = True
            return "raised"
        if self.alarm and count <= self.end_at:
            self.alarm = False
            return "ended"
        return None


class Outbox:
    """Alarms in a folder, and which of them a webhook has not acknowledged yet.

    An alarm is noted as pending before it appears, and taken from there once it was acknowledged:
    whatever is killed in between, the receiver sees it at least once.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder; what a killed run noted and never wrote is dropped."""
        self.folder, self._pending = folder / ALARMS, folder / PENDING
        self._pending.mkdir(parents=True, exist_ok=True)
        self._changed = threading.Condition()
        for name in self.pending():
            if not (self.folder / name).is_dir():
                (self._pending / name).unlink()

    def pending(self) -> list[str]:
        """Return the names of the alarms that were not acknowledged, the oldest first."""
        return sorted(path.name for path in self._pending.iterdir())

    def keep(
        self, name: str, facts: dict[str, Any], pictures: dict[str, np.ndarray], *, tell: bool
    ) -> None:
        """Write an alarm with its pictures, RGB; `tell` where a webhook shall hear of it."""
        if tell:
            (self._pending / name).touch()
        with replace_folder(self.folder / name) as partial:
            for title, picture in pictures.items():
                write_png(partial / f"{title}.png", picture)
            _write(partial / FACTS, facts)
        with self._changed:
            self._changed.notify_all()

    def end(self, name: str, **facts: object) -> None:
        """Add to the facts of an alarm that is over, unless somebody took it away."""
        if (self.folder / name).is_dir():
            _write(self.folder / name / FACTS, self.facts(name) | facts)

    def facts(self, name: str) -> dict[str, Any]:
        """Return what is known of an alarm."""
        content = (self.folder / name / FACTS).read_text(encoding="utf-8")
        return dict(json.loads(content))

    def acknowledged(self, name: str) -> None:
        """Tell no more of an alarm."""
        (self._pending / name).unlink(missing_ok=True)

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as there is another alarm."""
        with self._changed:
            self._changed.wait(seconds)

    def wake(self) -> None:
        """End a wait."""
        with self._changed:
            self._changed.notify_all()


class Webhook:
    """Tells a URL of each alarm, in a thread of its own, until it answers with 2xx."""

    def __init__(
        self,
        url: str,
        outbox: Outbox,
        first_seconds: float = FIRST_SECONDS,
        most_seconds: float = MOST_SECONDS,
    ) -> None:
        """Read the secret; raises InputError where there is none, or the URL is none."""
        secret = os.environ.get(SIGNED_BY, "")
        if not secret:
            raise InputError(f"--webhook needs a secret to sign with; set {SIGNED_BY}")
        if not url.startswith(("http://", "https://")):
            raise InputError("--webhook is no URL; begin it with https:// or http://")
        self._url, self._secret, self._outbox = url, secret.encode(), outbox
        self._first, self._most = first_seconds, most_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def close(self, seconds: float = 0) -> None:
        """End, after at most so many seconds for what is pending."""
        until = time.monotonic() + seconds
        while self._outbox.pending() and time.monotonic() < until:
            time.sleep(0.01)
        self._ended.set()
        self._outbox.wake()
        self._thread.join(ANSWER_SECONDS)

    def _run(self) -> None:
        wait = self._first
        with httpx.Client(timeout=ANSWER_SECONDS, follow_redirects=False) as client:
            while not self._ended.is_set():
                names = self._outbox.pending()
                if not names:
                    wait = self._first
                    self._outbox.wait(self._most)
                elif any([self._told(client, name) for name in names[:MOST_TOLD]]):
                    wait = self._first
                else:
                    self._ended.wait(wait)
                    wait = min(2 * wait, self._most)

    def _told(self, client: httpx.Client, name: str) -> bool:
        try:
            body = json.dumps(self._outbox.facts(name)).encode()
        except FileNotFoundError:  # it is noted and about to appear
            return False
        try:
            answer = client.post(self._url, content=body, headers=self._headers(name, body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("alarm %s is not delivered yet: %s", name, type(error).__name__)
            return False
        if not answer.is_success:
            log.warning("alarm %s is not delivered yet: status %d", name, answer.status_code)
            return False
        self._outbox.acknowledged(name)
        return True

    def _headers(self, name: str, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "X-Blackswan-Alarm": name,  # the same again where an answer was lost
            "X-Blackswan-Timestamp": stamp,
            "X-Blackswan-Signature": signature(self._secret, stamp, body),
        }


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """Return the HMAC-SHA256 over timestamp, dot and body, which the receiver computes too."""
    signed = hmac.new(secret, f"{stamp}.".encode() + body, hashlib.sha256)
    return f"sha256={signed.hexdigest()}"


def _write(path: Path, facts: dict[str, Any]) -> None:
    with replace_file(path) as partial:
        partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
