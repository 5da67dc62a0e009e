"""What do Spark and serving cost beside the local engine and the model itself?

    python benchmarks/cloud.py engines            build_dataset by both engines, over IMAGES
    python benchmarks/cloud.py serving            requests to both servers, over CLIENTS

Writes benchmarks/cloud.{json,png}; without arguments both.
Engines: images of 32 pixels, no two alike, become rows of the dataset without augmentation, by the
stage itself in a process of its own. A run on FEW images is the start, which is paid once; rows/s
are those between the least and the most of IMAGES. Memory is that of all processes of a run
together, four times a second. Serving: MLflow's scoring server (`blackswan endpoint`) and the
service (`blackswan serve`) get frames of the sample clip as PNG, one in each request, whose JSON
was written before, by threads that each wait for their answer; in process, the same requests go one
after the other through the same contract, by the same number of torch threads. Ratios are of
medians over ROUNDS, in each of which all take their turn.
"""

import argparse
import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Event, Thread
from typing import Any

import cv2
import numpy as np
import pandas as pd
import psutil
import yaml
from matplotlib.figure import Figure
from measured import record

from blackswan.data.images import write_png
from blackswan.data.preprocessing import Preprocessing, write
from blackswan.data.records import Frame, write_index
from blackswan.errors import InputError, run
from blackswan.evaluation.model import load
from blackswan.outputs import write_json
from blackswan.parallel import available_cores
from blackswan.tracking.contract import answer

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks/cloud.json"
ENGINES, FEW, IMAGES, SIDE = ("local", "spark"), 100, (1000, 10_000, 50_000), 32
SERVERS = ("endpoint", "serve")
CLIENTS, REQUESTS, WARM_UP, ROUNDS = (1, 4, 16), 48, 3, 4
Part = dict[str, Any]


def prepare(folder: Path, images: int) -> None:
    """Lay out what build_dataset reads: drawn frames, their table, params."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(images):
        clouds = rng.normal(120, 40, (5, 5, 3)).astype(np.float32)
        image = cv2.resize(clouds, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        name = f"frames/images/{number // 1000:02d}/{number:05d}.png"
        write_png(folder / "data" / name, np.clip(image, 0, 255).astype(np.uint8))
        split = ("train", "train", "validation", "test")[number % 4]
        frames.append(Frame(name, "drawn", group=str(number), split=split, label="normal"))
    write_index(folder / "data/labels.csv", frames)
    write(folder / "data/frames/preprocessing.json", Preprocessing(steps=[]))
    (folder / "data/anomalies").mkdir()


def build(folder: Path, engine: str) -> Part:
    """Run build_dataset by one engine and return what it took."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    block = params["build_dataset"] | {"engine": engine, "image_size": SIDE, "crop": "none"}
    block["augment"] |= {"copies": 0}
    (folder / "params.yaml").write_text(yaml.safe_dump({"build_dataset": block}), encoding="utf-8")
    shutil.rmtree(folder / "data/dataset", ignore_errors=True)
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "stages/build_dataset.py")], cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with watched(process.pid) as most:
        process.communicate()
    if process.returncode:
        raise InputError(f"build_dataset by {engine} failed; what it says stands above")
    return {"seconds": round(time.perf_counter() - begin, 2), "peak_gb": round(most[0] / 1e9, 2)}


@contextmanager
def watched(identity: int) -> Iterator[list[int]]:
    """Yield a list whose only number is the most memory of a process and all that it started."""
    most, done = [0], Event()

    def watch() -> None:
        while not done.wait(0.25):
            with suppress(psutil.Error):
                parent = psutil.Process(identity)
                found = 0
                for process in (parent, *parent.children(recursive=True)):
                    with suppress(psutil.Error):
                        found += process.memory_info().rss
                most[0] = max(most[0], found)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()


def engines() -> Part:
    """Return seconds, memory and rows/s of both engines."""
    found: Part = {engine: {} for engine in ENGINES}
    for images in (FEW, *IMAGES):
        with tempfile.TemporaryDirectory(dir=ROOT / "data") as name:  # /tmp may be memory
            prepare(Path(name), images)
            for engine in ENGINES:
                found[engine][str(images)] = row = build(Path(name), engine)
                print(f"{images} images, {engine}: {row}", file=sys.stderr, flush=True)
    return found | rates(found)


def rates(found: Part) -> Part:
    """Return rows/s of both engines, their ratio, and how the local seconds grow."""
    seconds = {
        engine: [found[engine][str(images)]["seconds"] for images in IMAGES] for engine in ENGINES
    }
    rows = {
        engine: (IMAGES[-1] - IMAGES[0]) / (taken[-1] - taken[0])
        for engine, taken in seconds.items()
    }
    exponent = np.polyfit(np.log(IMAGES), np.log(seconds["local"]), 1)[0]
    return {
        "rows_per_second": {engine: round(rate, 1) for engine, rate in rows.items()},
        "spark_to_local": round(rows["spark"] / rows["local"], 3),
        "local_exponent": round(float(exponent), 3),
    }


