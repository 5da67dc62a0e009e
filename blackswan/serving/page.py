"""The page that people look at: its files, which need no other site, and what the pipeline wrote.

What may run on it is what lies in page_files; a policy says so to the browser.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

from blackswan.serving.detectors import Loaded
from blackswan.serving.pipeline import Evaluation, Pipeline
from blackswan.serving.problems import problem
from blackswan.serving.routes import described

HERE = Path(__file__).parent / "page_files"
FILES = {
    "": ("index.html", "text/html"),
    "docs": ("docs.html", "text/html"),
    "docs.js": ("docs.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "favicon.svg": ("favicon.svg", "image/svg+xml"),
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    # the report, which the page opens, has its style in itself
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; object-src 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
NO_PIPELINE = (
    "no pipeline wrote this detector here; serve a folder such as data/detectors/padim of a "
    "repository in which `dvc repro` ran"
)


def add_page(app: FastAPI, current: Callable[[], Loaded], pipeline: Pipeline | None) -> None:
    """Add the page, the evaluation of the detector that is served, and the frames of clips."""
    for path, (name, kind) in FILES.items():
        app.get(f"/{path}", include_in_schema=False)(partial(_file, HERE / name, kind))

    @app.get("/report", include_in_schema=False)
    def report() -> Response:
        """Return the report of the pipeline."""
        if pipeline is None or not pipeline.report.is_file():
            return problem(404, NO_PIPELINE)
        return Response(pipeline.report.read_bytes(), media_type="text/html")

    @app.get("/v1/evaluation", response_model=Evaluation, responses=MISSING)
    def evaluation() -> Response:
        """List the test images with their scores, for whoever asks what another threshold does."""
        if pipeline is None:
            return problem(404, NO_PIPELINE)
        found = pipeline.evaluation(current())
        return Response(found.model_dump_json(), media_type="application/json")

    @app.get("/v1/evaluation/{number}", responses=MISSING, response_class=Picture)
    def test_image(number: int) -> Response:
        """Return a test image by its number in the evaluation."""
        if pipeline is None:
            return problem(404, NO_PIPELINE)
        content = pipeline.test_image(current(), number)
        if content is None:
            return problem(404, "the evaluation has no image of this number; see /v1/evaluation")
        return Picture(content, headers={"Cache-Control": "private, max-age=60"})

    @app.post("/v1/frames", openapi_extra=CLIP, response_class=Frames)
    async def frames(request: Request, every: float = 0.5) -> Response:
        """Cut a clip, which is the body, into a frame every so many seconds: lines of JSON."""
        if find_spec("av") is None:
            return problem(415, "this installation reads no clips; send images, or install PyAV")
        from blackswan.serving import clips  # a server of an export decodes images alone

        name = request.headers.get("x-file-name", "clip")
        begun = await asyncio.to_thread(clips.begin, await request.body(), name, every)
        return Frames(begun)


class Picture(Response):
    """An image of the data set."""

    media_type = "image/png"


class Frames(StreamingResponse):
    """Lines of JSON."""

    media_type = "application/x-ndjson"


MISSING = described({404: "There is none"})
CLIP = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


async def _file(path: Path, kind: str) -> Response:
    return Response(path.read_bytes(), media_type=kind, headers=HEADERS)
