"""A clip as frames, one after another, each the PNG that the pipeline would have judged."""

import base64
import json
import math
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePath

from blackswan.data.images import encode_png
from blackswan.data.sources.video import SUFFIXES, Sampling, iterate_frames
from blackswan.errors import InputError, shown

MOST = 600  # frames of a clip


def begin(content: bytes, name: str, every: float) -> Iterator[str]:
    """Return the lines of a clip, the first frame decoded; raises InputError where it is none.

    A line has name, seconds and image (base64 of a PNG). The last has frames, how many there were,
    and of a clip that breaks off or is longer than MOST frames a detail.
    """
    if not math.isfinite(every) or every < 0:
        raise InputError("every is no number of seconds; send such as ?every=0.5, or 0 for all")
    lines = _lines(content, shown(PurePath(name).name), every)
    return chain([next(lines)], lines)


def _lines(content: bytes, name: str, every: float) -> Iterator[str]:
    suffix = PurePath(name).suffix.lower()
    sampling = Sampling(every_n_seconds=every, start_s=0, end_s=None, max_frames=MOST)
    count, detail = 0, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"clip{suffix if suffix in SUFFIXES else '.mp4'}")
        path.write_bytes(content)
        try:
            for number, taken in enumerate(iterate_frames(path, sampling)):
                picture = base64.b64encode(encode_png(taken.read()[0])).decode()
                seconds = taken.frame.timestamp_s
                yield _line(
                    {"name": f"{name} {seconds:.2f} s", "seconds": seconds, "image": picture}
                )
                count = number + 1
        except InputError as error:
            detail = str(error).replace(str(path), name)
            if not count:
                raise InputError(detail) from None
    if count == MOST:
        detail = f"{name} was cut after {MOST} frames; take fewer by ?every="
    yield _line({"frames": count, "detail": detail})


def _line(content: dict[str, object]) -> str:
    return json.dumps(content) + "\n"
