"""The vectors in Qdrant: its embedded engine, or a server that BLACKSWAN_QDRANT_URL names.

The embedded engine runs in memory. What it would keep in a folder it keeps as pickles, which run
code when they are read, and reads all of them when it starts; so the folder of a memory keeps
Parquet, and fills the engine with that.
"""

import base64
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid5

import numpy as np
from pydantic import Field, ValidationInfo, field_validator
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from blackswan.errors import InputError, shown, without_secrets
from blackswan.memory.defects import Defect, checked_date
from blackswan.params import Section

URL, KEY, COLLECTION = (f"BLACKSWAN_QDRANT_{name}" for name in ("URL", "KEY", "COLLECTION"))
SECONDS = 5  # in which a server must answer
PAGE = 1000  # vectors read at once
KEYWORDS = ("type", "source", "camera")
CHANGING = ("type", "source", "camera", "date", "group")  # of a defect that is known already


class UnavailableError(InputError):
    """A Qdrant that does not answer now and may later."""


class Filters(Section):
    """Which defects are neighbours; what is empty leaves all."""

    type: str = ""
    source: str = ""
    camera: str = ""
    since: str = Field(default="", description="a date, 2026-11-30, and what came after")
    until: str = Field(default="", description="a date, and what came before")

    @field_validator("since", "until")
    @classmethod
    def _check_date(cls, text: str, info: ValidationInfo) -> str:
        return checked_date(text, str(info.field_name))  # raises InputError


@dataclass(frozen=True)
class Neighbor:
    """A remembered defect and how similar it is, the cosine."""

    id: str
    similarity: float
    facts: dict[str, Any]  # of Defect, less the embedding; the crop in base64


