"""Verdicts on new images: streamed into Parquet, resumed after a kill, laid out on a page.

Finished parts lie in `.parts` until the end; a run that was killed goes on after the last of them,
so that each image is scored once and memory does not grow with their number.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from tqdm import tqdm

from blackswan.data.files import Listing, frame_name, kind_of, list_files, tell_left_out
from blackswan.data.images import write_png
from blackswan.data.photos import Photo
from blackswan.data.quarantine import TABLE as QUARANTINE
from blackswan.data.quarantine import Failure, Quarantine, attempt
from blackswan.data.records import Frame, SourceImage
from blackswan.data.regions import Ignored
from blackswan.data.sources import table, video
from blackswan.errors import InputError
from blackswan.evaluation.model import Model, Verdicts
from blackswan.outputs import replace_file
from blackswan.parallel import parallel_map
from blackswan.reporting import formats
from blackswan.reporting.heatmaps import HeatmapScale, outline, overlay

Item = TypeVar("Item")
Prepared = tuple[Frame, Any] | Failure

# Scores parts of the source, each with its number, wherever; see `write_part`.
Spread = Callable[[Iterable[tuple[int, list[SourceImage]]]], None]

PART = 64  # images of a part: what a kill may cost
BATCH = 16  # images that a detector gets at once
SHOWN = 60  # images of the page
PARTS, RUN, PARQUET, CSV, PAGE, OVERLAYS = (
    ".parts", "run.json", "verdicts.parquet", "verdicts.csv", "gallery.html", "overlays",
)  # fmt: skip
PROBABILITIES = {"scores": "probabilities"}  # metadata of the table where they are
TEMPLATE = Path(__file__).with_name("verdicts.html.jinja")
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("time_s", pa.float64()),  # of a frame of a video, else null
        ("image_score", pa.float32()),
        ("p_value", pa.float64()),
        ("threshold", pa.float64()),
        ("verdict", pa.string()),  # normal, anomalous
    ]
)


class Remote(Protocol):
    """What scores images elsewhere, by their files."""

    def read(self, item: SourceImage) -> Any:  # noqa: ANN401 - what `score_prepared` takes
        """Return an image of a source, ready to be scored."""

    def score_prepared(self, images: Sequence[Any]) -> Verdicts:
        """Judge images that `read` returned."""


Judge = Model | Remote


@dataclass(frozen=True)
class Summary:
    """What came out of a source."""

    images: int  # scored
    anomalous: int
    failed: int = 0


def list_source(path: Path) -> list[Path]:
    """List a video, the videos of a folder, the photos or the Parquet files below it, or a table.

    Raises InputError where `path` is none of them, or holds videos and photos, or nothing.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; name a video or a folder of images")
    if path.is_file() and (tables := table.list_tables(path)):
        return tables
    videos = video.list_videos(path)
    found = Listing() if path.is_file() else list_files(path)
    if videos and found.files:
        raise InputError(
            f"{path} holds videos and photos, such as {found.files[0].name}; name one kind"
        )
    files = videos or found.files or table.list_tables(path)
    if found.files:
        tell_left_out(path, found.left_out)
    if not files:
        raise InputError(f"{path} holds no image and is no video that is known; name another")
    return files


def open_images(
    path: Path, files: list[Path], sampling: video.Sampling, bit_depth: int = 16
) -> Iterable[SourceImage]:
    """Return the images of the `files` that `list_source(path)` found, undecoded.

    Of photos of 16 bits, the upper 8 of the lower `bit_depth` are kept.
    """
    if kind_of(files[0]) in (table.PARQUET, table.CSV):
        return table.iterate_rows(files, bit_depth)
    if kind_of(files[0]) in video.SUFFIXES:
        return chain.from_iterable(
            video.iterate_frames(file, sampling, "" if file == path else _name(path, file))
            for file in files
        )
    root = path.absolute().name
    names = [_name(path, file) for file in files]
    return [
        SourceImage(Frame(name, root), Photo(file, bit_depth=bit_depth))
        for name, file in zip(names, files, strict=True)
    ]


