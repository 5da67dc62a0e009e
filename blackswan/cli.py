"""The command line: `blackswan check SOURCE` before a run, `blackswan score MODEL SOURCE` after it.

Then `export` makes a graph of it that runs without torch, `recalibrate` follows a camera that
drifts, `serve` answers others over HTTP, `register`, `endpoint` and `invoke` bring a model to them
by MLflow, `index` and `similar` remember defects, `propose-labels` asks a language model what it
sees. Each command calls `explained`, before Typer makes its own words of an interruption.
"""

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from blackswan.data.files import kind_of, state_of
from blackswan.data.quarantine import TABLE as QUARANTINE
from blackswan.data.records import SourceImage
from blackswan.data.regions import Ignored, read_all, read_regions
from blackswan.data.sources import video
from blackswan.data.sources.folder import Params as Folders
from blackswan.data.sources.opening import SourceParams
from blackswan.data.sources.table import PARQUET, preprocessing_of
from blackswan.data.sources.video import Sampling
from blackswan.distributed.scoring import spread_with_spark
from blackswan.errors import InputError, cause, explained
from blackswan.evaluation import source_check
from blackswan.export.runtime import Runtime, is_export, load
from blackswan.outputs import write_json
from blackswan.params import PARAMS, Engine, load_section
from blackswan.reporting.verdicts import (
    Judge,
    Spread,
    list_source,
    open_images,
    write_verdicts,
)

MEMORY, REGIONS = Path("memory"), 10  # of a photo, looked up at most
METRICS, SCORES, DATASET = Path("metrics/detectors"), Path("data/scores"), Path("data/dataset")
FRAMES = Path("data/frames")
DRIFTS = Path("data/drift")
PROPOSALS, REVIEW = Path("data/proposals.csv"), Path("data/review.csv")
CORRECTIONS = Path("data/corrections.csv")
PAGED = 3  # exit code: nothing failed, and a person is to look

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

decisions_app = typer.Typer(no_args_is_help=True)
app.add_typer(decisions_app, name="decisions", help="What people decided of images.")

proposals_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    proposals_app,
    name="propose-labels",
    help="What a language model says of images, for people to review; never a label by itself.",
)


@app.callback()
def blackswan() -> None:
    """Blackswan finds the frame that does not belong."""


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="folder of a model, such as data/detectors/padim")],
    source: Annotated[
        Path, typer.Argument(help="a video, a folder of videos or photos, or a table")
    ],
    out: Annotated[Path, typer.Option(help="folder of the verdicts")] = Path("verdicts"),
    every_n_seconds: Annotated[float, typer.Option(min=0, help="of a video; 0: all frames")] = 0,
    gallery: Annotated[bool, typer.Option(help="overlays of what is flagged, and a page")] = False,
    max_failed_share: Annotated[
        float, typer.Option(min=0, max=1, help="of the images, listed in quarantine.csv")
    ] = 0,
    engine: Annotated[Engine, typer.Option(help="spark: photos, by a cluster")] = "local",
    ignore: Annotated[Path | None, typer.Option(help="JSON of regions that do not count")] = None,
    camera: Annotated[str, typer.Option(help="of which these regions are")] = "camera",
) -> None:
    """Judge new images: verdicts.parquet and verdicts.csv with score, p-value and verdict.

    The same command again goes on where a run was killed.
    """
    explained(
        lambda: _score(
            model, source, out, every_n_seconds, gallery, max_failed_share, engine, ignore, camera
        )
    )


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="folder of a model, such as data/detectors/padim")],
    to: Annotated[Runtime, typer.Option(help="what is to run it")],
    out: Annotated[Path, typer.Option(help="folder of the export")],
    int8: Annotated[bool, typer.Option(help="the network in 8 bits, by NNCF")] = False,
    photos: Annotated[
        Path | None,
        typer.Option(help="a source whose photos the graph takes; default: source.path"),
    ] = None,
    prepared: Annotated[
        bool, typer.Option(help="take images alone that are cropped and scaled already")
    ] = False,
) -> None:
    """Make one graph of a detector, from RGB pixels to score and map, and compare the two.

    On all validation images, and on photos from their encoded bytes, they must agree.
    """
    explained(lambda: _export(model, to, out, photos, int8=int8, prepared=prepared))