class Store:
    """A collection of Qdrant, asked from any thread."""

    def __init__(self, dimensions: int, detector: str, seconds: float = SECONDS) -> None:
        """Reach for what the environment names; raises InputError where that is no server.

        A collection on a server may hold the defects of several detectors: `detector` is the hash
        of the one whose defects are asked, and written.
        """
        url, key = os.environ.get(URL, ""), os.environ.get(KEY) or None
        self.collection = os.environ.get(COLLECTION) or "blackswan_defects"
        self.dimensions, self.is_server = dimensions, bool(url)
        self.detector, self._own = detector, list[models.Condition]()
        if url:  # the embedded engine is filled from one folder, and filters take it long
            own = models.MatchValue(value=detector)
            self._own = [models.FieldCondition(key="detector_hash", match=own)]
        self.where = without_secrets(url, URL) if url else "memory"
        self._turn = threading.Lock()  # the embedded engine takes one call at a time
        if not url:
            self.client = QdrantClient(":memory:")
            return
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"{URL} is no address; set it to one such as http://localhost:6333")
        if key and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1"):
            raise InputError(f"{KEY} would go to {self.where} unencrypted; let {URL} be https")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the key goes to this machine unencrypted
            self.client = QdrantClient(
                url=url, api_key=key, timeout=int(seconds), check_compatibility=False
            )

    def prepare(self, embedder: str) -> None:
        """Make the collection where there is none.

        Raises InputError where its vectors are of another embedder or have other dimensions,
        UnavailableError where the server does not answer.
        """
        with self._answered():
            if not self.client.collection_exists(self.collection):
                self.client.create_collection(
                    self.collection,
                    vectors_config=models.VectorParams(
                        size=self.dimensions, distance=models.Distance.COSINE
                    ),
                )
                for name in (*KEYWORDS, "detector_hash", "day") if self.is_server else ():
                    kind = "integer" if name == "day" else "keyword"
                    self.client.create_payload_index(self.collection, name, kind)
        self.check(embedder)

    def check(self, embedder: str) -> None:
        """Raise InputError unless the vectors of the collection are those of an embedder."""
        remedy = f"name another collection by {COLLECTION}, or delete this one and index again"
        with self._answered():
            vectors = self.client.get_collection(self.collection).config.params.vectors
            points, _ = self.client.scroll(self.collection, limit=1, with_payload=["embedder"])
        size = getattr(vectors, "size", None)  # a dict where vectors have names
        if size != self.dimensions:
            raise InputError(
                f"the vectors of {self.collection} at {self.where} have {size} dimensions and the "
                f"embedder of this memory makes {self.dimensions}; {remedy}"
            )
        others = {(point.payload or {}).get("embedder") for point in points} - {embedder}
        if others:
            raise InputError(
                f"the vectors of {self.collection} at {self.where} are of another embedder, "
                f"{shown(str(others.pop()))}, not {embedder}; {remedy}"
            )

    def known(self, defects: Sequence[Defect]) -> dict[str, dict[str, Any]]:
        """Return what is known of defects and may change, by their ids."""
        with self._answered():
            found = self.client.retrieve(
                self.collection,
                [self._point(defect) for defect in defects],
                with_payload=["id", *CHANGING],
            )
        payloads = [dict(point.payload or {}) for point in found]
        return {payload.pop("id"): payload for payload in payloads}

    def changed(self, defects: Sequence[Defect]) -> tuple[list[Defect], int]:
        """Return those that are new or known otherwise, and how many of them are new."""
        known = self.known(defects)
        changed = [
            defect
            for defect in defects
            if known.get(defect.id) != {name: getattr(defect, name) for name in CHANGING}
        ]
        return changed, sum(defect.id not in known for defect in changed)

    def put(self, defects: Sequence[Defect], embedder: str) -> None:
        """Write defects in the place of those with their ids."""
        with self._answered():
            self.client.upsert(
                self.collection,
                models.Batch(
                    ids=[self._point(defect) for defect in defects],
                    vectors=[defect.embedding.tolist() for defect in defects],
                    payloads=[
                        _payload(defect) | {"embedder": embedder, "detector_hash": self.detector}
                        for defect in defects
                    ],
                ),
            )

    def count(self) -> int:
        """Return how many defects there are."""
        with self._answered():
            return int(self.client.count(self.collection, _all_of(self._own)).count)

    def nearest(self, embedding: np.ndarray, most: int, filters: Filters) -> list[Neighbor]:
        """Return the most similar defects, the nearest first."""
        conditions = [*self._own, *_conditions(filters)]
        with self._answered():
            points = self.client.query_points(
                self.collection,
                query=embedding.tolist(),
                limit=most,
                query_filter=_all_of(conditions),
            ).points
        payloads = [each.payload or {} for each in points]
        found = [
            Neighbor(str(facts["id"]), float(each.score), facts)
            for each, facts in zip(points, payloads, strict=True)
        ]
        return sorted(found, key=lambda neighbor: (-neighbor.similarity, neighbor.id))

    def pages(self) -> Iterator[tuple[np.ndarray, list[str], list[str]]]:
        """Yield the embeddings (N, D), types and groups of PAGE defects at a time, by their ids."""
        place = None
        while True:
            with self._answered():
                page, place = self.client.scroll(
                    self.collection, _all_of(self._own), limit=PAGE, offset=place,
                    with_vectors=True, with_payload=["type", "group"],
                )  # fmt: skip
            facts = [record.payload or {} for record in page]
            yield (
                np.array([record.vector for record in page], np.float32),
                [str(each["type"]) for each in facts],
                [str(each["group"]) for each in facts],
            )
            if place is None:
                return

    def _point(self, defect: Defect) -> str:
        """Return where a defect lies: another detector may have found the same one."""
        return str(uuid5(UUID(defect.id), self.detector))

    def close(self) -> None:
        """Let go of the server."""
        self.client.close()

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Turn what the client raises into a sentence; one call at a time of what is embedded."""
        with self._turn if not self.is_server else threading.Lock():
            try:
                yield
            except ResponseHandlingException as error:
                why = type(error.source).__name__
                raise UnavailableError(
                    f"Qdrant at {self.where} does not answer ({why}); start it, or mend {URL}"
                ) from None
            except UnexpectedResponse as error:
                raise self._refused(error.status_code or 0) from None

    def _refused(self, status: int) -> InputError:
        if status in (401, 403):
            return InputError(
                f"Qdrant at {self.where} refuses the key; set {KEY} to one that may read and write"
            )
        if status == 404:
            return InputError(
                f"Qdrant at {self.where} has no {self.collection}; fill it by `blackswan index`"
            )
        if status >= 500 or status == 429:
            return UnavailableError(
                f"Qdrant at {self.where} is not well (status {status}); try later"
            )
        return InputError(
            f"Qdrant at {self.where} refuses what was asked (status {status}); see whether {URL} "
            "is that of a Qdrant of version 1.10 or later"
        )


def _payload(defect: Defect) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(defect).items() if key != "embedding"}
    facts["crop"] = base64.b64encode(defect.crop).decode()
    if defect.date:
        facts["day"] = _day(defect.date)
    return facts


def _all_of(conditions: list[models.Condition]) -> models.Filter | None:
    return models.Filter(must=conditions) if conditions else None


def _day(date: str) -> int:
    """Return a date as a number that rises: 20261130."""
    return int(date.replace("-", ""))


def _conditions(filters: Filters) -> list[models.Condition]:
    found: list[models.Condition] = [
        models.FieldCondition(key=name, match=models.MatchValue(value=getattr(filters, name)))
        for name in KEYWORDS
        if getattr(filters, name)
    ]
    if filters.since or filters.until:
        days = models.Range(
            gte=_day(filters.since) if filters.since else None,
            lte=_day(filters.until) if filters.until else None,
        )
        found.append(models.FieldCondition(key="day", range=days))
    return found
