"""What Prometheus is told."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from blackswan.serving.decisions import Rate
from blackswan.serving.detectors import Loaded

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
