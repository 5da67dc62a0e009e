"""What people decide of images: kept in SQLite, and the images beside it by their sha256.

A row is added for each decision and never changed; of an image the latest counts. `keep` returns
once the row is on the disk (write-ahead log, synchronous FULL), so what it returned is not lost.
"""

import errno
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from blackswan.errors import InputError

TABLE, IMAGES = "decisions.sqlite", "images"
BUSY_SECONDS = 10  # for which another process may hold the table


@dataclass(frozen=True)
class Decision:
    """What a person decided of one image, and what the detector had said."""

    id: int
    sha256: str  # of the bytes of the image
    version: int  # 1 for the first decision of this image
    camera: str
    name: str  # of the image, as it was sent
    user: str  # as the client says
    time: str  # UTC
    detector: str
    detector_hash: str
    score: float
    p_value: float
    verdict: str  # of the detector: normal or anomalous
    label: str  # what was decided: normal or anomalous
    defect: str
    note: str


@dataclass(frozen=True)
class Rate:
    """How often the latest decisions of a day differ from the detector's verdict."""

    camera: str
    day: str
    decided: int
    overrides: int

    @property
    def rate(self) -> float:
        """Overrides of what was decided, 0 to 1."""
        return self.overrides / self.decided


class OvertakenError(Exception):
    """Somebody decided since; `latest` is what."""

    def __init__(self, latest: Decision | None) -> None:
        super().__init__()
        self.latest = latest


COLUMNS = [field.name for field in fields(Decision)]
LATEST = "version = (SELECT max(version) FROM decision AS other WHERE other.sha256 = d.sha256)"
SCHEMA = """
CREATE TABLE IF NOT EXISTS decision (
    id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, version INTEGER NOT NULL, camera TEXT NOT NULL,
    name TEXT NOT NULL, user TEXT NOT NULL, time TEXT NOT NULL, detector TEXT NOT NULL,
    detector_hash TEXT NOT NULL, score REAL NOT NULL, p_value REAL NOT NULL, verdict TEXT NOT NULL,
    label TEXT NOT NULL, defect TEXT NOT NULL, note TEXT NOT NULL, UNIQUE (sha256, version)
);
CREATE INDEX IF NOT EXISTS decision_time ON decision (time);
"""


class Decisions:
    """The decisions of a folder."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, new where there is none; raises InputError where it holds no table."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._turn = folder, threading.Lock()
        try:
            self._table = sqlite3.connect(
                folder / TABLE,
                timeout=BUSY_SECONDS,
                isolation_level=None,  # transactions begin where `keep` says
                check_same_thread=False,
            )
            self._table.execute("PRAGMA journal_mode = WAL")
            self._table.execute("PRAGMA synchronous = FULL")
            self._table.executescript(SCHEMA)
        except sqlite3.DatabaseError:
            raise InputError(
                f"{folder / TABLE} cannot be opened as a table of decisions; bring it back from a "
                "copy, or move it away to begin a new one"
            ) from None

    def close(self) -> None:
        """End; what was kept stays."""
        with self._turn:
            self._table.close()

    def keep(self, decision: Decision, content: bytes | None, seen: int) -> Decision:
        """Keep a decision of an image whose version `seen` was; return it as it is kept.

        Its id, version and time are given here. Where the same decision was kept before, but its
        answer did not arrive, that one is returned. Raises OvertakenError where somebody else
        decided since, OSError (ENOSPC) where the disk is full.
        """
        if content is not None:
            self._keep_image(decision.sha256, content)
        with self._turn, self._writing():
            latest = self._latest(decision.sha256)
            version = latest.version if latest else 0
            if latest and version == seen + 1 and _says(latest) == _says(decision):
                return latest
            if version != seen:
                raise OvertakenError(latest)
            time = datetime.now(UTC).isoformat(timespec="milliseconds")
            row = replace(decision, version=version + 1, time=time)
            marks = ", ".join("?" * (len(COLUMNS) - 1))
            cursor = self._table.execute(
                f"INSERT INTO decision ({', '.join(COLUMNS[1:])}) VALUES ({marks})",
                astuple(row)[1:],
            )
            return replace(row, id=int(cursor.lastrowid or 0))  # committed on the way out

    def latest(self, sha256: str) -> Decision | None:
        """Return the latest decision of an image."""
        with self._turn:
            return self._latest(sha256)

    def page(self, limit: int, before: int | None = None, **equal: str | None) -> list[Decision]:
        """Return decisions, the newest first, of ids below `before`.

        `equal` are columns that must have a value, and `day`.
        """
        wanted = {key: value for key, value in equal.items() if value is not None}
        day = wanted.pop("day", None)
        if unknown := wanted.keys() - set(COLUMNS):
            raise KeyError(*unknown)
        terms = [f"{key} = ?" for key in wanted]
        values: list[Any] = [*wanted.values()]
        if day is not None:
            terms += ["time >= ?", "time < ?"]
            values += [day, f"{day}U"]  # T follows the day, U comes after it
        if before is not None:
            terms, values = [*terms, "id < ?"], [*values, before]
        where = f"WHERE {' AND '.join(terms)}" if terms else ""
        return self._read(f"{where} ORDER BY id DESC LIMIT ?", *values, limit)

    def counted(self) -> list[Decision]:
        """Return the decision that counts of each image, by its sha256."""
        return self._read(f"AS d WHERE {LATEST} ORDER BY sha256")

    def rates(self, days: int) -> list[Rate]:
        """Return how often people overrode the detector, by day (of the last ones) and camera."""
        since = (datetime.now(UTC) - timedelta(days=days - 1)).date().isoformat()
        with self._turn:
            rows = self._table.execute(
                "SELECT camera, substr(time, 1, 10) AS day, count(*), sum(label != verdict) "
                f"FROM decision AS d WHERE time >= ? AND {LATEST} "
                "GROUP BY camera, day ORDER BY day DESC, camera",
                (since,),
            ).fetchall()
        return [Rate(*row) for row in rows]

    def image(self, sha256: str) -> Path:
        """Return where the image of this sha256 lies, if it was kept."""
        return self.folder / IMAGES / sha256[:2] / sha256

    def _keep_image(self, sha256: str, content: bytes) -> None:
        path = self.image(sha256)
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: another process may keep the same image now.
        descriptor, name = tempfile.mkstemp(".partial", ".", path.parent)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _latest(self, sha256: str) -> Decision | None:
        row = self._table.execute(
            f"SELECT {', '.join(COLUMNS)} FROM decision WHERE sha256 = ? "
            "ORDER BY version DESC LIMIT 1",
            (sha256,),
        ).fetchone()
        return Decision(*row) if row else None

    def _read(self, rest: str, *values: object) -> list[Decision]:
        with self._turn:
            rows = self._table.execute(
                f"SELECT {', '.join(COLUMNS)} FROM decision {rest}", values
            ).fetchall()
        return [Decision(*row) for row in rows]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Write in one transaction: what is not committed at the end is as if it never was."""
        try:
            self._table.execute("BEGIN IMMEDIATE")
            yield
            self._table.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
            raise
        finally:
            if self._table.in_transaction:
                self._table.execute("ROLLBACK")


def _says(decision: Decision) -> tuple[str, ...]:
    return decision.user, decision.label, decision.defect, decision.note
