"""A detector that watches one camera: frames are judged as they come, and alarms are kept and told.

The folder of a camera holds its alarms and state.json, which says what goes on now.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from blackswan.data.regions import Ignored
from blackswan.errors import InputError
from blackswan.evaluation.model import Verdicts
from blackswan.outputs import replace_file
from blackswan.reporting.heatmaps import HeatmapScale, outline, overlay
from blackswan.serving.alarms import Outbox, Webhook, Window
from blackswan.serving.cameras import Counts, Shot, open_camera
from blackswan.serving.detectors import Loaded, Source, load_detector

STATE = "state.json"
STATE_SECONDS = 1.0  # between two writes of it
LAST_SECONDS = 10.0  # for which the end waits for a webhook


@dataclass(frozen=True)
class Seen:
    """One frame, and what the detector says of it."""

    time: float  # seconds, of the film or since 1970
    photo: np.ndarray  # as the camera sent it
    image: np.ndarray  # as the detector saw it
    ignored: np.ndarray | None  # bool, of it
    found: Verdicts


def watch(
    source: str,
    detector: Source,
    camera: str,
    out: Path,
    window: Window,
    *,
    every_n_seconds: float = 0,
    ignored: Ignored | None = None,
    url: str | None = None,
) -> str:
    """Watch a source until it ends or Ctrl-C; say how many alarms there were.

    Raises InputError where the source or the detector is none.
    """
    loaded = load_detector(detector)
    if ignored:
        loaded.model.check_regions(ignored)
    folder = out / camera
    watcher = Watcher(camera, loaded, window, folder, ignored=ignored, tell=url is not None)
    webhook = Webhook(url, watcher.outbox) if url else None
    ended = threading.Event()
    bit_depth = loaded.model.facts.preprocessing.bit_depth
    try:
        watcher.watch(open_camera(source, bit_depth, every_n_seconds, watcher.counts, ended))
    except KeyboardInterrupt:
        pass
    finally:
        ended.set()
        if webhook:
            webhook.close(LAST_SECONDS)
    told = len(watcher.outbox.pending())
    waiting = f"; {told} wait for the webhook, the next run tells of them" if told else ""
    return f"{watcher.alarms} alarms in {watcher.counts.scored} frames; see {folder}{waiting}"


class Watcher:
    """Watches one camera."""

    def __init__(
        self,
        camera: str,
        loaded: Loaded,
        window: Window,
        folder: Path,
        *,
        ignored: Ignored | None = None,
        tell: bool = False,
    ) -> None:
        """Open the folder; `tell` where a webhook shall hear of alarms."""
        self.camera, self.loaded, self.window, self.folder = camera, loaded, window, folder
        self.outbox, self.counts = Outbox(folder), Counts()
        self.alarms = 0
        self._ignored, self._tell = ignored, tell
        self._alarm = ""  # the name of the one that goes on
        self._last: dict[str, Any] = {}
        self._turn = threading.Lock()  # of state.json

    def watch(self, shots: Iterator[Shot]) -> None:
        """Judge each frame until there are no more."""
        ended = threading.Event()
        alive = threading.Thread(target=self._tell_state, args=[ended], name="state", daemon=True)
        alive.start()
        try:
            for shot in shots:
                try:
                    seen = self._judge(shot)
                except InputError:  # a frame of another size, say, than the detector can take
                    self.counts.garbage += 1
                    if not self.counts.scored:
                        raise
                    continue
                self._take(seen)
        finally:
            ended.set()
            alive.join()
            if self._alarm:
                self.outbox.end(self._alarm, ended=self._last["time"])
                self._alarm = ""
            self._write_state()

    def _judge(self, shot: Shot) -> Seen:
        model = self.loaded.model
        seen = model.see(shot.image, self._ignored, self.camera)
        return Seen(shot.time, shot.image, seen.image, seen.ignored, model.score_seen([seen]))

    def _take(self, seen: Seen) -> None:
        flagged = bool(seen.found.flagged[0])
        self.counts.scored += 1
        self._last = {
            "time": seen.time,
            "score": float(seen.found.image_scores[0]),
            "p_value": float(seen.found.p_values[0]),
            "threshold": seen.found.threshold,
            "flagged": flagged,
        }
        changed = self.window.add(flagged, seen.time)
        if changed == "raised":
            self._raise(seen)
        elif changed == "ended":
            self.outbox.end(self._alarm, ended=seen.time)
            self._alarm = ""
        if changed:
            self._write_state()

    def _raise(self, seen: Seen) -> None:
        now = datetime.now(UTC)
        self._alarm, self.alarms = f"{now:%Y%m%dT%H%M%S.%fZ}", self.alarms + 1
        scale = self.loaded.model.facts.heatmap
        coloured = overlay(
            seen.image, seen.found.anomaly_maps[0], HeatmapScale(scale.threshold, scale.top)
        )
        facts = {
            "alarm": self._alarm,
            "camera": self.camera,
            "raised_at": now.isoformat(timespec="milliseconds"),
            "began": self.window.began,
            "raised": seen.time,
            **self._last,
            "rule": f"{self.window.raise_at} of {self.window.of} frames",
            "detector": self.loaded.name,
            "detector_hash": self.loaded.hash,
            "regions": self._regions_version,
        }
        pictures = {"frame": seen.photo, "overlay": outline(coloured, seen.ignored)}
        self.outbox.keep(self._alarm, facts, pictures, tell=self._tell)

    @property
    def _regions_version(self) -> str | None:
        counted = self.loaded.model.regions(self._ignored)
        return ", ".join(each.sha256 for each in counted) or None

    def _tell_state(self, ended: threading.Event) -> None:
        """Write the state again and again: a camera that is lost sends no frame to do it."""
        while not ended.wait(STATE_SECONDS):
            with contextlib.suppress(OSError):  # a full disk may have room next time
                self._write_state()

    def _write_state(self) -> None:
        state = {
            "camera": self.camera,
            "detector": self.loaded.name,
            "detector_hash": self.loaded.hash,
            "regions": self._regions_version,
            "updated_at": time.time(),
            "alarm": self._alarm or None,
            "alarms": self.alarms,
            "not_delivered": len(self.outbox.pending()),
            **asdict(self.counts),
            "last": self._last or None,
        }
        with self._turn, replace_file(self.folder / STATE) as partial:
            partial.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
