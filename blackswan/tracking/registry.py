"""Models in the registry of MLflow: versions that lead back to bytes, and an alias with a gate.

A version is known by the sha256 of its manifest, so registering the same model again finds it, and
what a kill left behind is finished or cleared. The alias `champion` moves only where every
condition of the gate holds.
"""

import base64
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from blackswan.data.dataset import Split
from blackswan.data.images import encode_png
from blackswan.data.preprocessing import Preprocessing
from blackswan.errors import InputError, cause
from blackswan.evaluation import gate
from blackswan.evaluation.gate import Condition
from blackswan.evaluation.model import Facts, fingerprint, load
from blackswan.evaluation.ranking import MAIN
from blackswan.tracking import manifest, runs
from blackswan.tracking.contract import INPUTS, OUTPUTS, Params, answer

CHAMPION = "champion"
DIGEST = "blackswan.sha256"  # tag of runs and versions: the manifest's
LIBRARY = Path(__file__).parents[1]  # which goes with the model
LOCAL_STORE = "sqlite:///mlflow.db"
FOLDER, TESTED = "detector", "test_scores.parquet"
UNITY_CATALOG = "databricks-uc"
# What scoring imports, and the server that loads it; each pinned to what is installed here.
REQUIREMENTS = [
    "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "psutil", "pyarrow",
    "pydantic", "pyyaml", "safetensors", "scipy", "torch", "tqdm", "transformers",
]  # fmt: skip
EXAMPLE = 64  # pixels a side, at least, of the image that shows what a request looks like


@dataclass(frozen=True)
class Tested:
    """What `dvc repro` measured of a model."""

    metrics: dict[str, Any]  # as metrics/detectors has them
    scores: pd.DataFrame  # of the main table, gate.SCORED


@dataclass(frozen=True)
class Outcome:
    """What became of a model."""

    version: str
    is_new: bool
    conditions: list[Condition]
    champion: str | None  # the version that carries the alias now

    @property
    def passed(self) -> bool:
        """Say whether every condition holds."""
        return all(condition.holds for condition in self.conditions)


def read_tested(facts: Facts, metrics_folder: Path, scores_folder: Path, dataset: Path) -> Tested:
    """Read the metrics of a model, and its test scores with the sha256 of their images.

    Raises InputError where metrics, scores, dataset and model are not of one run.
    """
    scores = scores_folder / facts.detector / "scores.parquet"
    path = metrics_folder / f"{facts.detector}.json"
    if lacking := [file for file in (path, scores) if not file.exists()]:
        raise InputError(
            f"{lacking[0]} is missing, which the gate asks for; bring it by `dvc repro` or "
            "`dvc pull`"
        )
    try:
        metrics, table = json.loads(path.read_bytes()), pd.read_parquet(scores)
    except (ValueError, OSError) as error:  # which Arrow's are too
        raise InputError(
            f"{path} or {scores} cannot be read ({cause(error)}); run `dvc checkout`"
        ) from None
    if lacking_keys := {"threshold", "threshold_verdict"} - metrics.keys():
        raise InputError(f"{path} has no {min(lacking_keys)}; run `dvc repro`")
    if f"{facts.threshold:.6g}" != f"{metrics['threshold']:.6g}":
        raise InputError(
            f"{path} measured another model (threshold {metrics['threshold']:g}, this one has "
            f"{facts.threshold:.6g}); run `dvc repro`, or `dvc checkout`"
        )
    hashes = _image_hashes(dataset)
    if missing := set(table.path) - hashes.keys():
        raise InputError(
            f"{dataset}/test has no {min(missing)}, of which {scores} has a score; run `dvc repro`"
        )
    table = table.assign(sha256=table.path.map(hashes))
    return Tested(metrics, table[(table.table == MAIN) | (table.label == 0)][gate.SCORED])


