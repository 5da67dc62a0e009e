"""The command line: `blackswan check SOURCE` before a run, `blackswan score MODEL SOURCE` after it.

Each command calls `explained`, before Typer makes its own words of an interruption.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from blackswan.data.files import kind_of
from blackswan.data.quarantine import TABLE as QUARANTINE
from blackswan.data.sources import video
from blackswan.data.sources.opening import SourceParams
from blackswan.data.sources.video import Sampling
from blackswan.distributed.scoring import spread_with_spark
from blackswan.errors import InputError, cause, explained
from blackswan.evaluation import source_check
from blackswan.evaluation.model import load
from blackswan.params import PARAMS, Engine, load_section
from blackswan.reporting.verdicts import (
    list_source,
    open_images,
    state_of,
    write_verdicts,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def blackswan() -> None:
    """Blackswan finds the frame that does not belong."""


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="folder of a model, such as data/detectors/padim")],
    source: Annotated[Path, typer.Argument(help="a video, or a folder of videos or photos")],
    out: Annotated[Path, typer.Option(help="folder of the verdicts")] = Path("verdicts"),
    every_n_seconds: Annotated[float, typer.Option(min=0, help="of a video; 0: all frames")] = 0,
    gallery: Annotated[bool, typer.Option(help="overlays of what is flagged, and a page")] = False,
    max_failed_share: Annotated[
        float, typer.Option(min=0, max=1, help="of the images, listed in quarantine.csv")
    ] = 0,
    engine: Annotated[Engine, typer.Option(help="spark: photos, by a cluster")] = "local",
) -> None:
    """Judge new images: verdicts.parquet and verdicts.csv with score, p-value and verdict.

    The same command again goes on where a run was killed.
    """
    explained(
        lambda: _score(model, source, out, every_n_seconds, gallery, max_failed_share, engine)
    )


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
) -> None:
    if source.is_dir() and out.absolute().is_relative_to(source.absolute()):
        raise InputError(f"{out} lies in {source}, which is scored; name another folder with --out")
    judge, files = load(model), list_source(source)
    if engine == "spark" and kind_of(files[0]) in video.SUFFIXES:
        raise InputError(f"--engine spark scores photos, and {source} is video; leave it out")
    sampling = Sampling(every_n_seconds=every_n_seconds, start_s=0, end_s=None, max_frames=None)
    facts = {
        "detector": judge.facts.detector,
        "alpha": f"{judge.facts.alpha:g}",
        "threshold": repr(judge.facts.threshold),
        "data_sha256": judge.facts.data_sha256,
        "source": source.name,
        "source_state": state_of(files),
        "every_n_seconds": f"{every_n_seconds:g}",
    }
    images = open_images(source, files, sampling, judge.facts.preprocessing.bit_depth)
    spread = None
    if engine == "spark":
        spread = spread_with_spark(model, out, page=gallery, may_fail=max_failed_share > 0)
    found = write_verdicts(
        judge, images, out, facts,
        page=gallery, max_failed_share=max_failed_share, spread=spread,
    )  # fmt: skip
    failed = f"; {found.failed} failed, see {out / QUARANTINE}" if found.failed else ""
    print(f"{found.anomalous} of {found.images} images flagged; see {out}{failed}")