def _name(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def write_verdicts(
    judge: Judge,
    images: Iterable[SourceImage],
    folder: Path,
    run: dict[str, str],
    *,
    page: bool,
    max_failed_share: float = 0,
    spread: Spread | None = None,
    ignored: Ignored | None = None,
) -> Summary:
    """Score `images` into `folder`: verdicts.parquet and .csv, with `page` overlays and a gallery.

    `run` says what is scored by what; raises InputError where the folder holds another run, and
    where more than a share of the images fails; what may fail goes to quarantine.csv. The parts
    that are missing are scored here, or by `spread` elsewhere, each by `write_part`. A page needs
    a Model, and so do regions that do not count.
    """
    _claim(folder, {**run, "gallery": str(page).lower()})
    if not (folder / PARQUET).exists():
        done = {int(path.stem): path for path in (folder / PARTS).glob("*.parquet")}
        rest = _not_scored(images, done)
        missing = (number for number in count() if number not in done)
        if spread is not None:
            spread(zip(missing, _batched(rest, PART), strict=False))
        else:
            bar = tqdm(desc="scoring", unit="image", initial=PART * len(done), disable=None)
            with bar:
                ready = _batched(prepared(judge, rest, ignored), PART)
                for number, items in zip(missing, ready, strict=False):
                    write_part(
                        judge, items, folder, number, page=page, may_fail=max_failed_share > 0
                    )
                    bar.update(len(items))
        _join(folder, max_failed_share)
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    if page:
        _write_page(folder, run)
    return _summary(folder)


def write_part(
    judge: Judge,
    items: Sequence[Prepared],
    folder: Path,
    number: int,
    *,
    page: bool,
    may_fail: bool,
) -> None:
    """Score one part of prepared images into `folder`, whole or not at all.

    Raises InputError where one has failed and none may.
    """
    failed = [item for item in items if isinstance(item, Failure)]
    if failed and not may_fail:
        raise InputError(failed[0].reason)
    ready = [item for item in items if not isinstance(item, Failure)]
    scored = _score(judge, ready, folder if page else None) if ready else SCHEMA.empty_table()
    path = folder / PARTS / f"{number:06d}.parquet"
    if failed:
        with replace_file(_failed_of(path)) as partial:
            partial.write_text(json.dumps({item.path: item.reason for item in failed}))
    with replace_file(path) as partial:
        pq.write_table(scored, partial)


def _failed_of(part: Path) -> Path:
    return part.with_suffix(".failed.json")


def _read_failed(part: Path) -> dict[str, str]:
    """Return the reasons of the images of a part that failed, by path."""
    path = _failed_of(part)
    return json.loads(path.read_text()) if path.exists() else {}


def _claim(folder: Path, run: dict[str, str]) -> None:
    """Enter in `folder` what is scored there, or compare it with what stands there."""
    path, text = folder / RUN, json.dumps(run, indent=2, sort_keys=True) + "\n"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder with --out")
    if not path.exists():
        if folder.exists() and any(not item.name.startswith(".") for item in folder.iterdir()):
            raise InputError(f"{folder} holds other files; name an empty folder with --out")
        shutil.rmtree(folder / PARTS, ignore_errors=True)  # of nobody knows which run
        with replace_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    elif path.read_bytes() != text.encode():
        raise InputError(
            f"{folder} holds the verdicts of another model, source or setting ({path}); name "
            "another folder with --out, or delete this one"
        )


def _not_scored(images: Iterable[SourceImage], parts: Mapping[int, Path]) -> Iterator[SourceImage]:
    """Skip what the parts hold; raises InputError where `images` are no longer those."""
    images = iter(images)
    for number in count():
        if number in parts:
            scored = pq.read_table(parts[number], columns=["path"])["path"].to_pylist()
            failed, waiting = _read_failed(parts[number]), iter(scored)
            for _ in range(len(scored) + len(failed)):
                found = next(images, None)
                if found is not None and found.frame.image in failed:
                    continue
                name = next(waiting, "the last image")
                if found is None or found.frame.image != name:
                    raise InputError(
                        f"the source has changed since {name} was scored; delete the folder of the "
                        "verdicts, or name another with --out"
                    )
        elif (first := next(images, None)) is not None:
            yield first
            yield from islice(images, PART - 1)
        elif number > max(parts, default=-1):
            return


def prepared(
    judge: Judge, images: Iterable[SourceImage], ignored: Ignored | None = None
) -> Iterator[Prepared]:
    """Yield each image as the judge wants it, or why it failed, prepared on all cores."""

    def read(item: SourceImage) -> tuple[Frame, Any]:
        if isinstance(judge, Model):
            return item.frame, judge.see(item.read()[0], ignored)
        return item.frame, judge.read(item)

    def prepare(item: SourceImage) -> Prepared:
        return attempt(item.frame.image, lambda: read(item))

    return parallel_map(prepare, images)


def _score(judge: Judge, items: Sequence[tuple[Frame, Any]], pictures: Path | None) -> pa.Table:
    """Score one part, with an overlay of each image that is flagged where `pictures` is given."""
    rows = []
    for batch in _batched(items, BATCH):
        ready = [image for _, image in batch]
        judged = judge.score_seen if isinstance(judge, Model) else judge.score_prepared
        found = judged(ready)
        for (frame, image), score, p_value, flagged, anomaly_map in zip(
            batch, found.image_scores, found.p_values, found.flagged, found.anomaly_maps,
            strict=True,
        ):  # fmt: skip
            verdict = "anomalous" if flagged else "normal"
            rows.append((frame.image, frame.timestamp_s, score, p_value, found.threshold, verdict))
            if pictures is not None and flagged:
                assert isinstance(judge, Model), "who draws has the maps"
                scale = HeatmapScale(**judge.facts.heatmap.model_dump())
                drawn = outline(overlay(image.image, anomaly_map, scale), image.ignored)
                write_png(_overlay_of(pictures, frame.image), drawn)
    schema = SCHEMA.with_metadata(PROBABILITIES if found.probabilities else None)
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema)


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def _overlay_of(folder: Path, image: str) -> Path:
    return folder / OVERLAYS / f"{frame_name(image)}.png"


