"""The inspection service beside the same detector in process: latency, throughput, memory.

    python benchmarks/serving.py [--model data/detectors/patchcore]

Writes serving.json and serving.png. In process, one image after another gives the latency, and
batches of what decodes on all cores give the rate. Clients keep a connection each, send PNG frames
of the sample clip and wait for the answer; they share the cores with the service. Leave the machine
alone meanwhile: three minutes.
"""

import argparse
import http.client
import io
import os
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
from matplotlib.figure import Figure
from measured import record

from blackswan.data.decoding import decode_turned
from blackswan.errors import InputError, run
from blackswan.evaluation.model import Model, load
from blackswan.outputs import write_json
from blackswan.parallel import available_cores

HERE = Path(__file__).parent
ROOT, RESULT = HERE.parent, HERE / "serving.json"
CLIENTS, SECONDS, LONG_SECONDS, WARM_UP, IMAGES = (1, 4, 16), 20, 60, 10, 64
BATCH, PORT = 16, 5078
BOUNDARY = b"frame"
HEAD = b'--%b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n' % BOUNDARY
TAIL = b"\r\n--%b--\r\n" % BOUNDARY
Part = dict[str, Any]


def pictures() -> list[bytes]:
    """Return frames of the sample clip as PNG files."""
    clip, found = cv2.VideoCapture(str(ROOT / "data/sample.mp4")), []
    while len(found) < IMAGES and (frame := clip.read())[0]:
        found.append(cv2.imencode(".png", frame[1])[1].tobytes())
    if not found:
        raise InputError("data/sample.mp4 cannot be read; run `dvc repro fetch_sample`")
    return found


def decode(model: Model, content: bytes) -> np.ndarray:
    """Return an image as the detector sees it."""
    bit_depth = model.facts.preprocessing.bit_depth
    return model.prepare(decode_turned(io.BytesIO(content), "frame", bit_depth)[0])


def in_process(model: Model, images: list[bytes]) -> Part:
    """Return the latency of one image after another, and the rate in batches."""
    seconds = []
    for number in range(WARM_UP + IMAGES):
        begin = time.perf_counter()
        model.score_prepared([decode(model, images[number % len(images)])])
        seconds.append(time.perf_counter() - begin)
    cv2.setNumThreads(1)
    begin, done = time.perf_counter(), 0
    with ThreadPoolExecutor(available_cores()) as threads:
        decoded = threads.map(lambda content: decode(model, content), 4 * images)
        while batch := list(islice(decoded, BATCH)):
            model.score_prepared(batch)
            done += len(batch)
    rate = done / (time.perf_counter() - begin)
    return {"p50_ms": 1000 * float(np.median(seconds[WARM_UP:])), "images_per_second": rate}


def client(images: list[bytes], until: float) -> tuple[list[float], Counter]:
    """Ask until the time is over; return the seconds of each answer, and the statuses."""
    connection, seconds, statuses = http.client.HTTPConnection("127.0.0.1", PORT), [], Counter()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    while time.perf_counter() < until:
        content = images[len(seconds) % len(images)]
        begin = time.perf_counter()
        connection.request(
            "POST",
            "/v1/score",
            HEAD + content + TAIL,
            headers,
        )
        response = connection.getresponse()
        response.read()
        statuses[response.status] += 1
        if response.status == http.HTTPStatus.OK:
            seconds.append(time.perf_counter() - begin)
        else:
            time.sleep(float(response.headers.get("Retry-After", 1)))
    return seconds, statuses


def load_by(clients: int, images: list[bytes], seconds: float) -> Part:
    """Return rate, latency and statuses of so many clients at once."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as threads:
        asked = [threads.submit(client, images, begin + seconds) for _ in range(clients)]
        answers = [one.result() for one in asked]
    took = time.perf_counter() - begin
    every = np.concatenate([seconds for seconds, _ in answers])
    middle, late = 1000 * np.quantile(every, [0.5, 0.95])
    statuses = sum((found for _, found in answers), Counter())
    return {
        "images_per_second": len(every) / took,
        "p50_ms": float(middle),
        "p95_ms": float(late),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
    }


def start(model: Path) -> subprocess.Popen:
    """Start the service and return once it answers."""
    command = ["blackswan", "serve", str(model), "--port", str(PORT), "--watch", "0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT)
            connection.request("GET", "/ready")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return server
        except OSError:
            time.sleep(0.2)
    raise InputError("the service did not start; what it says stands above")


def measure(folder: Path) -> Part:
    """Return what the service takes, and its ratios to the model in process, before and after."""
    images = pictures()
    own = [in_process(load(folder), images)]
    server = start(folder)
    try:
        process, rows = psutil.Process(server.pid), {}
        load_by(1, images, 3)
        for clients in CLIENTS:
            rows[str(clients)] = load_by(clients, images, SECONDS)
        before = process.memory_info().rss
        rows["16, longer"] = load_by(16, images, LONG_SECONDS)
        grown = process.memory_info().rss - before
    finally:
        server.terminate()
        server.wait()
    own.append(in_process(load(folder), images))
    latency = float(np.mean([one["p50_ms"] for one in own]))
    rate = float(np.mean([one["images_per_second"] for one in own]))
    for row in rows.values():
        row["p50_to_in_process"] = row["p50_ms"] / latency
        row["rate_to_in_process"] = row["images_per_second"] / rate
    return {
        "detector": folder.name,
        "cores": available_cores(),
        "in_process": {"p50_ms": latency, "images_per_second": rate},
        "clients": rows,
        "memory_gb": before / 1e9,
        "memory_grown_mb": grown / 1e6,
    }


def picture(found: Part) -> Figure:
    """Draw latency and rate against the clients."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    latency, rate = figure.subplots(1, 2)
    rows = [found["clients"][str(clients)] for clients in CLIENTS]
    for key in ("p50_ms", "p95_ms"):
        latency.plot(CLIENTS, [row[key] for row in rows], "o-", label=key[:3])
    latency.axhline(found["in_process"]["p50_ms"], color="grey", label="in process")
    latency.set(xlabel="clients", ylabel="ms an image", ylim=(0, None))
    latency.legend()
    rate.plot(CLIENTS, [row["images_per_second"] for row in rows], "o-", label="service")
    rate.axhline(
        found["in_process"]["images_per_second"], color="grey", label="in process, batches"
    )
    rate.set(xlabel="clients", ylabel="images a second", ylim=(0, None))
    rate.legend()
    return figure


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "data/detectors/patchcore")
    os.environ.pop("BLACKSWAN_API_KEY", None)
    found = measure(parser.parse_args().model)
    write_json(RESULT, found)
    drawn = picture(found)
    drawn.savefig(RESULT.with_suffix(".png"), dpi=110, metadata={"Software": None})
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