@app.command()
def recalibrate(
    detector: Annotated[
        Path, typer.Argument(help="folder of a model, such as data/detectors/padim")
    ],
    normals: Annotated[
        Path, typer.Option(help="photos, a video or a table, found to be normal by a person")
    ],
    out: Annotated[
        Path | None, typer.Option(help="new folder of the model; default: NAME-2, NAME-3, ...")
    ] = None,
    every_n_seconds: Annotated[float, typer.Option(min=0, help="of a video; 0: all frames")] = 1,
) -> None:
    """Set threshold, p-values and colours anew from normal images, without a fit.

    The old folder stays. After `make drift`, false alarms and recall before and after are shown.
    """
    explained(lambda: _recalibrate(detector, normals, out, every_n_seconds))


@app.command()
def register(
    model: Annotated[Path, typer.Argument(help="folder of a model, such as data/detectors/padim")],
    name: Annotated[str, typer.Option(help="catalog.schema.model in Unity Catalog")] = "blackswan",
    new_test: Annotated[
        bool, typer.Option(help="though the champion was tested on other images")
    ] = False,
) -> None:
    """Make a model of `dvc repro` a version in MLflow, and the champion if `register.gate` holds.

    The store is that of MLFLOW_TRACKING_URI, by default the file mlflow.db.
    """
    explained(lambda: _register(model, name, new_test))


@app.command()
def endpoint(
    model: Annotated[str, typer.Argument(help="URI of MLflow")] = "models:/blackswan@champion",
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5001,
) -> None:
    """Serve a registered model by MLflow's scoring server, with the contract of Databricks."""
    explained(lambda: _endpoint(model, host, port))


@app.command()
def serve(
    detector: Annotated[
        str, typer.Argument(help="folder such as data/detectors/padim, or URI of MLflow")
    ],
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    rev: Annotated[
        str | None, typer.Option(help="revision of git whose folder DVC fetches")
    ] = None,
    remote: Annotated[str | None, typer.Option(help="of DVC, where there is no default")] = None,
    watch: Annotated[
        float, typer.Option(min=0, help="seconds between looks for a new version; 0: none")
    ] = 5,
    max_bytes: Annotated[int, typer.Option(min=1, help="of a request")] = 64_000_000,
    max_pixels: Annotated[int, typer.Option(min=1, help="of an image")] = 80_000_000,
    max_files: Annotated[int, typer.Option(min=1, help="images of a request")] = 256,
    max_waiting: Annotated[int, typer.Option(min=1, help="images of all requests")] = 512,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="to answer a request")] = 60,
    decisions: Annotated[
        Path | None, typer.Option(help="folder that keeps what people decide of images")
    ] = None,
    streams: Annotated[
        Path | None, typer.Option(help="folder that `blackswan watch` writes, to show it")
    ] = None,
    memory: Annotated[
        Path | None, typer.Option(help="folder of `blackswan index`, for /v1/similar")
    ] = None,
    ignore: Annotated[
        Path | None, typer.Option(help="JSON of regions that do not count, by camera, or a folder")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="folder that keeps what is answered, for drift-report")
    ] = None,
    opens: Annotated[bool, typer.Option("--open", help="the page in a browser")] = False,
) -> None:
    """Serve a detector: a page to inspect images, and a REST API, which /docs shows.

    Where BLACKSWAN_API_KEY is set, requests must carry it; /model reads below BLACKSWAN_IMAGES.
    """
    explained(
        lambda: _serve(
            detector, host, port, rev, remote, watch,
            {
                "body_bytes": max_bytes, "pixels": max_pixels, "files": max_files,
                "waiting": max_waiting, "answer_seconds": max_seconds,
                "held_bytes": 4 * max_bytes,
            },
            decisions=decisions, streams=streams, memory=memory, ignore=ignore, log=log,
            opens=opens,
        )
    )  # fmt: skip