def serving(model: Path) -> Part:
    """Return requests/s and latency of both servers, and their ratios to the model in process."""
    clip = cv2.VideoCapture(str(ROOT / "data/sample.mp4"))
    requests = []
    while len(requests) < 32 and (frame := clip.read())[0]:
        content = cv2.imencode(".png", frame[1])[1].tobytes()
        requests.append({"dataframe_records": [{"image": base64.b64encode(content).decode()}]})
    own = in_process(model, requests)
    base: list[float] = []
    asked: dict[tuple[str, int], list[tuple[list[float], float]]] = defaultdict(list)
    with ExitStack() as servers, tempfile.TemporaryDirectory() as name:
        environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{name}/mlflow.db"}
        subprocess.run(
            ["blackswan", "register", str(model)],
            cwd=ROOT,
            env=environment,
            check=False,
            stdout=sys.stderr,
        )  # fmt: skip - the gate may say no, which is nothing to speed
        sources = dict(zip(SERVERS, ("models:/blackswan/1", str(model)), strict=True))
        running = {
            command: servers.enter_context(server(command, source, 5077 + number, environment))
            for number, (command, source) in enumerate(sources.items())
        }
        for _ in range(ROUNDS):
            base += own()
            for command, (port, _) in running.items():
                for clients in CLIENTS:
                    asked[command, clients].append(ask(port, requests, clients))
        memory = {
            command: psutil.Process(identity).memory_info().rss
            for command, (_, identity) in running.items()
        }
    median = float(np.median(base))
    return {
        "detector": model.name,
        "in_process_ms": round(1000 * median, 2),
        **{
            command: {
                "clients": {
                    str(clients): of_rounds(asked[command, clients], median) for clients in CLIENTS
                },
                "server_gb": round(memory[command] / 1e9, 2),
            }
            for command in sources
        },
    }


@contextmanager
def server(
    command: str, source: str, port: int, environment: dict[str, str]
) -> Iterator[tuple[int, int]]:
    """Start `blackswan endpoint` or `serve`; yield its port and process once it answers."""
    process = subprocess.Popen(
        ["blackswan", command, source, "--port", str(port)],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(port, process)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def wait_for(port: int, server: subprocess.Popen) -> None:
    """Return once a server answers."""
    deadline = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        with suppress(OSError):
            connection.request("GET", "/ping")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        time.sleep(0.5)
    raise InputError("the server did not start; what it says stands above")


def in_process(folder: Path, requests: list[Part]) -> Callable[[], list[float]]:
    """Return what measures the seconds of each request without a server."""
    model = load(folder)

    def measure() -> list[float]:
        seconds = []
        for number in range(WARM_UP + REQUESTS):
            rows = pd.DataFrame(requests[number % len(requests)]["dataframe_records"])
            begin = time.perf_counter()
            json.dumps(answer(model, rows).to_dict("records"))
            seconds.append(time.perf_counter() - begin)
        return seconds[WARM_UP:]

    return measure


def ask(port: int, requests: list[Part], clients: int) -> tuple[list[float], float]:
    """Return the seconds of each of REQUESTS by so many clients at once, and of all together."""
    bodies = [json.dumps(request).encode() for request in requests]
    warm = Barrier(clients + 1)

    def client(number: int) -> list[float]:
        connection, seconds = http.client.HTTPConnection("127.0.0.1", port), []
        for turn in range(-WARM_UP, REQUESTS // clients):
            if turn == 0:
                warm.wait()
            body = bodies[(number + turn * clients) % len(bodies)]
            begin = time.perf_counter()
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            if response.status != http.HTTPStatus.OK:
                warm.abort()
                raise InputError(f"port {port} answers with status {response.status}")
            seconds.append(time.perf_counter() - begin)
        return seconds[WARM_UP:]

    with ThreadPoolExecutor(clients) as threads:
        asked = [threads.submit(client, number) for number in range(clients)]
        with suppress(BrokenBarrierError):  # its client says why
            warm.wait()
        begin = time.perf_counter()
        seconds = [each for one in asked for each in one.result()]
        return seconds, time.perf_counter() - begin


def of_rounds(rounds: list[tuple[list[float], float]], in_process: float) -> Part:
    """Return rate and latency over all rounds, and their ratios."""
    every = [each for seconds, _ in rounds for each in seconds]
    rate = len(every) / sum(together for _, together in rounds)
    middle, late = np.quantile(every, [0.5, 0.95])
    return {
        "requests_per_second": round(rate, 2),
        "p50_ms": round(1000 * float(middle), 1),
        "p95_ms": round(1000 * float(late), 1),
        "p50_to_in_process": round(float(middle) / in_process, 3),
        "rate_to_in_process": round(rate * in_process, 3),
    }


def picture(found: Part) -> Figure:
    """Draw seconds and memory of the engines, and the latency of serving."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    duration, memory, latency = figure.subplots(1, 3)
    for engine in ENGINES if "engines" in found else ():
        rows = {int(images): row for images, row in found["engines"][engine].items()}
        duration.loglog(
            sorted(rows), [rows[n]["seconds"] for n in sorted(rows)], "o-", label=engine
        )
        memory.semilogx(sorted(rows), [rows[n]["peak_gb"] for n in sorted(rows)], "o-")
    duration.set(xlabel="images", ylabel="seconds, with the start")
    memory.set(xlabel="images", ylabel="GB, all processes", ylim=(0, None))
    duration.legend()
    if "serving" in found:
        for command in SERVERS:
            rows = found["serving"][command]["clients"]
            latency.plot(CLIENTS, [rows[str(n)]["p50_ms"] for n in CLIENTS], "o-", label=command)
        latency.axhline(found["serving"]["in_process_ms"], color="grey", label="in process")
        latency.set(xlabel="clients", ylabel="ms a request, median", ylim=(0, None))
        latency.legend()
    return figure


def main() -> None:
    """Measure what is named, and write and draw what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["engines", "serving"])
    parser.add_argument("--model", type=Path, default=ROOT / "data/detectors/patchcore")
    chosen = parser.parse_args()
    found = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    found["cores"] = available_cores()
    for part in [chosen.part] if chosen.part else ("engines", "serving"):
        found[part] = engines() if part == "engines" else serving(chosen.model)
        write_json(RESULT, found)
    drawn = picture(found)
    drawn.savefig(RESULT.with_suffix(".png"), dpi=110, metadata={"Software": None})
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
