"""What the detector said of each image, kept in Parquet parts (blackswan/drift/log.py).

Answers wait in bounded memory for a thread that writes them, every minute or thousand of them, each
part whole or not at all. Where the disk is full they wait for the next try, and what no longer
finds room is counted as lost; images are scored all the same. A process that is killed loses what
waits, a minute at most.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blackswan.drift import log, reference
from blackswan.drift.embedding import Components
from blackswan.drift.report import states
from blackswan.errors import InputError
from blackswan.outputs import replace_file
from blackswan.serving.detectors import Loaded
from blackswan.serving.scorer import Judged

PART_ROWS, PART_SECONDS = 1000, 60.0  # after which a part is written, whichever comes first
MOST_ROWS = 20 * PART_ROWS  # that wait

_said = logging.getLogger(__name__)


class Recorder:
    """Writes the log of a service."""

    def __init__(
        self,
        folder: Path,
        part_rows: int = PART_ROWS,
        part_seconds: float = PART_SECONDS,
        most_rows: int = MOST_ROWS,
    ) -> None:
        """Start its thread; raises InputError where the folder cannot be made."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            raise InputError(f"{folder} cannot be made; name another folder with --log") from None
        self.folder = folder
        self.written = self.lost = 0
        self._part_rows, self._part_seconds, self._most = part_rows, part_seconds, most_rows
        self._rows: deque[dict[str, Any]] = deque()
        self._components: dict[str, Components | None] = {}
        self._changed = threading.Condition()
        self._closed = self._failed = False
        self._number = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Answers that are not on the disk yet."""
        return len(self._rows)

    def prepare(self, loaded: Loaded) -> Loaded:
        """Keep the reference of a detector that will answer, some seconds for a new version."""
        folder = self.folder / loaded.hash
        found = reference.load(folder)
        if found is None:
            found = reference.build(Path(loaded.source), loaded.model)
            reference.save(folder, found)
        self._components[loaded.hash] = found.components
        return loaded

    def components(self, loaded: Loaded) -> Components | None:
        """Return what sums up embeddings; a bank that grew has the backbone that it had before."""
        return self._components.get(loaded.base or loaded.hash)

    def states(self, loaded: Loaded) -> list[dict[str, Any]]:
        """Return what `blackswan drift-report` found last of each camera."""
        return states(self.folder, loaded.hash)

    def add(self, judged: Sequence[Judged], camera: str) -> None:
        """Take answers; those that find no room are lost, and counted."""
        now = datetime.now(UTC)
        rows = [_row(one, camera, now) for one in judged]
        with self._changed:
            room = max(0, self._most - len(self._rows))
            self._rows.extend(rows[:room])
            self.lost += len(rows[room:])
            if len(self._rows) >= self._part_rows:
                self._changed.notify_all()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                self._changed.wait_for(self._is_due, timeout=self._part_seconds)
            self._failed = not self._write()
        while self._rows and self._write():
            pass
        if self._rows:
            _said.error("%d answers are lost, for the log cannot be written", len(self._rows))
            self.lost += len(self._rows)

    def _is_due(self) -> bool:
        # After a failure a full part is no reason to try again at once.
        return self._closed or (len(self._rows) >= self._part_rows and not self._failed)

    def _write(self) -> bool:
        """Write the oldest answers, of one detector; say whether that went well."""
        with self._changed:
            rows = list(islice(self._rows, self._part_rows))
        if not rows:
            return True
        detector_hash = rows[0]["detector_hash"]
        rows = list(takewhile(lambda row: row["detector_hash"] == detector_hash, rows))
        name = log.part_name(rows[0]["time"], os.getpid(), self._number)
        try:
            with replace_file(self.folder / detector_hash / name) as partial:
                pq.write_table(pa.Table.from_pylist(rows, log.SCHEMA), partial)
                with partial.open("rb+") as file:
                    os.fsync(file.fileno())
        except (OSError, InputError) as error:
            _said.error(
                "the log is not written, %d wait: %s", len(self._rows), type(error).__name__
            )
            return False
        with self._changed:
            for _ in rows:
                self._rows.popleft()
        self._number += 1
        self.written += len(rows)
        return True


def _row(judged: Judged, camera: str, now: datetime) -> dict[str, Any]:
    found, number = judged.found, judged.number
    embedding = judged.embedding
    return {
        "time": now,
        "camera": camera,
        "detector": judged.by.name,
        "detector_hash": judged.by.hash,
        "height": judged.shape[0],
        "width": judged.shape[1],
        "image_score": float(found.image_scores[number]),
        "p_value": float(found.p_values[number]),
        "threshold": found.threshold,
        "verdict": "anomalous" if found.flagged[number] else "normal",
        "embedding": None if embedding is None else embedding.astype(np.float32).tolist(),
    }
