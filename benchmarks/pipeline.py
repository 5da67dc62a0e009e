"""The pipeline beside its peers -> benchmarks/pipeline.json, and a table of it: `make bench`.

Every side is a whole command in a temporary copy of the code, its start and its imports included.
The sides take turns, so that a machine that slows down slows both, and medians are compared.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import yaml
from measured import record

from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.parallel import available_cores

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data/sample.mp4"
WEIGHTS = ROOT / "data/weights"
RESULT = ROOT / "benchmarks/pipeline.json"

REPETITIONS = 3
TIMES = 10  # how often the long clip repeats the sample
SIZE = 224  # pixels a side
ANOMALIES_PER_FRAME = 4
WARM_UP, STEPS = 2, 6  # training steps in each repetition that do not count, and that do
PACKAGES = ["av", "numpy", "opencv-python-headless", "pillow", "pyarrow", "torch", "transformers"]


@dataclass(frozen=True)
class Cost:
    """What one command took, and what it said."""

    seconds: float  # of the clock
    processor_seconds: float  # of all cores
    peak_mb: float  # of resident memory
    output: str


@dataclass(frozen=True)
class Comparison:
    """Two sides of one thing; the ratio is that of the first to the second."""

    what: str
    sides: dict[str, float]
    expected: str = ""

    @property
    def ratio(self) -> float:
        """Return how many times the second side the first one is."""
        first, second = self.sides.values()
        return first / second


def measure(command: list[str], folder: Path, cores: int | None = None) -> Cost:
    """Run a command in `folder`, on that many cores; raises InputError where it fails."""
    allowed = os.sched_getaffinity(0)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), f"{folder}/stages"])}
    with tempfile.TemporaryFile("w+") as output:
        os.sync()  # what the last command wrote is not this one's work
        os.sched_setaffinity(0, sorted(allowed)[:cores])  # is inherited
        try:
            begin = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
        finally:
            os.sched_setaffinity(0, allowed)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise InputError(f"`{' '.join(command)}` failed: {text.strip()}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def take_turns(sides: Mapping[str, Callable[[], Cost]]) -> dict[str, list[Cost]]:
    """Measure one side after the other, again and again."""
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for repetition in range(REPETITIONS):
        for name, side in sides.items():
            costs[name].append(side())
            seconds = costs[name][-1].seconds
            print(f"{repetition + 1}/{REPETITIONS} {name}: {seconds:.1f} s", file=sys.stderr)
    return costs


def seconds_of(costs: list[Cost]) -> float:
    """Return the median duration."""
    return median(cost.seconds for cost in costs)


def stage(folder: Path, name: str, out: str, cores: int | None = None) -> Cost:
    """Run one stage whose output does not exist yet."""
    shutil.rmtree(folder / out, ignore_errors=True)
    return measure([sys.executable, f"stages/{name}.py"], folder, cores)


def extract(folder: Path, clip: str) -> Cost:
    """Decode, crop, scale and write a clip by our stage, with the params of the repository."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["source"]["path"] = clip
    every_frame = {"every_n_seconds": 0, "start_s": 0, "end_s": None, "max_frames": None}
    params["extract_frames"] |= {"crop": "center_square", "size": SIZE, "video": every_frame}
    params["synthesize_anomalies"]["anomalies_per_frame"] = ANOMALIES_PER_FRAME
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return stage(folder, "extract_frames", "data/frames")


def extract_by_ffmpeg(folder: Path, clip: str) -> Cost:
    """Decode, crop, scale and write a clip by ffmpeg, which uses all cores as well."""
    shutil.rmtree(folder / "ffmpeg", ignore_errors=True)
    (folder / "ffmpeg").mkdir()
    change = f"crop=min(iw\\,ih):min(iw\\,ih),scale={SIZE}:{SIZE}:flags=area"
    options = ["-vf", change, "-fps_mode", "passthrough", "ffmpeg/%06d.png"]
    return measure(["ffmpeg", "-v", "error", "-i", clip, *options], folder)


def write_clip(path: Path, times: int) -> None:
    """Repeat the sample: its packets as they are or, without ffmpeg, encoded again by OpenCV."""
    if shutil.which("ffmpeg"):
        command = ["ffmpeg", "-v", "error", "-stream_loop", str(times - 1), "-i", str(SAMPLE)]
        measure([*command, "-map", "0:v", "-c", "copy", path.name], path.parent)
        return
    import cv2

    writer = None
    for _ in range(times):
        capture = cv2.VideoCapture(str(SAMPLE), cv2.CAP_FFMPEG)
        while capture.grab():
            image = capture.retrieve()[1]
            if writer is None:
                codec = cv2.VideoWriter.fourcc(*"mp4v")
                writer = cv2.VideoWriter(str(path), codec, 25, image.shape[1::-1])
            writer.write(image)
    if writer is not None:
        writer.release()


