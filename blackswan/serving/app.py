"""The application: its routes, and what they answer."""

import asyncio
import errno
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from blackswan.data.regions import Ignored, of_camera
from blackswan.errors import InputError, out_of_memory, shown
from blackswan.serving import intake
from blackswan.serving.answers import (
    Detectors,
    DominoAnswer,
    ScoreAnswer,
    facts_of,
    lookout_of,
    of_detector,
    result_of,
)
from blackswan.serving.decisions import Decisions
from blackswan.serving.detectors import Loaded
from blackswan.serving.guard import App, Guard
from blackswan.serving.limits import Limits
from blackswan.serving.metrics import MEDIA_TYPE, Metrics
from blackswan.serving.page import add_page
from blackswan.serving.pipeline import Pipeline
from blackswan.serving.problems import UNKNOWN, Refused, problem
from blackswan.serving.routes import (
    PIXEL,
    PROBLEMS,
    camera_of,
    content_type,
    described,
    of_images,
    route,
)
from blackswan.serving.scorer import Judged, Scorer, Upload
from blackswan.tracking.contract import line

if TYPE_CHECKING:
    from blackswan.serving.record import Recorder

HASH = "X-Detector-Hash"  # of every answer: that of DVC, of the detector that gave it
Result = TypeVar("Result")