def register(
    folder: Path, name: str, tested: Tested, params: gate.Params, *, new_test: bool = False
) -> Outcome:
    """Register the complete model in `folder` as a version of `name`, and put it to the gate.

    `new_test` lets a champion go that was tested on other images. Raises InputError where the
    registry does not answer or takes no such name; then nothing of this model is in it.
    """
    with asked(f"registering {folder} as {name}"):
        client, experiment = open_registry(name)
        with tempfile.TemporaryDirectory() as place:
            packed = Path(place, FOLDER)
            shutil.copytree(folder, packed, copy_function=shutil.copyfile)
            tested.scores.to_parquet(packed / TESTED, index=False)
            digest = manifest.write(packed, _code_hash())
            found = _version_of(client, name, digest)
            new = found is None
            if found is None:
                source = _logged(client, experiment, digest) or _log(
                    client, experiment, digest, packed, tested
                )
                found = _add_version(name, source, digest)
        champion = champion_of(client, name)
        against = None
        if champion not in (None, found):
            against = _compare(name, str(champion), tested.scores)
            if isinstance(against, str) and new_test:
                against = None
        judged = gate.conditions(tested.metrics, params, against)
        outcome = Outcome(found, new, judged, champion)
        client.set_model_version_tag(name, found, "gate", "holds" if outcome.passed else "fails")
        if outcome.passed and champion != found:
            client.set_registered_model_alias(name, CHAMPION, found)
            outcome = Outcome(found, new, judged, found)
        return outcome


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """Yield a folder with the complete model of a URI such as models:/blackswan@champion.

    Raises InputError where there is no such model, or its files are not those of its manifest.
    """
    with asked(f"fetching {uri}"), tempfile.TemporaryDirectory() as place:
        set_store()
        import mlflow

        source = f"{uri.rstrip('/')}/artifacts/{FOLDER}"
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=place))
        manifest.check(folder)
        for name in (manifest.MANIFEST, TESTED):  # what registering added
            (folder / name).unlink(missing_ok=True)
        yield folder


def version_of(uri: str) -> str:
    """Return the version that a URI names now, such as 3 of models:/blackswan@champion."""
    with asked(f"looking up {uri}"):
        set_store()
        import mlflow

        name, _, alias = uri.removeprefix("models:/").partition("@")
        if not alias:
            return name.rpartition("/")[2]
        return str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)


def open_registry(name: str) -> tuple[Any, str]:
    """Return a client and the id of the experiment."""
    set_store()
    client, experiment = runs.open_store()
    import mlflow

    if mlflow.get_registry_uri().startswith(UNITY_CATALOG) and name.count(".") != 2:
        raise InputError(f"{name} is no name in Unity Catalog; write catalog.schema.model")
    return client, experiment


def set_store() -> None:
    """Take a file here as the store where MLFLOW_TRACKING_URI names none."""
    for key, value in {**runs.DEFAULTS, runs.STORE: LOCAL_STORE}.items():
        os.environ.setdefault(key, value)


def champion_of(client: Any, name: str) -> str | None:  # noqa: ANN401 - of an extra
    """Return the version that carries the alias `champion`, None where none does."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, CHAMPION).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


@contextmanager
def asked(what: str) -> Iterator[None]:
    """Turn what MLflow, or the network under it, raises in the block into one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each kind of store raises its own
        if not _is_of_a_store(error):
            raise
        raise InputError(
            f"{what} failed ({cause(error)}); see that {runs.STORE} names a store that answers and "
            "lets you write, then run the same command again"
        ) from None


def _is_of_a_store(error: Exception) -> bool:
    package = type(error).__module__.split(".")[0]
    return package in ("mlflow", "requests", "urllib3", "sqlalchemy", "sqlite3", "databricks")


def _image_hashes(dataset: Path) -> dict[str, str]:
    """Return the sha256 of every test image, by path; a few images in memory at a time."""
    hashes = {}
    for shard in Split(dataset, "test").paths:
        for batch in pq.ParquetFile(shard).iter_batches(16, columns=["image"]):
            for image in batch["image"].to_pylist():
                hashes[image["path"]] = hashlib.sha256(image["bytes"]).hexdigest()
    return hashes


def _code_hash() -> str:
    """Return a hash of the library as it is here."""
    return fingerprint(sorted(LIBRARY.rglob("*.py")))


