"""The verdict on one image in a line of Python: `score("part.png")`."""

import os
from functools import cache
from pathlib import Path
from threading import Lock

from blackswan.data.decoding import decode_turned
from blackswan.errors import InputError
from blackswan.serving.confidence import confidences
from blackswan.serving.detectors import Loaded, load_detector, open_source

DETECTOR, REV = "BLACKSWAN_DETECTOR", "BLACKSWAN_REV"
_turn = Lock()  # a detector keeps state while it scores


def score(path: str | Path) -> tuple[bool, float]:
    """Return whether the image of a file is anomalous, and how sure that is, 0 to 1.

    The confidence is above 0.5 where the image is anomalous, as confidence.py says. The detector is
    that of BLACKSWAN_DETECTOR: a folder, a URI of MLflow, or with BLACKSWAN_REV a folder of a
    revision. Raises InputError where there is none, or the file is no image.
    """
    with _turn:
        loaded = _loaded(os.environ.get(DETECTOR, ""), os.environ.get(REV))
        bit_depth = loaded.model.facts.preprocessing.bit_depth
        found = loaded.model.score([decode_turned(Path(path), str(path), bit_depth)[0]])
        return bool(found.flagged[0]), float(confidences(loaded.model, found)[0])


@cache
def _loaded(detector: str, rev: str | None) -> Loaded:
    if not detector:
        raise InputError(f"{DETECTOR} names no detector; set it to one, data/detectors/padim say")
    return load_detector(open_source(detector, rev))
