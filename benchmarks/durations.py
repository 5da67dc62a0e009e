"""How long does each section of the README take? Its own commands, in a fresh clone, one by one.

Clones HEAD with an empty home (so nothing is cached but what a package index serves), times the
commands and writes benchmarks/durations.json; `make readme` puts them into the README. Nothing else
may run meanwhile. About 45 minutes on two cores; `--only NAME` times one section anew.
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

from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.parallel import available_cores

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks/durations.json"
SWAN = ROOT / "../shared/data/video/blackswan.mp4"
SECTIONS = {  # in the order in which they are run, each on what the ones before have left
    "set-up": "make .venv/.core",
    "make repro": "make repro",
    "make repro, nothing changed": "make repro",
    "fit_baseline.kernel=5": "dvc exp run -S fit_baseline.kernel=5",
    "fit_baseline.kernel=3, as before": "dvc exp run -S fit_baseline.kernel=3",
    "train_vit.learning_rate=1e-5": "dvc exp run -S train_vit.learning_rate=1e-5",
    "train_vit.learning_rate=2e-5, as before": "dvc exp run -S train_vit.learning_rate=2e-5",
    "git checkout . && dvc repro": "git checkout . && dvc repro",
    "the black swan": (
        "dvc exp run -S source.path=data/raw/blackswan.mp4 -S split.train=0.45 "
        "-S split.validation=0.3 -S split.guard_seconds=0.04 -S evaluate.alpha=0.1 "
        "-S train_vit.epochs=8"
    ),
    "make azurite": "make azurite",
    "make push": "make push",
    "make test": "make test",
    "make test-slow": "make test-slow",
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
    if not SWAN.exists():
        raise InputError(f"{SWAN} is missing; leave this section out with --only")
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
    stages = done.stdout.count("Running stage")
    return {"minutes": float(f"{minutes:.2g}"), "stages_computed": stages}


def main() -> None:
    """Time what is asked for and write it beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SECTIONS, action="append")
    chosen = parser.parse_args().only or list(SECTIONS)
    sections = json.loads(RESULT.read_bytes())["sections"] if RESULT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="blackswan-") as folder:
        clone = Path(folder) / "blackswan"
        environment = prepare(clone)
        for name in chosen:
            if name == "the black swan":
                add_swan(clone, environment)
            sections[name] = measure(clone, SECTIONS[name], environment)
            print(f"{name}: {sections[name]}", flush=True)
            write_json(RESULT, {"cores": available_cores(), "sections": sections})


if __name__ == "__main__":
    run(main)
