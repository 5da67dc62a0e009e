"""One process that serves a detector until it is told to stop."""

import asyncio
import os
import webbrowser
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from blackswan.data.regions import Ignored
from blackswan.errors import InputError
from blackswan.serving.app import Service
from blackswan.serving.decisions import Decisions
from blackswan.serving.detectors import Loaded, Source, load_detector
from blackswan.serving.guard import KEY
from blackswan.serving.limits import Limits
from blackswan.serving.pipeline import pipeline_of
from blackswan.serving.reload import Reload

CONNECTIONS = 1000  # at once; further ones are told to come later


def serve(
    source: Source,
    host: str,
    port: int,
    limits: Limits,
    watch_seconds: float,
    *,
    decisions: Path | None = None,
    streams: Path | None = None,
    memory: Path | None = None,
    ignored: Mapping[str, Ignored] | None = None,
    log: Path | None = None,
    opens: bool = False,
) -> None:
    """Serve a detector until Ctrl-C; a new version of it is looked for, 0 seconds: never.

    What people decide is kept in the folder `decisions`, where there is one; `streams` is that of
    `blackswan watch`, which is shown; `memory` that of `blackswan index`, for /v1/similar. What is
    `ignored` of a camera's pictures does not count. `log` keeps what is answered. With `opens` a
    browser shows the page.

    Raises InputError where there is no such detector, or the port is taken.
    """
    stamp = source.stamp()
    kept = Decisions(decisions) if decisions else None
    loaded = load_detector(source)
    complete = _as_it_is
    if decisions:
        from blackswan.serving.bank import latest  # needs torch

        complete = partial(latest, folder=decisions)
    recorder = None
    if log:
        from blackswan.serving.record import Recorder  # needs pandas and scipy

        recorder = Recorder(log)
        complete = partial(_completed, recorder.prepare, complete)
    loaded = complete(loaded)
    service = Service(
        loaded,
        limits,
        os.environ.get(KEY),
        pipeline=pipeline_of(source),
        decisions=kept,
        streams=streams,
        ignored=ignored,
        recorder=recorder,
    )
    if memory:
        from blackswan.serving.similar import add_memory  # needs an extra

        add_memory(service, memory)

    def completed(loaded: Loaded) -> Loaded:
        service.check(loaded)
        return complete(loaded)

    reload = Reload(source, service.scorer, stamp, watch_seconds, completed)
    if watch_seconds:
        reload.start()
    url = f"http://{host}:{port}"
    print(f"{source.name} ({loaded.hash}) at {url}", flush=True)
    if opens:
        Timer(1, webbrowser.open, [url]).start()  # uvicorn listens by then
    try:
        uvicorn.run(
            service.app,
            host=host,
            port=port,
            http=impatient(limits.header_seconds),
            log_level="warning",
            lifespan="off",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=int(limits.answer_seconds),
        )
    except SystemExit:  # uvicorn has logged what the system said
        raise InputError(
            f"port {port} of {host} cannot be used; choose another by --port"
        ) from None
    finally:
        reload.close()
        service.close()
        if recorder:
            recorder.close()
        if kept:
            kept.close()


def _as_it_is(loaded: Loaded) -> Loaded:
    return loaded


def _completed(
    prepare: Callable[[Loaded], Loaded], complete: Callable[[Loaded], Loaded], loaded: Loaded
) -> Loaded:
    return complete(prepare(loaded))


def impatient(seconds: float) -> type[H11Protocol]:
    """Return uvicorn's protocol, which hangs up where the head of a request takes longer."""

    class Impatient(H11Protocol):
        head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - of asyncio
            super().connection_made(transport)
            self.head = self.loop.call_later(seconds, self._hang_up)

        def connection_lost(self, exc: Exception | None) -> None:
            self._arrived()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._arrived()
            elif self.head is None and (before is None or before.response_complete):
                # the head of the next request on the same connection
                self.head = self.loop.call_later(seconds, self._hang_up)

        def _arrived(self) -> None:
            if self.head is not None:
                self.head.cancel()
                self.head = None

        def _hang_up(self) -> None:
            if not self.transport.is_closing():
                self.transport.close()

    return Impatient
