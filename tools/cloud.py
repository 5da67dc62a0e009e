"""The cloud path on this machine, after `make repro`: Spark, MLflow, registry, endpoint, client.

    python tools/cloud.py      builds the data set by Spark and compares it byte by byte, then
                               registers a detector, serves it, and asks it for the sample clip

What it writes lies in .cloud/ and mlruns/, which git ignores; nothing of the pipeline changes.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import yaml

from blackswan.errors import InputError, run
from blackswan.tracking.manifest import digests

ROOT = Path(__file__).resolve().parent.parent
CLOUD, DATASET = ROOT / ".cloud", ROOT / "data/dataset"
DETECTOR = "data/detectors/patchcore"
READ = ["data/frames", "data/anomalies", "data/labels.csv"]  # by build_dataset
START_SECONDS = 120
STORE = f"sqlite:///{CLOUD}/mlflow.db"


def build_by_spark() -> None:
    """Run build_dataset on Spark in a folder of its own and compare what it wrote."""
    folder = CLOUD / "spark"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    for name in READ:
        (folder / name).symlink_to(ROOT / name)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["build_dataset"]["engine"] = "spark"
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    command([sys.executable, str(ROOT / "stages/build_dataset.py")], folder)
    if digests(folder / "data/dataset") != digests(DATASET):
        raise InputError(
            f"Spark built another data set than {DATASET}; run `dvc repro build_dataset`, for it "
            "may be that of earlier params"
        )
    print(f"{len(digests(DATASET))} files, each with the bytes of the local engine")


def command(words: list[str], folder: Path = ROOT) -> None:
    """Show and run a command."""
    print(f"\n$ {' '.join(Path(words[0]).name if n == 0 else w for n, w in enumerate(words))}")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": STORE, "PYTHONPATH": str(ROOT)}
    if code := subprocess.run(words, cwd=folder, env=environment).returncode:
        raise InputError(f"{words[1]} ended with {code}; what it says above has to be mended")


@contextmanager
def endpoint(port: int) -> Iterator[str]:
    """Serve the champion while the block runs."""
    words = ["blackswan", "endpoint", "models:/blackswan@champion", "--port", str(port)]
    print(f"\n$ {' '.join(words)} &", flush=True)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": STORE}
    process = subprocess.Popen(words, cwd=CLOUD, env=environment, start_new_session=True)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/ping").status_code == httpx.codes.OK:
                    yield url
                    return
            time.sleep(0.5)
        raise InputError("the endpoint did not start; run `blackswan endpoint` by hand")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def main() -> None:
    """Go the whole way once."""
    if missing := [path for path in (DATASET, ROOT / DETECTOR) if not path.exists()]:
        raise InputError(f"{missing[0].relative_to(ROOT)} is missing; run `make repro` first")
    CLOUD.mkdir(exist_ok=True)
    build_by_spark()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command(["blackswan", "register", DETECTOR])
    source = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["source"]["path"]
    verdicts = CLOUD / "verdicts"
    shutil.rmtree(verdicts, ignore_errors=True)
    with endpoint(port) as url:
        command(["blackswan", "invoke", url, source, "--out", str(verdicts), "--verify", DETECTOR])


if __name__ == "__main__":
    run(main)