@app.command("drift-report")
def drift_report(
    log: Annotated[Path, typer.Argument(help="folder of `blackswan serve --log`")],
    detector: Annotated[
        Path, typer.Option(help="folder of the model that answered, such as data/detectors/padim")
    ],
    out: Annotated[Path, typer.Option(help="the page")] = Path("drift.html"),
    camera: Annotated[
        str | None, typer.Option(help="whose images, where the log has several; '' has no name")
    ] = None,
) -> None:
    """Say whether what was served differs from held-out normal images: a page, and figures.

    Whether a person is paged, `monitor` in params.yaml says: then the exit code is 3.
    """
    explained(lambda: _drift_report(log, detector, out, camera))


@app.command()
def watch(
    source: Annotated[
        str, typer.Argument(help="a video, a folder that fills, rtsp://... or usb:0")
    ],
    detector: Annotated[
        str, typer.Argument(help="folder such as data/detectors/padim, or URI of MLflow")
    ],
    camera: Annotated[str, typer.Option(help="its name: letters, digits, _ . -")] = "camera",
    out: Annotated[Path, typer.Option(help="folder of the cameras")] = Path("streams"),
    raise_at: Annotated[int, typer.Option(min=1, help="flagged frames that raise an alarm")] = 4,
    of: Annotated[int, typer.Option(min=1, help="the last ones, of which these are")] = 5,
    end_at: Annotated[int, typer.Option(min=0, help="flagged ones at which it ends")] = 1,
    every_n_seconds: Annotated[float, typer.Option(min=0, help="0: all frames")] = 0,
    ignore: Annotated[Path | None, typer.Option(help="JSON of regions that do not count")] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that is told of alarms")] = None,
) -> None:
    """Judge frames as they come, and raise an alarm where several of the last are flagged.

    Webhooks are signed with BLACKSWAN_WEBHOOK_SECRET.
    """
    rule = (raise_at, of, end_at)
    explained(lambda: _watch(source, detector, camera, out, rule, every_n_seconds, ignore, webhook))


@decisions_app.command("export")
def export_decisions(
    decisions: Annotated[Path, typer.Argument(help="folder that `blackswan serve` keeps them in")],
    out: Annotated[Path, typer.Option(help="what `label` reads")] = CORRECTIONS,
    add_images: Annotated[
        bool, typer.Option(help="copy what data/frames does not hold into source.path")
    ] = False,
) -> None:
    """Write what people decided as corrections, from which the next `dvc repro` learns."""
    explained(lambda: _export_decisions(decisions, out, add_images))


@app.command()
def index(
    defects: Annotated[Path, typer.Argument(help="folder that `dvc repro embed_defects` writes")],
    memory: Annotated[Path, typer.Option(help="folder of the memory, made if new")] = MEMORY,
    camera: Annotated[str, typer.Option(help="that took the images")] = "",
    date: Annotated[str, typer.Option(help="on which it did, such as 2026-11-30")] = "",
) -> None:
    """Remember defects: they go into Qdrant, and the same ones again change nothing.

    BLACKSWAN_QDRANT_URL names a server, BLACKSWAN_QDRANT_KEY its key; else the folder keeps them.
    """
    explained(lambda: _index(defects, memory, camera, date))


@app.command()
def similar(
    model: Annotated[Path, typer.Argument(help="folder of a model, such as data/detectors/padim")],
    image: Annotated[Path, typer.Argument(help="a photo")],
    memory: Annotated[Path, typer.Option(help="folder of the memory")] = MEMORY,
    most: Annotated[int, typer.Option(min=1, max=100, help="neighbours of a region")] = 5,
) -> None:
    """Show which remembered defects look like those of a photo, and the type that they vote for."""
    explained(lambda: _similar(model, image, memory, most))


