"""Decisions over HTTP: keep one, list them, and say how often people override the detector."""

import errno
import io
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from blackswan.data.decoding import FORMATS
from blackswan.data.known import sha256_of
from blackswan.errors import InputError, shown
from blackswan.params import Section
from blackswan.serving import bank
from blackswan.serving.decisions import Decision, Decisions, OvertakenError, Rate
from blackswan.serving.intake import parsed, read_file
from blackswan.serving.problems import Refused, problem
from blackswan.serving.routes import PIXEL, PROBLEMS, described, route
from blackswan.serving.scorer import Judged, Upload
from blackswan.tracking.contract import from_base64

if TYPE_CHECKING:
    from blackswan.serving.app import Service

SHA256 = r"^[0-9a-f]{64}$"
CAMERA = r"^[\w.-]{0,64}$"
DAY = r"^\d{4}-\d\d-\d\d$"
MOST = 500  # decisions of a page
METRIC_DAYS = 7  # that /metrics tells of


class Decided(Section):
    """What a person decides of one image."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "image": PIXEL,
                "name": "part.png",
                "camera": "line1",
                "user": "anna",
                "label": "anomalous",
                "defect": "scratch",
                "seen": 0,
            }
        }
    )

    image: str | None = Field(default=None, description="base64 of an image file")
    sha256: str | None = Field(
        default=None, pattern=SHA256, description="of an image that was decided before, instead"
    )
    name: str = Field(default="", max_length=300)
    camera: str = Field(default="", pattern=CAMERA)
    user: str = Field(min_length=1, max_length=100)
    label: Literal["normal", "anomalous"]
    defect: str = Field(default="", pattern=r"^(\w[\w +-]{0,59})?$", description="of an anomalous")
    note: str = Field(default="", max_length=1000)
    seen: int = Field(ge=0, description="version of the decision that was shown; 0: none")
    add_to_bank: bool = Field(
        default=False, description="normal: let patchcore or dino_memory know it at once"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Decided":
        if (self.image is None) == (self.sha256 is None):
            raise ValueError("send either image or sha256")
        if self.label == "normal" and self.defect:
            raise ValueError("what is normal has no defect; leave defect out")
        if self.add_to_bank and self.label != "normal":
            raise ValueError("add_to_bank is for normal images alone")
        return self


class DecisionAnswer(BaseModel):
    """A decision that is kept."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 17,
                "sha256": "ab" * 32,
                "version": 1,
                "camera": "line1",
                "name": "part.png",
                "user": "anna",
                "time": "2026-03-01T09:30:00.000+00:00",
                "detector": "patchcore",
                "detector_hash": "3a1f0c4b7d1e4f6e8c2b9a5d6e7f8091.dir",
                "score": 7.25,
                "p_value": 0.02,
                "verdict": "anomalous",
                "label": "normal",
                "defect": "",
                "note": "dust",
                "override": True,
                "added_to_bank": False,
            }
        }
    )

    id: int
    sha256: str = Field(description="of the bytes of the image")
    version: int = Field(description="to be sent as `seen` with the next decision of the image")
    camera: str
    name: str
    user: str
    time: str = Field(description="UTC")
    detector: str
    detector_hash: str
    score: float
    p_value: float
    verdict: str = Field(description="of the detector")
    label: str = Field(description="that was decided")
    defect: str
    note: str
    override: bool = Field(description="the decision is not the detector's")
    added_to_bank: bool = Field(default=False, description="the detector served knows it now")


class DecisionsAnswer(BaseModel):
    """Decisions, the newest first."""

    decisions: list[DecisionAnswer]
    before: int | None = Field(description="to be sent for the next page; null at the end")


class RateAnswer(BaseModel):
    """Of the images decided on a day, whose latest decision is not the detector's."""

    camera: str
    day: str
    decided: int
    overrides: int
    rate: float


class RatesAnswer(BaseModel):
    """By day, the newest first, and camera."""

    rates: list[RateAnswer]


