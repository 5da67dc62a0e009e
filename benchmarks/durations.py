"""How long does each section of the README take? Its own commands, in a fresh clone, one by one.

Clones HEAD with an empty home (so nothing is cached but what a package index serves), times the
commands and writes benchmarks/durations.json; `make readme` puts them into the README. Nothing else
may run meanwhile. What came out of the swan is kept too, in blackswan_clip.json. `--only NAME`
times one section anew; those that it needs must be named as well.
`python benchmarks/durations.py`
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from measured import record

from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.parallel import available_cores

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks/durations.json"
SHARED = (ROOT / "../shared/data").resolve()  # optional real data
SWAN, ALIENS = SHARED / "video/blackswan.mp4", SHARED / "folder/aliens"
KEPT = {"the black swan": "blackswan_clip.json"}
SECTIONS = {  # in the order in which they are run, each on what the ones before have left
    "set-up": "make .venv/.core",
    "make repro": "make repro",
    "make repro, nothing changed": "make repro",
    "another kernel of the baseline": "dvc exp run -S fit_baseline.kernel=5",
    "that kernel set back": "dvc exp run -S fit_baseline.kernel=3",
    "another learning rate of the ViT": "dvc exp run -S train_vit.learning_rate=1.0e-5",
    "that rate set back": "dvc exp run -S train_vit.learning_rate=2.0e-5",
    "the same experiment again": "dvc exp run -S train_vit.learning_rate=1.0e-5",
    "git checkout . && dvc repro": "git checkout . && dvc repro",
    "the black swan": (
        "dvc exp run -S source.path=data/raw/blackswan.mp4 -S split.train=0.45 "
        "-S split.validation=0.3 -S split.guard_seconds=0.04 -S evaluate.alpha=0.1 "
        "-S train_vit.epochs=8"
    ),
    "118 photos": (
        f"git checkout . && dvc exp run -S source.path={ALIENS} "
        "-S evaluate.alpha=0.08 -S train_vit.epochs=1"
    ),
    "make azurite": "make azurite",
    "make push": "make push REMOTE=azurite",
    "make azurite-stop": "make azurite-stop",
}


def prepare(clone: Path) -> dict[str, str]:
    """Clone HEAD; return the environment of somebody who has just arrived."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    home = clone.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\n\tname = somebody\n\temail = somebody@localhost\n")
    path = f"{clone / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "HOME": str(home), "PATH": path, "PYTHONPATH": ""}


def add_swan(clone: Path, environment: dict[str, str]) -> None:
    """Track the clip of the swan as the README does."""
    shutil.copy(SWAN, clone / "data/raw/blackswan.mp4")
    track = "dvc add data/raw/blackswan.mp4 && git add -A && git commit -qm 'Add the swan'"
    subprocess.run(track, shell=True, cwd=clone, env=environment, check=True)


def measure(clone: Path, command: str, environment: dict[str, str]) -> dict[str, float]:
    """Run one command to its end; return its minutes and how many stages of DVC computed."""
    begin = time.monotonic()
    done = subprocess.run(
        command,
        shell=True,
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    minutes = (time.monotonic() - begin) / 60
    if done.returncode:
        raise InputError(f"{command} failed: {done.stdout[-500:]}")
    return {
        "minutes": float(f"{minutes:.2g}"),
        "stages_computed": done.stdout.count("Running stage"),
        "stages_from_cache": done.stdout.count("is cached - skipping run"),
    }


def main() -> None:
    """Time what is asked for and write it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, action="append")
    chosen = parser.parse_args().only or list(SECTIONS)
    if not SHARED.exists():
        raise InputError(f"{SHARED} is missing, which holds the swan and the photos")
    sections = json.loads(RESULT.read_bytes())["sections"] if RESULT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="blackswan-") as folder:
        clone = Path(folder) / "blackswan"
        environment = prepare(clone)
        for name in chosen:
            if name == "the black swan":
                add_swan(clone, environment)
            order = {"order": list(SECTIONS).index(name)}
            sections[name] = order | measure(clone, SECTIONS[name], environment)
            print(f"{name}: {sections[name]}", flush=True)
            if name in KEPT:
                shutil.copy(clone / "metrics/summary.json", ROOT / "benchmarks" / KEPT[name])
                record([KEPT[name]])
            write_json(RESULT, {"cores": available_cores(), "sections": sections})
    if chosen == list(SECTIONS):
        record([RESULT.name])


if __name__ == "__main__":
    run(main)