class Service:
    """A detector behind an application."""

    def __init__(
        self,
        loaded: Loaded,
        limits: Limits | None = None,
        key: str | None = None,
        *,
        pipeline: Pipeline | None = None,
        decisions: Decisions | None = None,
        streams: Path | None = None,
        ignored: Mapping[str, Ignored] | None = None,
        recorder: "Recorder | None" = None,
    ) -> None:
        """Start its threads; `key` is asked for where there is one, decisions are kept there.

        `streams` is the folder of `blackswan watch`; what is `ignored` of the pictures of a camera
        does not count where a request names it; `recorder` keeps what is answered. Raises
        InputError where the detector cannot leave it out.
        """
        self.ignored = ignored or {}
        self.check(loaded)
        self.limits, self.metrics, self.recorder = limits or Limits(), Metrics(), recorder
        summary_of = recorder.components if recorder else None
        self.scorer = Scorer(loaded, self.limits, self.metrics.batch, summary_of)
        self.inner = inner = FastAPI(
            title="Blackswan",
            version=version("blackswan"),
            description="Finds the image that does not belong.",
            docs_url=None,  # FastAPI's own ask other sites for their files
            redoc_url=None,
            responses=described(PROBLEMS),
        )
        self._add_errors(inner)
        self._add_routes(inner)
        add_page(inner, lambda: self.scorer.current, pipeline)
        # What a server of an export does not keep needs packages that it does not have.
        self.review = None
        if decisions:
            from blackswan.serving.review import Review

            self.review = Review(self, decisions)
            self.review.add_routes(inner)
        if streams:
            from blackswan.serving.live import Live

            Live(streams, self.apart).add_routes(inner)
        self.openapi = inner.openapi
        self.app: App = Guard(inner, self.limits, key, self.metrics.request)

    def close(self) -> None:
        """Answer what was taken, and end."""
        self.scorer.close()

    def check(self, loaded: Loaded) -> None:
        """Raise InputError where a detector cannot leave the regions of a camera out."""
        for each in self.ignored.values():
            loaded.model.check_regions(each)

    def ignored_by(self, camera: str) -> Ignored | None:
        """Return what is ignored of a camera's pictures; InputError where nobody named it."""
        if not camera or not self.ignored:
            return None
        remedy = "name one of them, leave camera out, or list it with nothing to ignore"
        return of_camera(self.ignored, camera, "the service", remedy)

    async def judge(self, uploads: Sequence[Upload], camera: str | None = None) -> list[Judged]:
        """Have images judged; whoever stops waiting takes them back.

        Those of a `camera`, which may have no name, are new and join the log; its regions do not
        count. Raises InputError where there are regions, and none of that camera.
        """
        if ignored := self.ignored_by(camera or ""):
            uploads = [replace(upload, ignored=ignored) for upload in uploads]
        futures = self.scorer.judge(uploads)
        try:
            judged = await asyncio.gather(*map(asyncio.wrap_future, futures))
        finally:
            for future in futures:
                future.cancel()
        for one in judged:
            self.metrics.image("anomalous" if one.found.flagged[one.number] else "normal")
        if self.recorder and camera is not None:
            self.recorder.add(judged, camera)
        return judged

    async def apart(self, work: Callable[[], Result]) -> Result:
        """Do work of the processor beside the loop that answers others."""
        return await asyncio.get_running_loop().run_in_executor(self.scorer.pool, work)

    def _add_errors(self, app: FastAPI) -> None:
        @app.exception_handler(InputError)
        async def wrong_input(_: Request, error: InputError) -> Response:
            return problem(400, str(error))

        @app.exception_handler(RequestValidationError)
        async def wrong_query(_: Request, error: RequestValidationError) -> Response:
            first = error.errors()[0]
            said = f"{shown('.'.join(map(str, first['loc'][1:])))}: {shown(first['msg'])}"
            return problem(400, f"{said}; see /openapi.json for the form")

        @app.exception_handler(Refused)
        async def refused(_: Request, error: Refused) -> Response:
            return problem(error.status, error.detail, error.retry_seconds, error.more)

        @app.exception_handler(HTTPException)
        async def no_route(request: Request, error: HTTPException) -> Response:
            asked = f"{request.method} {shown(request.url.path)}"
            return problem(error.status_code, f"{asked} is not offered; see /openapi.json")

        @app.exception_handler(OSError)
        async def no_disk(_: Request, error: OSError) -> Response:
            logging.getLogger(__name__).error("a request failed", exc_info=error)
            if error.errno == errno.ENOSPC:
                return problem(507, "the disk of the server is full; free some space on it")
            return problem(500, UNKNOWN)

        @app.exception_handler(Exception)
        async def unforeseen(_: Request, error: Exception) -> Response:
            return problem(500, UNKNOWN)  # and it is raised again, for the guard to log

        async def no_memory(_: Request, error: Exception) -> Response:
            if not out_of_memory(error):
                raise error
            return problem(503, "the memory of the server is full; send fewer images, later", 5)

        app.exception_handler(MemoryError)(no_memory)
        app.exception_handler(RuntimeError)(no_memory)  # of torch

    def _add_routes(self, app: FastAPI) -> None:
        app.get("/ping", summary="Is it alive?")(self.health)
        app.get("/health", summary="Is it alive?")(self.health)
        app.get("/ready", summary="Would it take an image?")(self.ready)
        app.get("/version", summary="Which version, which detector?")(self.version)
        app.get("/metrics", summary="For Prometheus", response_class=PlainTextResponse)(
            self.prometheus
        )
        app.get("/v1/detectors", response_model=Detectors)(self.detectors)
        route(app, "/v1/score", self.score, SCORE, named=True, response_model=ScoreAnswer)
        route(app, "/v1/detect-anomalies", self.detect_anomalies, LOOKOUT, named=True)
        route(app, "/model", self.model, DOMINO, named=True, response_model=DominoAnswer)
        route(app, "/invocations", self.invocations, MLFLOW, named=True)

    async def health(self) -> Response:
        """Say whether images are scored."""
        if not self.scorer.alive:
            return problem(503, "the detector does not run; restart the service")
        return JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """Say whether one more image would be taken."""
        if self.scorer.alive and self.scorer.has_room:
            return JSONResponse({"status": "ok"})
        return problem(503, "the service is busy or shutting down; try again soon", 1)

    async def version(self) -> Response:
        """Return the versions of the library and of the detector."""
        loaded = self.scorer.current
        content = {"version": version("blackswan"), "detector": of_detector(loaded).model_dump()}
        return JSONResponse(content, headers={HASH: loaded.hash})

    async def prometheus(self) -> Response:
        """Return the counts."""
        rates = await self.apart(self.review.recent_rates) if self.review else []
        loaded = self.scorer.current
        if self.recorder:
            drifts = await self.apart(partial(self.recorder.states, loaded))
            self.metrics.log(
                self.recorder.written, self.recorder.lost, self.recorder.waiting, drifts
            )
        text = self.metrics.text(loaded, self.scorer.pending, rates)
        return Response(text, media_type=MEDIA_TYPE)

    async def detectors(self) -> Response:
        """List the detectors that are served, with what their verdicts rest on."""
        loaded = self.scorer.current
        facts = facts_of(loaded, sorted(self.ignored))
        content = Detectors(detectors=[facts]).model_dump()
        return JSONResponse(content, headers={HASH: loaded.hash})

    async def score(self, request: Request) -> Response:
        """Judge images: score, p-value, threshold, verdict, and on request heatmap and regions."""
        kind, camera = content_type(request), camera_of(request)
        if kind == "multipart/form-data":
            read = partial(intake.read_form, request.headers, await request.body(), self.limits)
        elif kind == "application/json":
            read = partial(intake.read_json, await request.body())
        else:
            raise Refused(415, "send images as multipart/form-data, or as application/json")
        named, asked = await self.apart(read)
        uploads, names = zip(*named, strict=True)
        judged = await self.judge(uploads, asked.camera or camera)

        def answer() -> str:
            return ScoreAnswer(
                detector=of_detector(judged[0].by),
                results=[
                    result_of(one, name, asked) for one, name in zip(judged, names, strict=True)
                ],
            ).model_dump_json()

        return _json(await self.apart(answer), judged)

    async def detect_anomalies(self, request: Request) -> Response:
        """Judge one image, which is the body, and answer as AWS Lookout for Vision did."""
        kind, camera = content_type(request), camera_of(request)
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise Refused(415, "send the bytes of an image, with Content-Type: image/jpeg")
        body = await request.body()
        judged = await self.judge([Upload(partial(io.BytesIO, body), "the image")], camera)
        content = await self.apart(partial(lookout_of, judged[0]))
        return JSONResponse(content, headers={HASH: judged[0].by.hash})

    async def model(self, request: Request) -> Response:
        """Judge one image by its path below BLACKSWAN_IMAGES, as the Domino Model API does."""
        camera = camera_of(request)
        read = partial(intake.read_domino, await request.body(), self.limits.body_bytes)
        judged = await self.judge([await self.apart(read)], camera)
        answer = DominoAnswer(
            is_anomalous=bool(judged[0].found.flagged[judged[0].number]),
            confidence=judged[0].confidence,
        )
        return _json(answer.model_dump_json(), judged)

    async def invocations(self, request: Request) -> Response:
        """Judge images in any of the forms of MLflow, with the columns of its served models."""
        camera = camera_of(request)
        read = partial(intake.read_rows, await request.body(), self.limits.body_bytes)
        uploads, asked = await self.apart(read)
        judged = await self.judge(uploads, camera)

        def answer() -> list[dict[str, Any]]:
            return [line(one.by.model, one.found, one.number, one.image, asked) for one in judged]

        content = {"predictions": await self.apart(answer)}
        return JSONResponse(content, headers={HASH: judged[0].by.hash})