@proposals_app.command("ask")
def ask(
    detector: Annotated[
        Path, typer.Argument(help="folder of a model, such as data/detectors/padim")
    ],
    source: Annotated[
        Path, typer.Argument(help="a video, a folder of videos or photos, or a table")
    ],
    model: Annotated[str, typer.Option(help="as the endpoint calls it; at Azure the deployment")],
    price_in: Annotated[float, typer.Option(min=0, help="of a million tokens that are sent")],
    price_out: Annotated[float, typer.Option(min=0, help="of a million tokens of answers")],
    budget: Annotated[float, typer.Option(min=0, help="what all rows of --out may cost")],
    images: Annotated[int, typer.Option(min=1, help="that are asked about at most")] = 50,
    sample: Annotated[bool, typer.Option(help="at random, not the least certain ones")] = False,
    seed: Annotated[int, typer.Option(min=0, help="of the sample")] = 0,
    defect: Annotated[
        list[str] | None, typer.Option(help="known type, again for more; default: of data/frames")
    ] = None,
    prompt: Annotated[Path | None, typer.Option(help="file of instructions of your own")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="of the endpoint; default: OPENAI_BASE_URL, or OpenAI")
    ] = None,
    out: Annotated[Path, typer.Option(help="table of the proposals")] = PROPOSALS,
    dry_run: Annotated[
        Path | None, typer.Option(help="folder that gets what would be sent; nobody is asked")
    ] = None,
    yes: Annotated[bool, typer.Option(help="images may leave this machine")] = False,
    tokens_per_image: Annotated[
        int, typer.Option(min=1, help="that a picture of up to 1024 pixels takes at most")
    ] = 1500,
    max_tokens: Annotated[int, typer.Option(min=1, help="of an answer")] = 1000,
    retries: Annotated[int, typer.Option(min=0, max=20, help="of a request")] = 4,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="for an answer")] = 60,
    every_n_seconds: Annotated[float, typer.Option(min=0, help="of a video; 0: all frames")] = 0,
) -> None:
    """Ask a language model about the images of which a detector is least certain.

    Three pictures of each go to /chat/completions: crop, image and heatmap. The key is read from
    OPENAI_API_KEY; where AZURE_OPENAI_ENDPOINT is set, from AZURE_OPENAI_API_KEY or by a login.
    """
    limits = {"tokens_per_image": tokens_per_image, "max_tokens": max_tokens,
              "retries": retries, "seconds": max_seconds}  # fmt: skip
    explained(
        lambda: _ask(
            detector, source, model, (price_in, price_out, budget), images,
            seed if sample else None, defect, prompt, base_url, out, dry_run, limits,
            every_n_seconds, yes=yes,
        )
    )  # fmt: skip


@proposals_app.command("review")
def review(
    out: Annotated[Path, typer.Option(help="table that a person fills in")] = REVIEW,
    proposals: Annotated[Path, typer.Option(help="table of the proposals")] = PROPOSALS,
) -> None:
    """Make a table to review: correct label and defect, and write who you are as the reviewer."""
    explained(lambda: _review(out, proposals))


@proposals_app.command("confirm")
def confirm(
    review: Annotated[Path, typer.Argument(help="table with image,label,defect,reviewer")] = REVIEW,
    proposals: Annotated[Path, typer.Option(help="table of the proposals")] = PROPOSALS,
    out: Annotated[Path, typer.Option(help="what `label` reads")] = CORRECTIONS,
) -> None:
    """Make corrections of the rows that have a reviewer, from which the next `dvc repro` learns."""
    explained(lambda: _confirm(review, proposals, out))


@proposals_app.command("report")
def report(
    labels: Annotated[Path, typer.Argument(help="table with image,label, or a review")],
    proposals: Annotated[Path, typer.Option(help="table of the proposals")] = PROPOSALS,
    out: Annotated[Path, typer.Option(help="JSON")] = Path("metrics/proposals.json"),
    seed: Annotated[int, typer.Option(min=0, help="of the bootstrap")] = 0,
) -> None:
    """Compare proposals with labels of people: Cohen's kappa, abstentions, cost."""
    explained(lambda: _report(labels, proposals, out, seed))


@app.command()
def invoke(
    url: Annotated[str, typer.Argument(help="of an endpoint, of MLflow or Databricks")],
    source: Annotated[
        Path, typer.Argument(help="a video, a folder of videos or photos, or a table")
    ],
    out: Annotated[Path, typer.Option(help="folder of the verdicts")] = Path("verdicts"),
    verify: Annotated[
        Path | None, typer.Option(help="folder of a model that must give the same scores")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="requests at a time")] = 4,
    every_n_seconds: Annotated[float, typer.Option(min=0, help="of a video; 0: all frames")] = 0,
) -> None:
    """Judge new images by an endpoint: the same files as `blackswan score` writes.

    A token is read from DATABRICKS_TOKEN, or by the Databricks SDK.
    """
    explained(lambda: _invoke(url, source, out, verify, parallel, every_n_seconds))


