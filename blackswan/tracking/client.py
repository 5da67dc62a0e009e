"""The client of an endpoint that scores images: MLflow's server, Databricks, or one that speaks so.

It stands in the place of a model when verdicts are written: what it returns is what the endpoint
said, compared with a model on this machine where one is given.
"""

import base64
import io
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from blackswan.data.decoding import decode_turned
from blackswan.data.images import encode_png
from blackswan.data.photos import Photo
from blackswan.data.records import SourceImage
from blackswan.errors import InputError, cause, without_secrets
from blackswan.evaluation.model import Model, Verdicts
from blackswan.evaluation.thresholds import largest_p_values
from blackswan.tracking.contract import MAX_BYTES

TOKEN = "DATABRICKS_TOKEN"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
AS_IT_IS = {".jpg", ".jpeg", ".png"}  # files that are sent without being decoded
ROOM = 1000  # bytes of a request around the image
NUMBERS, VERDICTS = ("image_score", "p_value", "threshold"), ("normal", "anomalous")
TOLERANCE = 1e-6  # between a score that was served and a local one
RETRIED = {
    408,
    429,
    500,
    502,
    503,
    504,
}  # a worker that restarts, too many requests, scaled to zero
REMEDIES = {
    401: f"set {TOKEN} to a token of this workspace",
    403: "the token may not query this endpoint; ask for CAN QUERY",
    404: "check the name of the endpoint",
    413: f"the limit of the endpoint is smaller than {MAX_BYTES:,} bytes; scale the images down",
}


@dataclass(frozen=True)
class Patience:
    """How long an endpoint may take."""

    attempts: int = 8  # of one image
    seconds: float = 300  # in all, of one image: an endpoint that scales from zero takes minutes
    answer_seconds: float = 120  # of one request
    longest_pause: float = 30  # seconds, also where Retry-After asks for more


