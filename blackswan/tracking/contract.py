"""What a served model is asked and what it answers, the same in MLflow, on Databricks and here.

A request has rows with an `image` (base64 of an image file) or a `path` (a file that the server can
read: below /Volumes, or below the folder of BLACKSWAN_IMAGES), and params. Numbers of an answer are
exact, not rounded.
"""

import base64
import binascii
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from blackswan.data.decoding import decode_turned
from blackswan.data.images import encode_png
from blackswan.errors import InputError, cause, shown
from blackswan.evaluation.model import Model, Seen, Verdicts
from blackswan.evaluation.regions import find_regions
from blackswan.params import Section
from blackswan.reporting.heatmaps import HeatmapScale, overlay

if TYPE_CHECKING:
    import pandas as pd

INPUTS = ("image", "path")
OUTPUTS = (
    "image_score", "logit_normal", "logit_anomalous", "anomaly_score", "p_value", "threshold",
    "verdict", "height", "width", "heatmap", "regions",
)  # fmt: skip
MAX_BYTES = 16_000_000  # of a request, as on Databricks
MAX_ROWS = 256
BATCH = 16  # images that a detector gets at once
IMAGES = "BLACKSWAN_IMAGES"  # a folder that `path` may name files of, beside VOLUMES
VOLUMES = Path("/Volumes")  # of Unity Catalog


AnyParams = TypeVar("AnyParams", bound="Params")


class Params(Section):
    """What a request may ask for beside the scores."""

    heatmap: bool = False  # a PNG of the image the detector saw, with the map over it, base64
    regions: int = Field(default=0, ge=0, le=100)  # at most; those above the map's threshold


def answer(
    model: Model,
    rows: "pd.DataFrame",
    params: Mapping[str, Any] | None = None,
    score: Callable[[Sequence[Seen]], Verdicts] | None = None,
) -> "pd.DataFrame":
    """Return a line of OUTPUTS for every line of `rows`, in their order; what is not asked is None.

    `logit_*` and `anomaly_score`, which is P(anomalous), are of models that have them. A region has
    left, top, width, height, in pixels of the image as the detector saw it (`height`, `width`), and
    the peak of the map in it. `score` asks the model where threads share it. Raises InputError,
    which names the row, and answers nothing.
    """
    import pandas as pd  # a server without MLflow's forms needs it not

    asked = checked(params or {}, Params)
    bit_depth = model.facts.preprocessing.bit_depth
    images = (decode_turned(source, name, bit_depth)[0] for source, name in sources(rows))
    lines: list[dict[str, Any]] = []
    while batch := [model.see(image) for image in islice(images, BATCH)]:
        found = (score or model.score_seen)(batch)
        lines += [line(model, found, n, one.image, asked) for n, one in enumerate(batch)]
    return pd.DataFrame(lines, columns=list(OUTPUTS), dtype=object)


def regions(anomaly_map: np.ndarray, threshold: float, most: int) -> list[dict[str, Any]]:
    """Return the boxes and the peaks of `find_regions`, as an answer has them."""
    return [
        {
            "left": region.left,
            "top": region.top,
            "width": region.inside.shape[1],
            "height": region.inside.shape[0],
            "peak": region.peak,
        }
        for region in find_regions(anomaly_map, threshold, most)
    ]


def checked(given: Mapping[str, Any], kind: type[AnyParams]) -> AnyParams:
    """Return the params of a request; raises InputError, which names one that is wrong."""
    try:
        return kind.model_validate(dict(given))
    except ValidationError as invalid:
        error = invalid.errors()[0]
        name = shown(".".join(map(str, error["loc"])))
        raise InputError(
            f"params.{name}: {error['msg']}; heatmap is true or false, regions 0 to 100"
        ) from None


def sources(rows: "pd.DataFrame") -> Iterator[tuple[io.BytesIO | Path, str]]:
    """Yield the image file of every row, undecoded, and what a message calls it."""
    if not hasattr(rows, "columns") or not {*INPUTS} & {*rows.columns} or not len(rows):
        raise InputError(
            'the request holds no image; send rows such as {"image": "<base64 of a file>"} or '
            '{"path": "/Volumes/..."}'
        )
    if len(rows) > MAX_ROWS:
        raise InputError(f"the request has {len(rows)} rows, the limit is {MAX_ROWS}; send fewer")
    columns = [rows[name] if name in rows else [None] * len(rows) for name in INPUTS]
    for number, values in enumerate(zip(*columns, strict=True)):
        encoded, path = (None if _is_empty(value) else value for value in values)
        name = f"row {number}"
        if (encoded is None) == (path is None):
            both = "both an image and a path" if path is not None else "neither image nor path"
            raise InputError(f"{name} has {both}; send one of them")
        if path is None:
            yield from_base64(encoded, name), name
        else:
            yield allowed(path, name), f"{name}, {path},"


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def from_base64(encoded: object, name: str) -> io.BytesIO:
    """Return the bytes of an image file; raises InputError where they are not base64."""
    if isinstance(encoded, bytes):  # a binary column, which Arrow and Spark bring
        return io.BytesIO(encoded)
    try:
        if not isinstance(encoded, str):
            raise ValueError("it is no text")
        content = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InputError(
            f"image of {name} is not base64 ({cause(error)}); encode the bytes of the file"
        ) from None
    return io.BytesIO(content)


def allowed(path: object, name: str) -> Path:
    """Return a path that a request may name: what else the server can read is not for it.

    One that is relative lies in the folder of IMAGES. No URL is fetched.
    """
    images = os.environ.get(IMAGES, "")
    roots = [VOLUMES, *map(Path, filter(None, [images]))]
    if isinstance(path, str) and "\0" not in path and "://" not in path:
        with suppress(ValueError, OSError, RuntimeError):  # half a character, a ring of links
            found = Path(images, path).resolve()
            if any(found.is_relative_to(root.resolve()) for root in roots):
                return found
    raise InputError(
        f"path of {name} names no file of {' or '.join(map(str, roots))}; send the image itself, "
        f"or let the server read another folder by {IMAGES}"
    )


def line(
    model: Model, found: Verdicts, number: int, image: np.ndarray, asked: Params
) -> dict[str, Any]:
    """Return the answer, by OUTPUTS, on one of the images that `found` judges, prepared."""
    score, anomaly_map = float(found.image_scores[number]), found.anomaly_maps[number]
    logits = [None, None] if found.logits is None else found.logits[number].tolist()
    scale = model.facts.heatmap
    answered = {
        "image_score": score,
        "logit_normal": logits[0],
        "logit_anomalous": logits[1],
        "anomaly_score": score if found.probabilities else None,
        "p_value": float(found.p_values[number]),
        "threshold": found.threshold,
        "verdict": "anomalous" if found.flagged[number] else "normal",
        "height": image.shape[0],
        "width": image.shape[1],
        "heatmap": None,
        "regions": None,
    }
    if asked.heatmap:
        coloured = overlay(image, anomaly_map, HeatmapScale(scale.threshold, scale.top))
        answered["heatmap"] = base64.b64encode(encode_png(coloured)).decode()
    if asked.regions:
        answered["regions"] = regions(anomaly_map, scale.threshold, asked.regions)
    return answered