@app.command()
def check(
    source: Annotated[Path | None, typer.Argument(help="default: source.path")] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("-S", "--set-param", metavar="KEY=VALUE", help="as of `dvc exp run`"),
    ] = None,
) -> None:
    """Say in seconds what a run would read of a source, and what would end it."""
    explained(lambda: _check(source, changes or []))


def _check(source: Path | None, changes: list[str]) -> None:
    with _changed_params(changes) as path:
        source = source or load_section(SourceParams, "source", path).path
        for line in source_check.check(source, path):
            print(line, flush=True)


@contextmanager
def _changed_params(changes: list[str]) -> Iterator[Path]:
    """Yield a file of params to which `changes` were applied, by the grammar of DVC."""
    if not changes:
        yield PARAMS
        return
    from dvc.exceptions import InvalidArgumentError  # both take a second to import
    from dvc.utils.hydra import apply_overrides

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PARAMS.name)
        shutil.copyfile(PARAMS, copy)
        try:
            apply_overrides(copy, changes)
        except InvalidArgumentError as error:
            raise InputError(f"-S {' '.join(changes)}: {cause(error)}; write key=value") from None
        yield copy


def _score(
    model: Path,
    source: Path,
    out: Path,
    every_n_seconds: float,
    gallery: bool,
    max_failed_share: float,
    engine: Engine,
    ignore: Path | None,
    camera: str,
) -> None:
    files = _files_to_score(source, out)
    ignored = read_regions(ignore, camera) if ignore else None
    judge = load(model)
    if ignored:
        judge.check_regions(ignored)
    if engine == "spark" and is_export(model):
        raise InputError(f"--engine spark scores by torch, and {model} is an export; leave it out")
    if (done := preprocessing_of(files)) is not None:
        judge = judge.for_prepared(done)
    spread = None
    if engine == "spark":
        if kind_of(files[0]) in {*video.SUFFIXES, PARQUET}:
            raise InputError(f"--engine spark scores photos, which {source} is not; leave it out")
        spread = spread_with_spark(
            model, out, page=gallery, may_fail=max_failed_share > 0, ignored=ignored
        )
    facts = {
        "detector": judge.facts.detector,
        "alpha": f"{judge.facts.alpha:g}",
        "threshold": repr(judge.facts.threshold),
        "data_sha256": judge.facts.data_sha256,
    }
    if counted := judge.regions(ignored):
        facts["ignored"] = ", ".join(f"{each.camera} {each.sha256}" for each in counted)
    bit_depth = judge.facts.preprocessing.bit_depth
    _write(
        judge, source, files, out, facts, every_n_seconds, bit_depth,
        page=gallery, max_failed_share=max_failed_share, spread=spread, ignored=ignored,
    )  # fmt: skip


def _files_to_score(source: Path, out: Path) -> list[Path]:
    if source.is_dir() and out.absolute().is_relative_to(source.absolute()):
        raise InputError(f"{out} lies in {source}, which is scored; name another folder with --out")
    return list_source(source)


def _write(
    judge: Judge,
    source: Path,
    files: list[Path],
    out: Path,
    facts: dict[str, str],
    every_n_seconds: float,
    bit_depth: int,
    *,
    page: bool = False,
    max_failed_share: float = 0,
    spread: Spread | None = None,
    ignored: Ignored | None = None,
) -> None:
    sampling = Sampling(every_n_seconds=every_n_seconds, start_s=0, end_s=None, max_frames=None)
    facts = facts | {
        "source": source.name,
        "source_state": state_of(files),
        "every_n_seconds": f"{every_n_seconds:g}",
    }
    images = open_images(source, files, sampling, bit_depth)
    found = write_verdicts(
        judge, images, out, facts,
        page=page, max_failed_share=max_failed_share, spread=spread, ignored=ignored,
    )  # fmt: skip
    failed = f"; {found.failed} failed, see {out / QUARANTINE}" if found.failed else ""
    print(f"{found.anomalous} of {found.images} images flagged; see {out}{failed}")