def _join(folder: Path, max_failed_share: float) -> None:
    """Put the parts into one Parquet file and one CSV; the Parquet file is the mark of the end."""
    parts = sorted((folder / PARTS).glob("*.parquet"))
    _write_failed(folder, parts, max_failed_share)
    schemas = map(pq.read_schema, parts)
    schema = next((schema for schema in schemas if schema.metadata), SCHEMA)
    with replace_file(folder / CSV) as partial, pa.csv.CSVWriter(partial, schema) as writer:
        for part in parts:
            writer.write(pq.read_table(part))
    with replace_file(folder / PARQUET) as partial, pq.ParquetWriter(partial, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part))


def _write_failed(folder: Path, parts: list[Path], max_failed_share: float) -> None:
    """List what failed, if anything did; raises InputError where that is too much."""
    failed = {path: reason for part in parts for path, reason in _read_failed(part).items()}
    scored = sum(pq.read_metadata(part).num_rows for part in parts)
    quarantine = Quarantine(scored + len(failed), max_failed_share, "--max-failed-share")
    for path, reason in failed.items():
        quarantine.add(Failure(path, reason))
    if failed:
        quarantine.write(folder)


def _summary(folder: Path) -> Summary:
    verdicts = pq.read_table(folder / PARQUET, columns=["verdict"])["verdict"]
    quarantine = folder / QUARANTINE
    failed = len(pd.read_csv(quarantine)) if quarantine.exists() else 0
    return Summary(len(verdicts), verdicts.to_pylist().count("anomalous"), failed)


def _write_page(folder: Path, run: dict[str, str]) -> None:
    flagged = pq.read_table(folder / PARQUET, filters=[("verdict", "==", "anomalous")])
    worst = flagged.sort_by([("image_score", "descending"), ("path", "ascending")])
    rows = [
        row | {"picture": _overlay_of(Path(), row["path"]).as_posix()}
        for row in islice(worst.to_pylist(), SHOWN)
    ]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), undefined=StrictUndefined, autoescape=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    are_probabilities = b"scores" in (flagged.schema.metadata or {})
    environment.filters["score"] = formats.probability if are_probabilities else formats.score
    environment.filters["probability"] = formats.probability
    page = environment.get_template(TEMPLATE.name).render(
        rows=rows, run=run, summary=_summary(folder)
    )
    with replace_file(folder / PAGE) as partial:
        partial.write_text(page, encoding="utf-8")
