"""The routes of the defect memory: what looks like the defects of an image, and new defects.

Where Qdrant does not answer, images are scored all the same and the answer says so.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, Field, ValidationError

from blackswan.errors import InputError, shown
from blackswan.evaluation.regions import Region, find_regions
from blackswan.memory.defect_memory import DefectMemory, Likeness
from blackswan.memory.defects import describe
from blackswan.memory.store import Filters, UnavailableError
from blackswan.serving import answers, intake
from blackswan.serving.answers import (
    Detector,
    FoundRegion,
    Picture,
    Result,
    of_detector,
    result_of,
)
from blackswan.serving.app import HASH, Service
from blackswan.serving.problems import Refused
from blackswan.serving.routes import PIXEL, of_images, route
from blackswan.serving.scorer import Judged

Done = TypeVar("Done")
REGIONS = 20  # of an image, looked up at most


class Asked(Filters):
    """What is asked of the memory beside the images."""

    neighbors: int = Field(default=5, ge=1, le=50, description="of each region")
    regions: int = Field(default=3, ge=1, le=REGIONS, description="of each image, at most")
    taken_by: str = Field(default="", description="camera whose regions to ignore do not count")


class SimilarRequest(Asked):
    """Images as JSON."""

    images: list[Picture] = Field(min_length=1)


class Confirmed(Picture):
    """A defect whose type a person knows."""

    type: str = Field(min_length=1)
    region: int = Field(default=0, ge=0, lt=REGIONS, description="which that /v1/similar lists")
    source: str = ""
    camera: str = ""
    date: str = Field(default="", description="such as 2026-11-30")


class FoundNeighbor(BaseModel):
    """A remembered defect."""

    id: str
    similarity: float = Field(description="cosine of the embeddings")
    type: str
    image: str
    source: str
    camera: str
    date: str
    synthetic: bool
    crop: str = Field(description="base64 of a PNG")


class SimilarRegion(FoundRegion):
    """A region, and what looks like it."""

    type: str | None = Field(default=None, description="by the vote; null: unknown")
    likeliest: str | None = Field(default=None, description="the type with most votes")
    confidence: float = Field(default=0, description="that `likeliest` is right")
    why_unknown: str | None = None
    neighbors: list[FoundNeighbor] = []


class SimilarResult(Result):
    """The answer on one image."""

    regions: list[SimilarRegion]


class MemoryState(BaseModel):
    """Whether the memory could be asked, and what it rests on."""

    available: bool
    detail: str | None = Field(default=None, description="what is the matter, where something is")
    detector: str
    detector_hash: str = Field(description="of the detector that found the remembered defects")
    embedder: str


class SimilarAnswer(BaseModel):
    """The answers on the images of a request, in their order."""

    detector: Detector
    memory: MemoryState
    results: list[SimilarResult]


class Remembered(BaseModel):
    """What came of a new defect."""

    id: str
    new: bool
    changed: bool = Field(description="it was known otherwise, of another type say")


def add_memory(service: Service, folder: Path) -> None:
    """Add /v1/similar and /v1/defects to a service that does not run yet.

    A server that does not answer is no obstacle; raises InputError where the folder is no memory,
    the key is wrong or the vectors are others.
    """
    routes = Routes(service, DefectMemory(folder))
    try:
        routes.memory.prepare()
    except UnavailableError as error:
        logging.getLogger(__name__).warning("%s", error)
    route(service.inner, "/v1/similar", routes.similar, SIMILAR, response_model=SimilarAnswer)
    route(service.inner, "/v1/defects", routes.defects, CONFIRMED, response_model=Remembered)


class Routes:
    """A memory, and the thread that asks it."""

    def __init__(self, service: Service, memory: DefectMemory) -> None:
        self.service, self.memory = service, memory
        self._pool = ThreadPoolExecutor(1, "similar")  # so that no image waits for a lock

    async def similar(self, request: Request) -> Response:
        """Judge images, and list for each region which remembered defects look like it."""
        body, kind = await request.body(), request.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            files = partial(intake.read_files, request.headers, body, self.service.limits)
            named, fields = await self.service.apart(files)
            asked = _checked(fields)
        elif kind.startswith("application/json"):
            given = await self.service.apart(partial(intake.parsed, SimilarRequest, body))
            named, asked = intake.read_pictures(given.images), given
        else:
            raise Refused(415, "send images as multipart/form-data, or as application/json")
        ignored = self.service.ignored_by(asked.taken_by)
        uploads, names = zip(*named, strict=True)
        judged = await self.service.judge([replace(upload, ignored=ignored) for upload in uploads])
        state, results = self._state(judged[0]), []
        for one, name in zip(judged, names, strict=True):  # whoever stops waiting ends it here
            regions = _regions(one, asked.regions)
            likenesses: list[Likeness] = []
            if regions and state.available:
                filters = Filters(**{key: getattr(asked, key) for key in Filters.model_fields})
                ask = partial(self.memory.similar, one.image, regions, filters, asked.neighbors)
                try:
                    likenesses = await self._apart(ask)
                except InputError as error:
                    state = state.model_copy(update={"available": False, "detail": str(error)})
            results.append(await self.service.apart(partial(_result, one, name, asked, likenesses)))
        answer = SimilarAnswer(detector=of_detector(judged[0].by), memory=state, results=results)
        return _json(answer, judged[0])

    async def defects(self, request: Request) -> Response:
        """Remember a defect of an image, of a type that a person confirms."""
        given = await self.service.apart(partial(intake.parsed, Confirmed, await request.body()))
        [(upload, name)] = intake.read_pictures([Picture(image=given.image, name=given.name)])
        ignored = self.service.ignored_by(given.camera)
        [judged] = await self.service.judge([replace(upload, ignored=ignored)])
        state = self._state(judged)
        if state.detail:
            raise Refused(409, f"{state.detail}, so this one cannot join them")
        regions = _regions(judged, given.region + 1)
        if len(regions) <= given.region:
            raise InputError(
                f"{name} has {len(regions)} regions above the threshold of the map, none of the "
                f"number {given.region}; see /v1/similar for those that it has"
            )
        try:
            done = await self._apart(partial(self._add, judged, regions[-1], given, name))
        except InputError as error:
            if isinstance(error, UnavailableError):
                raise Refused(503, str(error), 5) from None
            raise
        return _json(done, judged)

    def _add(self, judged: Judged, region: Region, given: Confirmed, name: str) -> Remembered:
        defect = describe(
            self.memory.embedder, judged.image, region, type=given.type, name=name,
            source=given.source, camera=given.camera, date=given.date,
        )  # fmt: skip
        new, changed = self.memory.add([defect])
        return Remembered(id=defect.id, new=new > 0, changed=changed > 0)

    def _state(self, judged: Judged) -> MemoryState:
        origin = self.memory.facts.origin
        detail = None
        if judged.by.fitted != origin.detector_hash:
            detail = (
                f"the remembered defects were found by another detector or version of it, "
                f"{origin.detector} ({origin.detector_hash}), whose regions are cut otherwise"
            )
        return MemoryState(available=True, detail=detail, **origin.model_dump())

    async def _apart(self, work: Callable[[], Done]) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _checked(fields: Mapping[str, str]) -> Asked:
    try:
        return Asked.model_validate(dict(fields))
    except ValidationError as invalid:
        error = invalid.errors(include_url=False, include_input=False)[0]
        name = shown(".".join(map(str, error["loc"])))
        raise InputError(f"{name}: {shown(error['msg'])}; see /openapi.json") from None


def _regions(judged: Judged, most: int) -> list[Region]:
    threshold = judged.by.model.facts.heatmap.threshold
    return find_regions(judged.found.anomaly_maps[judged.number], threshold, most)


def _result(
    judged: Judged, name: str, asked: Asked, likenesses: Sequence[Likeness]
) -> SimilarResult:
    found = result_of(judged, name, answers.Asked(regions=asked.regions))
    regions = [SimilarRegion(**region.model_dump()) for region in found.regions or []]
    for number, likeness in enumerate(likenesses):
        vote = likeness.vote
        regions[number] = regions[number].model_copy(
            update={
                "type": vote.type,
                "likeliest": vote.likeliest,
                "confidence": vote.confidence,
                "why_unknown": vote.why_unknown,
                "neighbors": [
                    FoundNeighbor(similarity=each.similarity, **_shown(each.facts))
                    for each in likeness.neighbors
                ],
            }
        )
    return SimilarResult(**found.model_dump(exclude={"regions"}), regions=regions)


def _shown(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in FoundNeighbor.model_fields if name in facts}


def _json(answer: BaseModel, judged: Judged) -> Response:
    headers = {HASH: judged.by.hash}
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")


SIMILAR = of_images(
    Picture.model_json_schema(),
    Asked.model_json_schema()["properties"],
    {"images": [{"image": PIXEL, "name": "part.png"}], "type": "scratch"},
)
CONFIRMED = {
    "application/json": {
        "schema": Confirmed.model_json_schema(),
        "example": {"image": PIXEL, "name": "part.png", "type": "scratch", "date": "2026-11-30"},
    }
}