def _export(
    model: Path, to: Runtime, out: Path, photos: Path | None, *, int8: bool, prepared: bool
) -> None:
    if find_spec("onnxscript") is None or (to == "openvino" and find_spec("openvino") is None):
        raise InputError("an export needs the extra `export`; pip install -e '.[export]'")
    from blackswan.export import exporting

    found = None
    if not prepared:
        source = photos or load_section(SourceParams, "source").path
        found = exporting.read_photos(source, load(model).facts.preprocessing.bit_depth)
    done = exporting.export(model, out, to, DATASET, found, int8=int8)
    for line in exporting.described(done):
        print(line)
    print(f"see {out}")


def _recalibrate(detector: Path, normals: Path, out: Path | None, every_n_seconds: float) -> None:
    from blackswan.drift import recalibration
    from blackswan.drift.confirmed import score_normals

    detector = detector.resolve()
    if out and out.exists():
        raise InputError(f"{out} exists; name another folder with --out, nothing is replaced")
    model = load(detector)
    found = score_normals(model, normals, every_n_seconds)
    new = recalibration.recalibrated(model, found)
    versions = (detector.with_name(f"{detector.name}-{number}") for number in count(2))
    out = out or next(folder for folder in versions if not folder.exists())
    recalibration.write(out, detector, new, found)
    before, after = model.facts.threshold, new.facts.threshold
    flagged = int((found.image_scores > before).sum())
    print(f"{flagged} of {len(found.image_scores)} normal images were flagged before")
    print(f"threshold {before:g} before, {after:g} after; see {out}")
    scores, name = DRIFTS / f"{model.facts.detector}.parquet", model.facts.detector
    if scores.exists() and detector == (Path("data/detectors") / name).resolve():
        table = recalibration.drift_rates(pd.read_parquet(scores), before, after)
        print(table.to_string(index=False, float_format="%.2f"))
    else:
        print("`make drift` adds false alarms and recall before and after, on simulated drifts")


def _register(model: Path, name: str, new_test: bool) -> None:
    from blackswan.evaluation import gate
    from blackswan.tracking import registry

    params = load_section(gate.Params, "register.gate")
    facts = load(model).facts
    tested = registry.read_tested(facts, METRICS, SCORES, DATASET)
    outcome = registry.register(model, name, tested, params, new_test=new_test)
    print(f"{name} version {outcome.version}: {'new' if outcome.is_new else 'registered before'}")
    for condition in outcome.conditions:
        print(f"  {condition}")
    if not outcome.passed:
        champion = f"version {outcome.champion}" if outcome.champion else "no version"
        failed = "; ".join(str(each) for each in outcome.conditions if not each.holds)
        raise InputError(
            f"the gate keeps {name} version {outcome.version} from being champion, which "
            f"{champion} stays ({failed}); mend the model, or register.gate in {PARAMS}"
        )
    print(f"{name} version {outcome.version} is the champion")


def _endpoint(model: str, host: str, port: int) -> None:
    from blackswan.tracking.endpoint import serve

    serve(model, host, port)


def _serve(
    detector: str,
    host: str,
    port: int,
    rev: str | None,
    remote: str | None,
    watch: float,
    limits: dict[str, Any],
    decisions: Path | None,
    streams: Path | None,
    memory: Path | None,
    ignore: Path | None,
    log: Path | None,
    opens: bool,
) -> None:
    if memory is not None:
        _need_qdrant()
    if find_spec("fastapi") is None or find_spec("prometheus_client") is None:
        raise InputError("the service needs the extra `serve`; pip install -e '.[serve]'")
    from blackswan.serving.detectors import open_source
    from blackswan.serving.limits import Limits
    from blackswan.serving.server import serve

    source = open_source(detector, rev, remote)
    serve(
        source, host, port, Limits(**limits), watch,
        decisions=decisions, streams=streams, memory=memory,
        ignored=read_all(ignore) if ignore else None, log=log, opens=opens,
    )  # fmt: skip


def _drift_report(log: Path, detector: Path, out: Path, camera: str | None) -> None:
    from blackswan.drift import monitor
    from blackswan.drift.report import report
    from blackswan.tracking.runs import dvc_hash

    params = load_section(monitor.Params, "monitor")
    model = load(detector)
    found = report(log, model, detector, dvc_hash(detector), params, camera, out)
    print(f"{'page' if found.page else 'no page'}: {found.why}; see {out}")
    if found.page:
        sys.exit(PAGED)