def _version_of(client: Any, name: str, digest: str) -> str | None:  # noqa: ANN401
    """Return the version of a model that is registered already; one that is half there goes."""
    for found in client.search_model_versions(f"name='{name}'"):
        tags = found.tags or client.get_model_version(name, found.version).tags
        if tags.get(DIGEST) == digest:
            if found.status == "READY":
                return str(found.version)
            client.delete_model_version(name, found.version)
    return None


def _logged(client: Any, experiment: str, digest: str) -> str | None:  # noqa: ANN401
    """Return where a model that was logged and not registered lies; half a run goes."""
    for run in client.search_runs([experiment], f"tags.`{DIGEST}` = '{digest}'"):
        if run.info.status == "FINISHED":
            source = f"source_run_id = '{run.info.run_id}'"
            return str(client.search_logged_models([experiment], source)[0].model_uri)
        client.delete_run(run.info.run_id)
    return None


def _log(
    client: Any,  # noqa: ANN401
    experiment: str,
    digest: str,
    packed: Path,
    tested: Tested,
) -> str:
    """Log the model as a pyfunc with a run of its own and return where it lies."""
    import mlflow

    mlflow.set_experiment(experiment_id=experiment)
    model = load(packed)
    example = _example(model.facts.preprocessing)
    answer(model, example)  # else MLflow would only warn that its example fails
    name = f"register {model.facts.detector}"
    with mlflow.start_run(run_name=name, tags={DIGEST: digest}):
        for key, value in runs.numbers(tested.metrics):
            mlflow.log_metric(key, value)
        with _library() as library:
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("served.py")),
                artifacts={FOLDER: str(packed)},
                code_paths=[str(library)],
                signature=_signature(),
                input_example=example,
                pip_requirements=requirements(),
                metadata={"detector": model.facts.detector, "sha256": digest},
            )
    return str(logged.model_uri)


def _add_version(name: str, source: str, digest: str) -> str:
    import mlflow

    return str(mlflow.register_model(source, name, tags={DIGEST: digest}).version)


def _compare(name: str, champion: str, scores: pd.DataFrame) -> gate.Difference | str:
    """Compare test scores with those that were registered with the champion."""
    import mlflow

    with tempfile.TemporaryDirectory() as place:
        uri = f"models:/{name}/{champion}/artifacts/{FOLDER}/{TESTED}"
        theirs = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=place)
        return gate.compare(scores, pd.read_parquet(theirs))


@contextmanager
def _library() -> Iterator[Path]:
    """Yield a copy of the library without what Python compiled."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place, "blackswan")
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(LIBRARY, copy, ignore=ignored)
        yield copy


def _example(preprocessing: Preprocessing) -> pd.DataFrame:
    """Return a request of one grey image, as large as its crops need."""
    height = width = EXAMPLE
    for step in preprocessing.steps:
        if isinstance(step.crop, tuple):
            left, top, across, down = step.crop
            height, width = max(height, top + down), max(width, left + across)
        if step.size is not None:
            break
    grey = np.full((height, width, 3), 128, np.uint8)
    return pd.DataFrame({"image": [base64.b64encode(encode_png(grey)).decode()]})


def _signature() -> Any:  # noqa: ANN401
    """Return what MLflow is told of inputs, outputs and params."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, Object, Property

    box = [Property(side, "long") for side in ("left", "top", "width", "height")]
    kinds = {"verdict": "string", "heatmap": "string", "height": "long", "width": "long"}
    kinds["regions"] = Array(Object([*box, Property("peak", "double")]))
    return ModelSignature(
        Schema([ColSpec("string", name, required=False) for name in INPUTS]),
        Schema([ColSpec(kinds.get(name, "double"), name, required=False) for name in OUTPUTS]),
        ParamSchema([
            ParamSpec(name, "boolean" if isinstance(value, bool) else "long", value)
            for name, value in Params().model_dump().items()
        ]),
    )  # fmt: skip


def requirements() -> list[str]:
    """Return what the model needs, pinned to what it was tested with."""
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]
