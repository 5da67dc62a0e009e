"""Does the memory of `blackswan score` grow with the length of a clip, and is a kill harmless?

Scores clips of 10 minutes and of 2 hours at one frame a second, made of the sample clip, with a
model of the pipeline, copied elsewhere; a third run is killed on its way and started again. The
model is the baseline, which is quickest: what could grow is the same for all. Writes
benchmarks/score.json. `python benchmarks/score.py`
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from measured import record

from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.reporting.verdicts import PART, PARTS

RESULT = Path("benchmarks/score.json")
MODEL, CLIP = Path("data/detectors/median_residual"), Path("data/sample.mp4")
SECONDS = {"10 minutes": 600, "2 hours": 7200}
KILL_AFTER = 1500  # images


def make_clip(path: Path, seconds: int) -> Path:
    """Show the frames of the sample clip at one frame a second, again and again."""
    slower = "setpts=N/TB,fps=1"
    subprocess.run(
        [
            "ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", CLIP, "-vf", slower,
            "-frames:v", str(seconds), "-c:v", "libx264", "-preset", "ultrafast", path,
        ],
        check=True,
    )  # fmt: skip
    return path


def command(model: Path, clip: Path, out: Path) -> list[str]:
    """Return the command that scores a clip."""
    program = "from blackswan.cli import app; app()"
    return [sys.executable, "-c", program, "score", str(model), str(clip), "--out", str(out)]


def peak_gigabytes(arguments: list[str]) -> float:
    """Run a command and return the most memory that it held."""
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise InputError(f"{' '.join(arguments)} failed; run it by hand")
    return usage.ru_maxrss * 1024 / 1e9


def kill_on_the_way(arguments: list[str], out: Path, images: int) -> None:
    """Start a command and kill it once `images` images are done."""
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    while len(list((out / PARTS).glob("*.parquet"))) * PART < images:
        time.sleep(0.1)
        if process.poll() is not None:
            raise InputError("the command ended before it could be killed; run it by hand")
    process.kill()
    process.wait()


def main() -> None:
    """Measure, write what came out."""
    if not MODEL.is_dir():
        raise InputError(f"{MODEL} is missing; run `make repro` first")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(shutil.copytree(MODEL, folder / "elsewhere"))
        clips = {
            length: make_clip(folder / f"{seconds}.mp4", seconds)
            for length, seconds in SECONDS.items()
        }
        peaks = {
            length: peak_gigabytes(command(model, clip, folder / length))
            for length, clip in clips.items()
        }
        again = command(model, clips["2 hours"], folder / "killed")
        kill_on_the_way(again, folder / "killed", KILL_AFTER)
        peak_gigabytes(again)
        whole, killed = (
            pd.read_parquet(folder / run / "verdicts.parquet") for run in ("2 hours", "killed")
        )
        write_json(
            RESULT,
            {
                "peak_gb": peaks,
                "images": len(whole),
                "each_once_after_a_kill": bool(killed.path.is_unique and whole.equals(killed)),
            },
        )
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