def _watch(
    source: str,
    detector: str,
    camera: str,
    out: Path,
    rule: tuple[int, int, int],
    every_n_seconds: float,
    ignore: Path | None,
    webhook: str | None,
) -> None:
    from blackswan.serving.alarms import Window
    from blackswan.serving.detectors import open_source
    from blackswan.serving.streams import watch

    if not re.fullmatch(r"\w[\w.-]{0,63}", camera):
        raise InputError("--camera takes letters, digits, _, . and -, at most 64; choose another")
    ignored = read_regions(ignore, camera) if ignore else None
    print(watch(
        source, open_source(detector), camera, out, Window(*rule),
        every_n_seconds=every_n_seconds, ignored=ignored, url=webhook,
    ))  # fmt: skip


def _export_decisions(decisions: Path, out: Path, add_images: bool) -> None:
    from blackswan.serving.exporting import export

    source = load_section(SourceParams, "source").path
    folders = load_section(Folders, "extract_frames.folder")
    print(export(decisions, out, FRAMES, source, folders if add_images else None))


def _need_qdrant() -> None:
    if find_spec("qdrant_client") is None:
        raise InputError("the defect memory needs the extra `memory`; pip install -e '.[memory]'")


def _index(defects: Path, memory: Path, camera: str, date: str) -> None:
    _need_qdrant()
    from blackswan.memory import vote
    from blackswan.memory.defect_memory import index

    params = load_section(vote.Params, "memory")
    done = index(defects, memory, params, camera=camera, date=date)
    print(f"{memory}: {done.new} new, {done.changed} changed, {done.total} defects in all")


def _similar(model: Path, image: Path, memory: Path, most: int) -> None:
    _need_qdrant()
    from blackswan.data.decoding import decode_turned
    from blackswan.evaluation.regions import find_regions
    from blackswan.memory.defect_memory import DefectMemory

    judge, remembered = load(model), DefectMemory(memory)
    bit_depth = judge.facts.preprocessing.bit_depth
    prepared = judge.prepare(decode_turned(image, str(image), bit_depth)[0])
    found = judge.score_prepared([prepared])
    regions = find_regions(found.anomaly_maps[0], judge.facts.heatmap.threshold, REGIONS)
    print(f"{image}: {'anomalous' if found.flagged[0] else 'normal'}, {len(regions)} regions")
    for likeness in remembered.similar(prepared, regions, most=most):
        region, vote = likeness.region, likeness.vote
        height, width = region.inside.shape
        why = f" ({vote.why_unknown})" if vote.why_unknown else ""
        print(
            f"region at {region.left}, {region.top} of {width} x {height}: "
            f"{vote.type or 'unknown'}{why}, confidence {vote.confidence:.2f}"
        )
        for neighbor in likeness.neighbors:
            print(f"  {neighbor.similarity:.3f} {neighbor.facts['type']} {neighbor.facts['image']}")