def _json(content: str, judged: Sequence[Judged]) -> Response:
    headers = {HASH: judged[0].by.hash}
    return Response(content, headers=headers, media_type="application/json")


ASKED = {
    "heatmap": {"type": "boolean"},
    "layer": {"type": "boolean"},
    "regions": {"type": "integer", "minimum": 0, "maximum": 100},
    "camera": {"type": "string"},
}
SCORE = of_images(
    {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "string", "format": "byte"},
            "name": {"type": "string"},
        },
    },
    ASKED,
    {"images": [{"image": PIXEL, "name": "part.png"}], "regions": 3},
)
LOOKOUT = {
    kind: {"schema": {"type": "string", "format": "binary"}}
    for kind in ("image/jpeg", "image/png", "application/octet-stream")
}
DOMINO = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["data"],
            "properties": {
                "data": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string"}},
                }
            },
        },
        "example": {"data": {"image": "line1/part.png"}},
    }
}
MLFLOW = {
    "application/json": {
        "schema": {"type": "object"},
        "examples": {
            "records": {"value": {"dataframe_records": [{"image": PIXEL}]}},
            "split": {"value": {"dataframe_split": {"columns": ["image"], "data": [[PIXEL]]}}},
            "instances": {"value": {"instances": [{"image": PIXEL}]}},
            "inputs": {"value": {"inputs": {"image": [PIXEL]}, "params": {"heatmap": True}}},
        },
    }
}
