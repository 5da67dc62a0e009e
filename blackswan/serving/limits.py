"""What one request may take, and all of them together."""

from dataclasses import dataclass

from blackswan.data.decoding import MAX_PIXELS
from blackswan.tracking.contract import MAX_ROWS


@dataclass(frozen=True)
class Limits:
    """Bounds of the service; what lies beyond is refused in one sentence."""

    body_bytes: int = 64_000_000  # of a request
    pixels: int = MAX_PIXELS  # of an image, at most those that decoding takes
    files: int = MAX_ROWS  # images of a request
    waiting: int = 2 * MAX_ROWS  # images of all requests that are not scored yet
    held_bytes: int = 256_000_000  # bodies of all requests that are not answered yet
    header_seconds: float = 10  # in which the head of a request must have arrived
    upload_seconds: float = 60  # and its body
    answer_seconds: float = 60  # and in which it must be answered