def _ask(
    detector: Path,
    source: Path,
    name: str,
    prices: tuple[float, float, float],
    most: int,
    seed: int | None,
    defects: list[str] | None,
    prompt: Path | None,
    base_url: str | None,
    out: Path,
    folder: Path | None,
    limits: dict[str, Any],
    every_n_seconds: float,
    *,
    yes: bool,
) -> None:
    if folder is None and find_spec("openai") is None:
        raise InputError("language models need the extra `llm`; pip install -e '.[llm]'")
    from blackswan.proposals import asking, choosing, questions, table

    price_in, price_out, money = prices
    budget = asking.Budget(money, price_in, price_out, limits["tokens_per_image"])
    known = questions.known_defects(FRAMES, CORRECTIONS) if defects is None else defects
    question = questions.Question(
        name, questions.read_prompt(prompt or questions.PROMPT), known, limits["max_tokens"]
    )
    endpoint = None
    if folder is None:
        from blackswan.proposals.endpoint import Endpoint, address

        endpoint = Endpoint(address(base_url), name, limits["retries"], limits["seconds"])
    table.read_proposals(out)  # a broken one ends the run here, not after all images were scored
    model, files = load(detector), list_source(source)
    if (done := preprocessing_of(files)) is not None:
        model = model.for_prepared(done)
    sampling = Sampling(every_n_seconds=every_n_seconds, start_s=0, end_s=None, max_frames=None)

    def images() -> Iterable[SourceImage]:
        return open_images(source, files, sampling, model.facts.preprocessing.bit_depth)

    if seed is None:
        positions = choosing.least_certain(model, images, most)
    else:
        positions = choosing.sample(images, most, seed)
    found = choosing.candidates(model, images, positions)
    if folder is not None:
        count = asking.dry_run(question, found, out, folder)
        print(f"{count} images, at most {count * budget.most_of(question):.6g}; see {folder}")
        return
    assert endpoint is not None, "there is one, unless nobody is asked"
    if not endpoint.where.is_here and not yes:
        _agree_to_send(
            len(positions), endpoint.where.host, len(positions) * budget.most_of(question)
        )
    outcome = asking.ask_all(endpoint, question, budget, found, out)
    counts = ", ".join(f"{outcome.counts[status]} {status}" for status in table.STATUSES)
    print(f"{counts}, {outcome.before} asked before; {outcome.cost:.6g} spent in all; see {out}")


def _agree_to_send(count: int, host: str, cost: float) -> None:
    said = f"crop, image and heatmap of up to {count} images leave this machine, for {host}"
    if not sys.stdin.isatty():
        raise InputError(f"{said}; --yes allows it")
    if not typer.confirm(f"{said}, at a cost of at most {cost:.6g}. Go on?", err=True):
        raise InputError("nothing was sent; --dry-run FOLDER shows what would be")


def _review(out: Path, proposals: Path) -> None:
    from blackswan.proposals.reviewing import write_review

    count, new = write_review(out, proposals)
    print(f"{out}: {count} images, {new} of them new; fill in label, defect and reviewer")


def _confirm(review: Path, proposals: Path, out: Path) -> None:
    from blackswan.proposals.reviewing import confirm

    source = load_section(SourceParams, "source").path
    done = confirm(review, proposals, out, FRAMES, source)
    print("; ".join(filter(None, [
        f"{out}: {done.corrections} images of {FRAMES}",
        f"{done.others} that were decided elsewhere stay" if done.others else "",
        f"{done.unknown} left out, for {FRAMES} does not hold them" if done.unknown else "",
        f"{done.open} have no reviewer" if done.open else "",
    ])))  # fmt: skip


def _report(labels: Path, proposals: Path, out: Path, seed: int) -> None:
    from blackswan.proposals.agreement import report
    from blackswan.proposals.reviewing import read_labels

    found = report(proposals, read_labels(labels), seed)
    write_json(out, found)
    for one in found["by"]:
        kappa = one["kappa"]
        interval = "" if kappa["low"] is None else f" [{kappa['low']:.2f}, {kappa['high']:.2f}]"
        value = "not defined" if kappa["kappa"] is None else f"{kappa['kappa']:.2f}{interval}"
        print(
            f"{one['model']}, {one['prompt']}: kappa {value} on {one['answered']} images, "
            f"{sum(one['abstained'].values())} of {one['asked']} abstained, cost {one['cost']:.6g}"
        )
    print(f"see {out}")


def _invoke(
    url: str, source: Path, out: Path, verify: Path | None, parallel: int, every_n_seconds: float
) -> None:
    from blackswan.tracking.client import Endpoint

    files = _files_to_score(source, out)
    if preprocessing_of(files) is not None:
        raise InputError(f"{url} prepares images, and those of {source} are; name their source")
    local = load(verify) if verify else None
    judge = Endpoint(url, local, parallel)
    facts = {"endpoint": judge.url, "verified_by": verify.name if verify else ""}
    if local:
        facts |= {"threshold": repr(local.facts.threshold), "data_sha256": local.facts.data_sha256}
    bit_depth = local.facts.preprocessing.bit_depth if local else 16
    _write(judge, source, files, out, facts, every_n_seconds, bit_depth)
    if local:
        print(f"every score is that of {verify}")