@dataclass
class Endpoint:
    """A model behind a URL, in the place of a Model."""

    url: str
    local: Model | None = None  # that verifies each score, and has the threshold of raw logits
    parallel: int = 4  # requests at a time
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        """Raise InputError where the URL is none, or would carry a token in the clear."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InputError(
                "the URL of the endpoint must be http://... or https://..., without a user; such "
                "as https://adb-1.azuredatabricks.net/serving-endpoints/blackswan"
            )
        path = parts.path.rstrip("/").removesuffix("/invocations")
        self.url = f"{parts.scheme}://{parts.netloc}{path}/invocations"
        headers = _authorization(parts.scheme, parts.hostname)
        timeout = httpx.Timeout(self.patience.answer_seconds, connect=10)
        self._client = httpx.Client(headers=headers, timeout=timeout, trust_env=True)
        self._threads = ThreadPoolExecutor(self.parallel)

    def read(self, item: SourceImage) -> tuple[str, bytes]:
        """Return name and bytes of an image: those of a JPEG or PNG file, else it becomes PNG."""
        photo = item.read
        limit = (MAX_BYTES - ROOM) * 3 // 4
        if isinstance(photo, Photo) and photo.image.suffix.lower() in AS_IT_IS:
            content = photo.image.read_bytes() if photo.image.stat().st_size <= limit else b""
        else:
            content = encode_png(photo()[0])
        if not 0 < len(content) <= limit:
            raise InputError(
                f"{item.frame.image} takes more than the {limit:,} bytes that a request may hold; "
                "scale it down, or score it here with `blackswan score`"
            )
        return item.frame.image, content

    def score_prepared(self, images: Sequence[tuple[str, bytes]]) -> Verdicts:
        """Ask for every image, several at a time; raises InputError where no answer will do."""
        answers = list(self._threads.map(lambda image: self._ask(*image), images))
        scores = np.array([found["image_score"] for found in answers], np.float32)
        if self.local is not None:
            self._compare(self.local, images, scores)
        return Verdicts(
            scores,
            np.array([found["p_value"] for found in answers]),
            np.array([found["verdict"] == "anomalous" for found in answers]),
            [np.empty((0, 0), np.float32)] * len(answers),
            answers[0]["threshold"],
            all(found["anomaly_score"] is not None for found in answers),
        )

    def _compare(
        self, local: Model, images: Sequence[tuple[str, bytes]], served: np.ndarray
    ) -> None:
        """Raise InputError where a score that was served is not that of the model here."""
        depth = local.facts.preprocessing.bit_depth
        own = local.score(
            [decode_turned(io.BytesIO(content), name, depth)[0] for name, content in images]
        ).image_scores
        differences = np.abs(served.astype(float) - own)
        worst = int(differences.argmax())
        if not differences[worst] <= TOLERANCE:
            raise InputError(
                f"{self.url} gives {images[worst][0]} the score {served[worst]:.9g}, the model "
                f"here {own[worst]:.9g}; serve the version that lies here, or name the one that is "
                "served by --verify"
            )

    def _ask(self, name: str, content: bytes) -> dict[str, Any]:
        body = {"dataframe_records": [{"image": base64.b64encode(content).decode()}]}
        answered = self._post(name, body)
        predictions = answered.get("predictions") if isinstance(answered, dict) else None
        if not isinstance(predictions, list) or len(predictions) != 1:
            raise InputError(
                f"{self.url} answers without one prediction for the one image of a request; name "
                "an endpoint that was registered by `blackswan register`"
            )
        return self._judged(predictions[0])

    def _judged(self, prediction: object) -> dict[str, Any]:
        """Return score, p-value, threshold and verdict of what came back, also of raw logits."""
        if isinstance(prediction, Mapping) and "image_score" in prediction:
            values = [prediction.get(name) for name in NUMBERS]
            if not _are_numbers(values) or prediction.get("verdict") not in VERDICTS:
                raise InputError(
                    f"{self.url} answers without score, p_value, threshold or verdict; register "
                    "the model by `blackswan register`"
                )
            return {"anomaly_score": None, **prediction}
        logits = prediction.get("logits") if isinstance(prediction, Mapping) else prediction
        if not isinstance(logits, list) or len(logits) != 2 or not _are_numbers(logits):
            raise InputError(
                f"{self.url} answers neither with an image_score nor with two logits; register "
                "the model by `blackswan register`"
            )
        if self.local is None:
            raise InputError(
                f"{self.url} answers with logits alone, which have no threshold; name the folder "
                "of the model by --verify"
            )
        score = np.float32(probability(*logits))
        facts = self.local.facts
        p_value = largest_p_values(np.array([score]), self.local.normal_scores, facts.alpha)[0]
        verdict = "anomalous" if score > facts.threshold else "normal"
        return {
            "image_score": score, "p_value": p_value, "threshold": facts.threshold,
            "verdict": verdict, "anomaly_score": float(score),
        }  # fmt: skip

    def _post(self, name: str, body: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """Send a request until it is answered; waits as long as Retry-After asks, within limits."""
        begin, said = time.monotonic(), ""
        for attempt in range(self.patience.attempts):
            pause = min(2.0**attempt / 2, self.patience.longest_pause)
            try:
                response = self._client.post(self.url, json=body)
            except httpx.HTTPError as error:  # refused, hanging, or closed half way
                said = f"does not answer ({cause(error)})"
            else:
                if response.status_code == httpx.codes.OK:
                    return _json(response, self.url)
                said = f"answers {name} with status {response.status_code}{_reason(response)}"
                if response.status_code not in RETRIED:
                    remedy = REMEDIES.get(response.status_code, "mend what it names")
                    raise InputError(f"{self.url} {said}; {remedy}")
                pause = max(pause, min(_retry_after(response), self.patience.longest_pause))
            if time.monotonic() - begin + pause > self.patience.seconds:
                break
            if attempt < self.patience.attempts - 1:
                time.sleep(pause)
        raise InputError(
            f"{self.url} {said}, after {attempt + 1} attempts; see that it runs, then run the same "
            "command again: it goes on"
        )


def probability(normal: float, anomalous: float) -> float:
    """Return P(anomalous), softmax(logits)[1], of two logits."""
    shifted = np.exp(np.array([normal, anomalous]) - max(normal, anomalous))
    return float(shifted[1] / shifted.sum())


def _authorization(scheme: str, host: str) -> dict[str, str]:
    """Return the header with the token of the environment, or of the Databricks SDK."""
    token = os.environ.get(TOKEN)
    if token:
        if scheme != "https" and host not in LOOPBACK:
            raise InputError(
                f"http would send {TOKEN} in the clear; write https://, or unset the variable"
            )
        return {"Authorization": f"Bearer {token}"}
    if scheme == "https" and host.endswith((".azuredatabricks.net", ".databricks.com")):
        try:
            from databricks.sdk.core import Config

            return Config(host=f"https://{host}").authenticate()
        except ImportError:
            raise InputError(f"set {TOKEN} to a token of {host}") from None
        except ValueError as error:
            raise InputError(
                f"there is no login for {host} ({cause(error)}); set {TOKEN}, or log in by the "
                "Databricks command line"
            ) from None
    return {}


def _are_numbers(values: Sequence[object]) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def _json(response: httpx.Response, url: str) -> Any:  # noqa: ANN401
    try:
        return response.json()
    except ValueError:
        raise InputError(f"{url} answers no JSON; check that it is a serving endpoint") from None


def _reason(response: httpx.Response) -> str:
    """Return what the endpoint says of an error, in one line and without a stack trace."""
    try:
        content = response.json()
    except ValueError:
        return ""
    said = content.get("message") if isinstance(content, Mapping) else None
    if not isinstance(said, str) or not said.strip():
        return ""
    said = said.rpartition("\nError: ")[2].strip().splitlines()[0]
    return f" ({without_secrets(said, 'it says why, with what may be a secret')})"


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that Retry-After asks for; a date, which some send, counts as none."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0
