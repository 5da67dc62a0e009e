"""What `blackswan watch` writes, over HTTP: the state of each camera, and its alarms."""

import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from blackswan.serving.alarms import ALARMS, FACTS
from blackswan.serving.problems import problem
from blackswan.serving.streams import STATE, STATE_SECONDS

SHOWN = 20  # alarms of a camera, the newest
SILENT = 10 * STATE_SECONDS  # after which a state is that of a watch which has ended


class Stream(BaseModel):
    """What goes on at one camera."""

    model_config = ConfigDict(extra="allow")

    camera: str
    running: bool = Field(description="`blackswan watch` has written lately")
    connected: bool = Field(description="frames come")
    alarm: str | None = Field(description="the name of the one that goes on")
    alarms: int = Field(description="since the watch was started")
    recent: list[dict[str, Any]] = Field(description="alarms, the newest first")


class Streams(BaseModel):
    """The cameras, by name."""

    streams: list[Stream]


class Live:
    """The routes of the cameras."""

    def __init__(self, folder: Path, apart: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._folder, self._apart = folder, apart

    def add_routes(self, app: FastAPI) -> None:
        """Add the routes."""
        app.get("/v1/streams", response_model=Streams)(self.streams)
        path = "/v1/streams/{camera}/alarms/{alarm}/{picture}.png"
        app.get(path, response_class=FileResponse)(self.picture)

    async def streams(self) -> Streams:
        """Say what goes on at each camera, and which alarms there were lately."""
        return cast(Streams, await self._apart(self._read))

    async def picture(
        self, camera: str, alarm: str, picture: Literal["frame", "overlay"]
    ) -> Response:
        """Return the frame that raised an alarm, or its overlay."""
        found = await self._apart(partial(self._find, camera, alarm))
        if found is None:
            return problem(404, "there is no such alarm; see /v1/streams")
        return FileResponse(found / f"{picture}.png")

    def _find(self, camera: str, alarm: str) -> Path | None:
        """Return the folder of an alarm, looked up by its name: no path leads elsewhere."""
        for name, parent in ((camera, self._folder), (alarm, self._folder / camera / ALARMS)):
            if name not in {path.name for path in _folders(parent)}:
                return None
        return self._folder / camera / ALARMS / alarm

    def _read(self) -> Streams:
        found = []
        for folder in _folders(self._folder):
            if not (folder / STATE).is_file():
                continue
            state = json.loads((folder / STATE).read_text(encoding="utf-8"))
            newest = sorted(_folders(folder / ALARMS), reverse=True)[:SHOWN]
            recent = [json.loads((path / FACTS).read_text(encoding="utf-8")) for path in newest]
            running = time.time() - state["updated_at"] < SILENT
            found.append(Stream(**state, running=running, recent=recent))
        return Streams(streams=found)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(
        path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