class Review:
    """The routes of the decisions of one service."""

    def __init__(self, service: "Service", decisions: Decisions) -> None:
        self._service, self._decisions = service, decisions

    def add_routes(self, app: FastAPI) -> None:
        """Add the routes."""
        body = {"application/json": {"schema": Decided.model_json_schema()}}
        extra: dict[int | str, str] = {
            409: "Somebody decided since",
            507: "The disk is full; the answer says whether the decision is kept",
        }
        route(
            app, "/v1/decisions", self.decide, body, PROBLEMS | extra,
            response_model=DecisionAnswer, summary="Keep what a person decides of an image",
        )  # fmt: skip
        app.get("/v1/decisions", response_model=DecisionsAnswer)(self.decisions)
        app.get("/v1/decisions/rates", response_model=RatesAnswer)(self.rates)
        missing = described({404: "No decision was kept of such an image"})
        app.get("/v1/decisions/images/{sha256}", response_class=FileResponse, responses=missing)(
            self.image
        )

    def recent_rates(self) -> list[Rate]:
        """Return what /metrics tells."""
        return self._decisions.rates(METRIC_DAYS)

    async def decide(self, request: Request) -> Response:
        """Keep a decision; the answer is sent once it is on the disk.

        The image is judged by the detector served, so that score and verdict are those of its hash.
        `seen` is the version of the image's decision that was shown to who decides, 0 for none:
        where another was kept since, the answer has the status 409 and says who decided what.
        """
        body = await request.body()
        decided, content = await self._service.apart(partial(self._read, body))
        if decided.add_to_bank:
            bank.check(self._service.scorer.current)
        sha256 = sha256_of(content)
        name = shown(decided.name) or "the image"
        ignored = self._service.ignored_by(decided.camera)
        upload = Upload(partial(io.BytesIO, content), name, ignored)
        (judged,) = await self._service.judge([upload])
        kept = await self._service.apart(
            partial(self._keep, _decision(decided, sha256, judged), content, decided.seen)
        )
        answer = _answer(kept)
        if decided.add_to_bank:
            answer.added_to_bank = await self._service.apart(
                partial(self._add_to_bank, judged, sha256)
            )
        return JSONResponse(answer.model_dump(), headers={"ETag": f'"{kept.version}"'})

    async def decisions(
        self,
        camera: Annotated[str | None, Query(pattern=CAMERA)] = None,
        day: Annotated[str | None, Query(pattern=DAY, description="UTC, 2026-03-01")] = None,
        sha256: Annotated[str | None, Query(pattern=SHA256)] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
        before: Annotated[
            int | None, Query(ge=1, lt=2**63, description="of the page before")
        ] = None,
    ) -> DecisionsAnswer:
        """List decisions, the newest first."""
        found = await self._service.apart(
            lambda: self._decisions.page(limit, before, camera=camera, day=day, sha256=sha256)
        )
        after = found[-1].id if len(found) == limit else None
        return DecisionsAnswer(decisions=[_answer(one) for one in found], before=after)

    async def rates(self, days: Annotated[int, Query(ge=1, le=366)] = 30) -> RatesAnswer:
        """Say how often people overrode the detector, by day and camera."""
        found = await self._service.apart(partial(self._decisions.rates, days))
        return RatesAnswer(rates=[RateAnswer(**asdict(one), rate=one.rate) for one in found])

    async def image(self, sha256: str) -> Response:
        """Return the file of an image that was decided."""
        found = await self._service.apart(partial(self._find, sha256))
        if found is None:
            return problem(404, "no decision was kept of an image of this sha256")
        path, kind = found
        return FileResponse(path, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    def _add_to_bank(self, judged: Judged, sha256: str) -> bool:
        """Let the detector know a normal image whose decision is kept; say so where it cannot."""
        scorer, folder = self._service.scorer, self._decisions.folder
        try:
            return bank.add(scorer, judged.image, judged.by, sha256, folder)
        except InputError as error:
            raise InputError(
                f"the decision is kept, the memory bank is as it was: {error}"
            ) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise Refused(
                507,
                "the decision is kept, but the disk of the server is full and the memory bank is as"
                " it was; free some space on it, then send the same again",
            ) from None

    def _find(self, sha256: str) -> tuple[Any, str] | None:
        if self._decisions.latest(sha256) is None:
            return None
        path = self._decisions.image(sha256)
        with Image.open(path, formats=FORMATS) as image:
            return path, image.get_format_mimetype() or "application/octet-stream"

    def _read(self, body: bytes) -> tuple[Decided, bytes]:
        decided = parsed(Decided, body)
        if decided.image is not None:
            return decided, from_base64(decided.image, "image").getvalue()
        sha256 = decided.sha256 or ""
        if self._decisions.latest(sha256) is None:
            raise InputError("no decision was kept of an image of this sha256; send the image")
        most = self._service.limits.body_bytes
        return decided, read_file(self._decisions.image(sha256), "the image", most).getvalue()

    def _keep(self, decision: Decision, content: bytes, seen: int) -> Decision:
        try:
            return self._decisions.keep(decision, content, seen)
        except OvertakenError as overtaken:
            raise _refused(overtaken.latest) from None
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise Refused(
                507,
                "the disk of the server is full and the decision is not kept; free some space on "
                "it, then decide again",
            ) from None


def _refused(latest: Decision | None) -> Refused:
    if latest is None:
        return Refused(409, "nothing was decided of this image yet; send seen: 0")
    what = f"{latest.label} ({latest.defect})" if latest.defect else latest.label
    return Refused(
        409,
        f"{shown(latest.user)} decided {what} at {latest.time}; look at it, and send seen: "
        f"{latest.version} to decide otherwise",
        more={"latest": _answer(latest).model_dump()},
    )


def _decision(decided: Decided, sha256: str, judged: Judged) -> Decision:
    found, number = judged.found, judged.number
    return Decision(
        id=0,
        sha256=sha256,
        version=0,
        camera=decided.camera,
        name=decided.name,
        user=decided.user,
        time="",
        detector=judged.by.name,
        detector_hash=judged.by.hash,
        score=float(found.image_scores[number]),
        p_value=float(found.p_values[number]),
        verdict="anomalous" if found.flagged[number] else "normal",
        label=decided.label,
        defect=decided.defect,
        note=decided.note,
    )


def _answer(decision: Decision) -> DecisionAnswer:
    return DecisionAnswer(**asdict(decision), override=decision.label != decision.verdict)
