"""Runs in MLflow of what a stage learnt and measured, where MLFLOW_TRACKING_URI names a store.

Without that variable nothing of MLflow is imported. DVC stays the source of truth: no output of a
stage depends on a run, and the tags of a run are the hashes that dvc.lock has of its data, weights
and model. A run is written when its stage is done, so one that fails or is killed leaves none. The
runs of one `dvc repro` have one parent.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from blackswan.errors import InputError, cause

if TYPE_CHECKING:
    import psutil

STORE = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"  # a path on Databricks, such as /Shared/blackswan
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
REPRO = "blackswan.repro"  # tag of a parent: which `dvc repro` it stands for
AT_ONCE = 100  # params or tags that a store takes in one request, and a tenth of the metrics
LONGEST, LONGEST_KEY = 6000, 250  # characters of a value and of a key
NOT_IN_KEYS = re.compile(r"[^\w\-. :/]")


@dataclass(frozen=True)
class Record:
    """What a stage has to say of one run."""

    params: Mapping[str, BaseModel]  # by their keys in params.yaml
    reads: Iterable[Path] = ()  # data and weights, files or folders
    writes: Iterable[Path] = ()  # model
    metrics: Mapping[str, Any] | None = None  # numbers, also nested; what is none is left out
    curves: Path | None = None  # CSV: the step, then a column a curve
    pictures: Iterable[Path] = ()  # files or folders to look at


class Tracker:
    """The run of a stage to be, from its start on; without a store it does nothing."""

    def __init__(self, name: str) -> None:
        """Begin; raises InputError where a store is named and does not answer."""
        self.name, self.begin = name, _now()
        self.client: Any = None
        # accelerate runs a script once per device
        if os.environ.get(STORE) and os.environ.get("RANK", "0") == "0":
            self.client, self.experiment = open_store()

    def record(self, record: Record) -> None:
        """Write the run. Where the store fails by now, a line says so and no stage ends by it."""
        if self.client is None:
            return
        try:
            self._write(record)
        except Exception as error:  # of whatever kind the store raises
            print(
                f"MLflow has no run of {self.name} ({cause(error)}); its files are whole, and "
                "`dvc repro --force --single-item` of its stage runs it again",
                file=sys.stderr,
            )

    def _write(self, record: Record) -> None:
        tags = {
            "mlflow.runName": self.name,
            "mlflow.source.type": "LOCAL",
            "mlflow.source.name": os.environ.get("DVC_STAGE", self.name),
            **_commit(),
            **{
                f"dvc.{path.as_posix()}": dvc_hash(path) for path in (*record.reads, *record.writes)
            },
        }
        parent = self._parent()
        if parent:
            tags["mlflow.parentRunId"] = parent
        created = self.client.create_run(self.experiment, start_time=self.begin)
        with ExitStack() as undo:  # half a run would mislead, also one that Ctrl-C ends
            undo.callback(self.client.delete_run, created.info.run_id)
            self._fill(created.info.run_id, record, tags)
            undo.pop_all()
        if parent:
            self.client.set_terminated(parent, "FINISHED")

    def _fill(self, identity: str, record: Record, tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = _now()
        params = [Param(_key(key), text[:LONGEST]) for key, text in _texts(record.params)]
        metrics = [Metric(_key(key), value, now, 0) for key, value in numbers(record.metrics or {})]
        metrics += [
            Metric(_key(name), value, now, step) for name, value, step in _points(record.curves)
        ]
        for part in _parts(params):
            self.client.log_batch(identity, params=part)
        for part in _parts([RunTag(_key(key), value) for key, value in tags.items()]):
            self.client.log_batch(identity, tags=part)
        for part in _parts(metrics, 10 * AT_ONCE):
            self.client.log_batch(identity, metrics=part)
        for path in record.pictures:
            if path.is_dir():
                self.client.log_artifacts(identity, str(path), path.name)
            elif path.exists():
                self.client.log_artifact(identity, str(path))
        self.client.set_terminated(identity, "FINISHED")

    def _parent(self) -> str | None:
        """Return the run of the `dvc repro` that this stage is part of, made where it is new."""
        process = _dvc_process()
        if process is None:
            return None
        begin = int(1000 * process.create_time())
        mark = f"{begin}-{process.pid}"
        found = self.client.search_runs([self.experiment], f"tags.`{REPRO}` = '{mark}'")
        if found:
            return str(found[0].info.run_id)
        name = os.environ.get("DVC_EXP_NAME") or "dvc repro"
        tags = {REPRO: mark, "mlflow.runName": name, **_commit()}
        return str(self.client.create_run(self.experiment, begin, tags).info.run_id)


def dvc_hash(path: Path) -> str:
    """Return the MD5 that DVC knows a file or a folder by; that of a folder ends in .dir."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    listed = [{"md5": dvc_hash(path / name), "relpath": name} for name in names]
    return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"


def numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the dotted name and the value of every number, however deep."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from numbers(value, f"{name}.")
        elif isinstance(value, (int, float)):
            yield name, float(value)


def _key(name: str) -> str:
    """Return a name that MLflow takes for a metric, a param or a tag."""
    return NOT_IN_KEYS.sub("_", name)[:LONGEST_KEY]


def open_store() -> tuple[Any, str]:
    """Return a client of the store and the id of the experiment, made where it is new."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise InputError(
            f"{STORE} is set and MLflow is not installed; `pip install -e .[mlflow]`, or unset it"
        ) from None
    name = os.environ.get(EXPERIMENT) or "blackswan"
    try:
        client = MlflowClient()
        found = client.get_experiment_by_name(name)
        identity = found.experiment_id if found else client.create_experiment(name)
    except Exception as error:  # each kind of store raises its own
        raise InputError(
            f"the store of {STORE} does not answer or has no experiment {name} ({cause(error)}); "
            "start it, mend the variable, or unset it to run without MLflow"
        ) from None
    if found and found.lifecycle_stage == "deleted":
        raise InputError(
            f"the experiment {name} of {STORE} was deleted; restore it, or name another by "
            f"{EXPERIMENT}"
        )
    return client, str(identity)


def _dvc_process() -> "psutil.Process | None":
    """Return the `dvc` that runs this stage, if one does."""
    import psutil

    if "DVC_STAGE" not in os.environ:
        return None
    for process in psutil.Process().parents():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if any(Path(word).name in ("dvc", "dvc.exe") for word in command[:3]):
            return process
    return None


def _commit() -> dict[str, str]:
    """Return the commit as a tag, with another where files differ from it; {} outside of Git."""
    describe = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=-dirty"]
    done = subprocess.run(describe, capture_output=True, text=True, check=False)
    commit, _, dirty = done.stdout.strip().partition("-")
    if done.returncode or not commit:
        return {}
    return {"mlflow.source.git.commit": commit} | ({"git.dirty": "true"} if dirty else {})


def _texts(params: Mapping[str, BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the value of every param."""

    def flat(name: str, value: object) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from flat(f"{name}.{key}", inner)
        else:
            yield name, str(value)

    for block, section in params.items():
        yield from flat(block, section.model_dump(mode="json"))


def _points(curves: Path | None) -> Iterator[tuple[str, float, int]]:
    """Yield name, value and step of every point of a CSV of curves."""
    if curves is None or not curves.exists():
        return
    import pandas as pd  # a server without MLflow needs neither

    table = pd.read_csv(curves, index_col=0)
    for name in table:
        for step, value in table[name].dropna().items():
            yield str(name), float(value), int(str(step))


def _parts(items: list[Any], size: int = AT_ONCE) -> Iterator[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _now() -> int:
    return int(1000 * time.time())
