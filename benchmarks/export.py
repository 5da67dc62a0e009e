"""How fast is an exported detector, how near to the detector itself, and how small its install?

    python benchmarks/export.py latency        every detector by torch, ONNX Runtime, OpenVINO, INT8
    python benchmarks/export.py install        a venv without torch: its size, its first answer

Writes benchmarks/export.{json,png}; without arguments both. It needs data/ of `dvc repro`.
Latency is from the decoded photo to verdict and map, one image after the other, the runtimes taking
turns at every image; medians, and their ratios to torch in the same run. The install is that of
docker/serve.txt; its first answer is timed from the start of the process to the answer of
POST /v1/score, the median of STARTS after one that fills the system's cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from matplotlib.figure import Figure
from measured import record

from blackswan.errors import InputError, run
from blackswan.evaluation.model import Model
from blackswan.export import exporting
from blackswan.export.runtime import Exported, Runtime, load
from blackswan.outputs import write_json
from blackswan.parallel import available_cores

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks/export.json"
DETECTORS = ("padim", "patchcore", "median_residual", "dino_memory", "vit")
SERVED = "patchcore"
VARIANTS: dict[str, tuple[Runtime, bool]] = {
    "onnx": ("onnx", False),
    "openvino": ("openvino", False),
    "onnx_int8": ("onnx", True),
    "openvino_int8": ("openvino", True),
}
IMAGES, WARM_UP, STARTS = 30, 3, 5
Part = dict[str, Any]


def latency(data: Path, source: Path) -> Iterator[tuple[str, Part]]:
    """Yield what each detector takes by each runtime, and how it differs."""
    photos = exporting.read_photos(source, 16)
    for name in DETECTORS:
        rows: Part = {"torch": {}}
        with tempfile.TemporaryDirectory() as place:
            folder = data / "detectors" / name
            models = {"torch": load(folder)}
            for variant, (runtime, int8) in VARIANTS.items():
                if int8 and name == "median_residual":  # which has no network
                    continue
                out = Path(place, variant)
                try:
                    done = exporting.export(
                        folder, out, runtime, data / "dataset", photos, int8=int8
                    )
                except InputError as error:
                    rows[variant] = {"refused": str(error).replace(f"{place}/", "")}
                    continue
                rows[variant] = compared(done)
                models[variant] = load(out)
            for variant, taken in timed(models, list(photos.images)).items():
                rows[variant]["ms"] = round(1000 * taken, 2)
        for row in rows.values():
            if "ms" in row:
                row["to_torch"] = round(row["ms"] / rows["torch"]["ms"], 3)
        print(f"{name}: {rows}", file=sys.stderr, flush=True)
        yield name, rows


def compared(done: Exported) -> Part:
    """Return what an export found of itself."""
    row: Part = {"validation": done.validation.model_dump()}
    if done.photos:
        row["photos"] = done.photos.model_dump()
    if done.auroc:
        row["image_auroc"] = done.auroc.model_dump()
    return row


def timed(models: dict[str, Model], photos: list[np.ndarray]) -> dict[str, float]:
    """Return the median seconds of a photo by each model."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(WARM_UP + IMAGES):
        photo = photos[number % len(photos)]
        for name, model in models.items():
            begin = time.perf_counter()
            model.score([photo])
            seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(taken[WARM_UP:])) for name, taken in seconds.items()}


def install(data: Path, source: Path) -> Part:
    """Return the size of an install without torch, and when its first answer comes."""
    photos = exporting.read_photos(source, 16)
    with tempfile.TemporaryDirectory(dir=data) as place:
        out, venv = Path(place, SERVED), Path(place, "venv")
        exporting.export(
            data / "detectors" / SERVED, out, "onnx", data / "dataset", photos, int8=False
        )
        quietly(sys.executable, "-m", "venv", "--without-pip", str(venv))
        python = str(venv / "bin/python")
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
        quietly(
            *pip, "--constraint", str(ROOT / "constraints.txt"),
            "--requirement", str(ROOT / "docker/serve.txt"),
        )  # fmt: skip
        quietly(*pip, "--no-deps", str(ROOT))
        size = sum(
            path.stat().st_size
            for path in venv.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        picture = cv2.imencode(".png", next(iter(photos.images))[..., ::-1])[1].tobytes()
        seconds = [first_answer(python, out, picture) for _ in range(1 + STARTS)][1:]
        exported = sum(path.stat().st_size for path in out.iterdir())
    return {
        "detector": SERVED,
        "install_mb": round(size / 1e6, 1),
        "export_mb": round(exported / 1e6, 1),
        "first_answer_s": round(float(np.median(seconds)), 2),
        "slowest_first_answer_s": round(max(seconds), 2),
    }


def quietly(*command: str) -> None:
    """Run a program; raises InputError where it fails."""
    done = subprocess.run(command, check=False, capture_output=True)
    if done.returncode:
        raise InputError(f"{' '.join(command[:4])} ... failed; run it alone to see why")


def first_answer(python: str, folder: Path, picture: bytes) -> float:
    """Return the seconds from the start of a server to its first answer."""
    port = "5078"
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    begin = time.perf_counter()
    server = subprocess.Popen(
        [python, "-m", "blackswan.serving", str(folder), "--port", port],
        cwd=folder, env=plain, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while server.poll() is None and time.perf_counter() - begin < 60:
            with suppress(httpx.HTTPError):
                url = f"http://127.0.0.1:{port}/v1/score"
                answer = httpx.post(url, files={"images": picture}, timeout=60)
                if answer.status_code == httpx.codes.OK:
                    return time.perf_counter() - begin
            time.sleep(0.02)
    finally:
        server.terminate()
        server.wait()
    raise InputError("the server did not answer; what it says stands above")


def picture_of(found: Part) -> Figure:
    """Draw the latency of each detector by each runtime, relative to torch."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    names = ["torch", *VARIANTS]
    for number, name in enumerate(names):
        values = [found.get(each, {}).get(name, {}).get("to_torch", np.nan) for each in DETECTORS]
        places = np.arange(len(DETECTORS)) + 0.16 * (number - 2)
        axes.bar(places, values, 0.16, label=name.replace("_", " "))
    axes.set_xticks(np.arange(len(DETECTORS)), DETECTORS)
    axes.set(ylabel="time of a photo, torch = 1")
    axes.legend()
    return figure


def main() -> None:
    """Measure what is named, and write and draw what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["latency", "install"])
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    chosen = parser.parse_args()
    source = chosen.data / "sample.mp4"
    found = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    found["cores"] = available_cores()
    for part in [chosen.part] if chosen.part else ("latency", "install"):
        if part == "install":
            found[part] = install(chosen.data, source)
        for name, rows in latency(chosen.data, source) if part == "latency" else ():
            found.setdefault(part, {})[name] = rows
            write_json(RESULT, found)
        write_json(RESULT, found)
    if "latency" in found:
        drawn = picture_of(found["latency"])
        drawn.savefig(RESULT.with_suffix(".png"), dpi=110, metadata={"Software": None})
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