def compare_extraction(folder: Path) -> list[Comparison]:
    """Extract a clip and the same clip ten times as long, here and by ffmpeg."""
    write_clip(folder / "clip.mp4", 1)
    write_clip(folder / "long.mp4", TIMES)
    extract(folder, "clip.mp4")  # compiles the modules
    sides = {
        "extract_frames, clip": partial(extract, folder, "clip.mp4"),
        "extract_frames, long": partial(extract, folder, "long.mp4"),
    }
    if with_ffmpeg := shutil.which("ffmpeg") is not None:
        sides["ffmpeg, clip"] = partial(extract_by_ffmpeg, folder, "clip.mp4")
        sides["ffmpeg, long"] = partial(extract_by_ffmpeg, folder, "long.mp4")
    costs = take_turns(sides)
    peaks = {
        f"{TIMES} times the clip": median(cost.peak_mb for cost in costs["extract_frames, long"]),
        "the clip": median(cost.peak_mb for cost in costs["extract_frames, clip"]),
    }
    memory = Comparison("extraction, peak memory in MB", peaks, "<= 1.1")
    if not with_ffmpeg:
        print("extraction against ffmpeg is left out: there is no ffmpeg", file=sys.stderr)
        return [memory]

    sizes = {
        "blackswan": _sizes(folder / "data/frames/images"),
        "ffmpeg": _sizes(folder / "ffmpeg"),
    }
    frames = {name: len(files) for name, files in sizes.items()}
    if frames["blackswan"] != frames["ffmpeg"]:
        raise InputError(f"not the same frames, {frames}; is this ffmpeg older than 5.1?")
    whole, steady = {}, {}
    for name, command in {"blackswan": "extract_frames", "ffmpeg": "ffmpeg"}.items():
        long, clip = seconds_of(costs[f"{command}, long"]), seconds_of(costs[f"{command}, clip"])
        whole[name] = frames[name] / long
        steady[name] = frames[name] * (1 - 1 / TIMES) / (long - clip)
    kilobytes = {name: sum(files) / len(files) / 1000 for name, files in sizes.items()}
    return [
        Comparison(f"extraction, frames/s of {frames['blackswan']}", whole, ">= 0.9"),
        Comparison("extraction once started, frames/s", steady),
        Comparison("extraction, KB a PNG", kilobytes),
        memory,
    ]


def compare_workers(folder: Path) -> list[Comparison]:
    """Synthesize anomalies and build the dataset of the sample, on two cores and on one."""
    extract(folder, "clip.mp4")
    workers = [cores for cores in (2, 1) if cores <= available_cores()]
    outs = {"synthesize_anomalies": "data/anomalies", "build_dataset": "data/dataset"}
    costs: dict[str, list[Cost]] = {}
    for name, out in outs.items():
        costs |= take_turns(
            {f"{name}, {cores}": partial(stage, folder, name, out, cores) for cores in workers}
        )
        stage(folder, "label", "data/labels.csv")  # build_dataset reads it
    if len(workers) < 2:
        print("2 workers against 1 are left out: there is one core", file=sys.stderr)
        return []
    images = {
        "synthesize_anomalies": len(_sizes(folder / "data/anomalies/images")),
        "build_dataset": len((folder / "data/labels.csv").read_text().splitlines()) - 1,
    }
    return [
        Comparison(
            f"{name}, images/s of {count}",
            {
                "2 workers": count / seconds_of(costs[f"{name}, 2"]),
                "1 worker": count / seconds_of(costs[f"{name}, 1"]),
            },
        )
        for name, count in images.items()
    ]


def compare_training(folder: Path) -> list[Comparison]:
    """Train the ViT of train_vit.py for some steps, by its Trainer and by a bare torch loop."""
    (folder / "data/weights").symlink_to(WEIGHTS, target_is_directory=True)
    command = [sys.executable, "benchmarks/training.py"]
    steps = [str(WARM_UP), str(STEPS)]
    costs = take_turns(
        {side: partial(measure, [*command, side, *steps], folder) for side in ("trainer", "loop")}
    )
    speeds = {
        side: 1 / median(seconds for cost in costs[side] for seconds in _last_line(cost.output))
        for side in ("trainer", "loop")
    }
    return [Comparison("training, steps/s after the first", speeds, ">= 0.95")]


def main() -> None:
    """Compare everything, write the result, print the table."""
    if not SAMPLE.exists() or not WEIGHTS.exists():
        raise InputError(
            f"{SAMPLE.relative_to(ROOT)} or {WEIGHTS.relative_to(ROOT)} is missing; "
            "run `dvc repro fetch_sample fetch_weights`"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("blackswan", "stages", "benchmarks"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "data").mkdir()
        comparisons = [
            *compare_extraction(folder),
            *compare_workers(folder),
            *compare_training(folder),
        ]
    results = {
        entry.what: {name: _rounded(value) for name, value in entry.sides.items()}
        | {"ratio": _rounded(entry.ratio)}
        | ({"expected": entry.expected} if entry.expected else {})
        for entry in comparisons
    }
    versions = {name: version(name) for name in PACKAGES} | {"ffmpeg": _version_of_ffmpeg()}
    setting = {"cores": available_cores(), "repetitions": REPETITIONS, "versions": versions}
    write_json(RESULT, {"setting": setting, "results": results})
    record([RESULT.name])
    print(f"{'':42}{'':>20} {'':>20} {'ratio':>7}  expected")
    for entry in comparisons:
        sides = [f"{name} {value:.4g}" for name, value in entry.sides.items()]
        print(f"{entry.what:40}{sides[0]:>25} {sides[1]:>17} {entry.ratio:7.2f}  {entry.expected}")


def _sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*.png")]


def _last_line(output: str) -> list[float]:
    return json.loads(output.splitlines()[-1])


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _version_of_ffmpeg() -> str | None:
    if not shutil.which("ffmpeg"):
        return None
    shown = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[2]


if __name__ == "__main__":
    run(main)
