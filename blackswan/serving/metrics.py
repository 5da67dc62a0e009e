"""What Prometheus is told."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from blackswan.serving.decisions import Rate
from blackswan.serving.detectors import Loaded

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Logging:
    """What is told where there is a log."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = Gauge(
            "blackswan_log_records",
            "Answers written to the log, waiting for it, or lost to a full disk",
            ["state"],
            registry=registry,
        )
        self._drift, self._newest = (
            Gauge(name, what, ["camera"], registry=registry)
            for name, what in (
                ("blackswan_drift", "1 where the last drift report pages a person, else 0"),
                (
                    "blackswan_drift_newest_image_seconds",
                    "Time of the last image it had, since 1970",
                ),
            )
        )

    def take(
        self, written: int, lost: int, waiting: int, drifts: Sequence[Mapping[str, Any]]
    ) -> None:
        """Set all of it."""
        for state, count in {"written": written, "waiting": waiting, "lost": lost}.items():
            self._records.labels(state).set(count)
        for gauge in (self._drift, self._newest):
            gauge.clear()
        for one in drifts:
            self._drift.labels(one["camera"]).set(one["page"])
            newest = datetime.fromisoformat(one["end"]).timestamp()
            self._newest.labels(one["camera"]).set(newest)


class Metrics:
    """The counts of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "blackswan_requests", "Answers", ["route", "status"], registry=self._registry
        )
        self._images = Counter(
            "blackswan_images", "Images that were judged", ["verdict"], registry=self._registry
        )
        self._batches = Histogram(
            "blackswan_batch_images",
            "Images that were scored at once",
            buckets=(1, 2, 4, 8, 16),
            registry=self._registry,
        )
        self._waiting = Gauge(
            "blackswan_waiting_images", "Images not scored yet", registry=self._registry
        )
        self._detector = Gauge(
            "blackswan_detector",
            "1 for the detector that is served",
            ["name", "hash"],
            registry=self._registry,
        )
        self._logging: Logging | None = None
        self._rate, self._decided = (
            Gauge(name, what, ["camera", "day"], registry=self._registry)
            for name, what in (
                ("blackswan_override_rate", "Share of the decisions that the detector's are not"),
                ("blackswan_decided_images", "Images that people decided"),
            )
        )

    def request(self, route: str, status: int) -> None:
        """Count an answer."""
        self._requests.labels(route, str(status)).inc()

    def image(self, verdict: str) -> None:
        """Count an image that was judged."""
        self._images.labels(verdict).inc()

    def batch(self, images: int) -> None:
        """Count images that were scored at once."""
        self._batches.observe(images)

    def log(
        self, written: int, lost: int, waiting: int, drifts: Sequence[Mapping[str, Any]]
    ) -> None:
        """Take the counts of the log, and what drift reports found last: camera, page and end."""
        if not self._logging:
            self._logging = Logging(self._registry)
        self._logging.take(written, lost, waiting, drifts)

    def text(self, loaded: Loaded, waiting: int, rates: Sequence[Rate] = ()) -> bytes:
        """Return everything in the format of Prometheus."""
        for gauge in (self._rate, self._decided):
            gauge.clear()
        for one in rates:
            self._rate.labels(one.camera, one.day).set(one.rate)
            self._decided.labels(one.camera, one.day).set(one.decided)
        self._waiting.set(waiting)
        self._detector.clear()
        self._detector.labels(loaded.name, loaded.hash).set(1)
        return generate_latest(self._registry)
