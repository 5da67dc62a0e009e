"""Has the world moved since the detector was fitted, and is a person to be paged?

The answers of a log, thinned so that near copies do not count, are cut into windows. Each is tested
against the reference (detection.py), and all in a row are watched by the CUSUM of conformal
p-values. `Params` is the rule. A test that compares with one reference is wrong about all windows
alike where that reference is an odd one: windows in a row guard against what passes, not against
that.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from blackswan.drift.detection import (
    FEWEST,
    PERMUTATIONS,
    WINDOW_TESTS,
    Cusum,
)
from blackswan.drift.reference import Reference
from blackswan.errors import InputError, shown
from blackswan.params import Section
from blackswan.seeds import generator

KEPT = 100  # windows, the newest, that are tested and shown

Test = Literal["kolmogorov_smirnov", "maximum_mean_discrepancy", "domain_classifier"]


class Params(Section):
    """The rule that pages a person."""

    seed: int = Field(ge=0)
    hours: float = Field(gt=0)  # of the log, up to its newest answer
    every_seconds: float | None = Field(ge=0)  # between answers that count; null: as of held-out
    window: int = Field(ge=FEWEST)  # answers that one test takes
    tests: list[Test] = Field(min_length=1)
    level: float = Field(gt=0, lt=1)  # of a window: chance that a test is wrong about it
    in_a_row: int = Field(ge=1)  # windows, the newest, that page where all of them say drift
    cusum_images: int | None = Field(ge=1)  # images per wrong report of the CUSUM; null: not asked

    @property
    def test_level(self) -> float:
        """The level of one test (Bonferroni)."""
        return self.level / len(self.tests)

    @model_validator(mode="after")
    def _attainable(self) -> "Params":
        smallest = 1 / (PERMUTATIONS + 1)
        if "maximum_mean_discrepancy" in self.tests and self.test_level < smallest:
            raise ValueError(
                f"{PERMUTATIONS} permutations give no p-value below {smallest:g}; raise level to "
                f"{smallest * len(self.tests):g}, or leave maximum_mean_discrepancy out"
            )
        return self


@dataclass
class Window:
    """Answers that are tested together."""

    begin: datetime
    end: datetime
    rows: np.ndarray  # (W, 1 + K)
    flagged: float  # share
    log_capital: float  # of the CUSUM after the last of them
    reports: list[datetime]  # of the CUSUM within it
    p_values: dict[str, float] = field(default_factory=dict)
    drift: bool = False


@dataclass(frozen=True)
class Found:
    """What a log says."""

    camera: str
    answers: int
    counted: int  # less near copies
    left_out: int  # of these, without an embedding
    begin: datetime
    end: datetime
    every_seconds: float
    reference: int
    components: int
    limit: float | None  # of the log capital
    windows: list[Window]
    drift: bool
    page: bool
    why: str

    def content(self) -> dict[str, Any]:
        """Return it for JSON, less the answers themselves."""
        windows = [
            {key: value for key, value in asdict(window).items() if key != "rows"}
            | {"median_score": float(np.median(window.rows[:, 0]))}
            for window in self.windows
        ]
        return _plain(asdict(self) | {"windows": windows})


@dataclass
class _Counts:
    """What was read so far."""

    camera: str = ""
    answers: int = 0
    counted: int = 0
    left_out: int = 0


def examine(
    answers: Iterable[pd.DataFrame], camera: str | None, reference: Reference, params: Params
) -> Found:
    """Judge the answers of a log, which come in order of time, a batch at a time.

    Raises InputError for answers of several cameras or sizes, for fewer than a window, and for
    copies of one image.
    """
    every = reference.seconds if params.every_seconds is None else params.every_seconds
    counts = _Counts()
    thinned = _thinned(_of_one_camera(answers, camera, counts), every, counts)
    cusum = None
    if params.cusum_images is not None:
        cusum = Cusum(_strange(reference.rows), params.cusum_images, params.seed)
    windows = _windows(thinned, reference.rows.shape[1] - 1, cusum, params.window, counts)
    if not windows:
        raise InputError(
            f"the log has {counts.counted - counts.left_out} answers that count and a window takes "
            f"{params.window} (near copies within {every:g} seconds count once); wait for more, or "
            f"lower monitor.window, to {FEWEST} at least"
        )
    rng = generator(params.seed, "monitor")
    for window in windows:
        for test in params.tests:
            window.p_values[test] = WINDOW_TESTS[test](reference.rows, window.rows, rng)
        window.drift = min(window.p_values.values()) <= params.test_level
    page, why = _rule(windows, params)
    return Found(
        **asdict(counts), every_seconds=every,
        begin=windows[0].begin, end=windows[-1].end,
        reference=len(reference.rows), components=reference.rows.shape[1] - 1,
        limit=cusum.limit if cusum else None,
        windows=windows, drift=windows[-1].drift, page=page, why=why,
    )  # fmt: skip


def _rule(windows: list[Window], params: Params) -> tuple[bool, str]:
    newest = windows[-params.in_a_row :]
    said = []
    if len(newest) == params.in_a_row and all(window.drift for window in newest):
        level = params.test_level
        tests = [test for test in params.tests if min(w.p_values[test] for w in newest) <= level]
        said.append(
            f"{', '.join(tests)}: the newest {params.in_a_row} windows of {params.window} images "
            "differ from held-out normal ones"
        )
    if reports := [time for window in newest for time in window.reports]:
        said.append(f"the CUSUM reported {len(reports)} times since {newest[0].begin.isoformat()}")
    return bool(said), "; ".join(said) or "the newest windows look like held-out normal images"


def _of_one_camera(
    answers: Iterable[pd.DataFrame], camera: str | None, counts: _Counts
) -> Iterator[pd.DataFrame]:
    """Yield the answers of a camera; count them; raise InputError where there are several."""
    cameras: set[str] = set()
    sizes: set[tuple[int, int]] = set()
    for batch in answers:
        cameras |= {*batch.camera}
        if camera is None and len(cameras) > 1:
            raise InputError(
                f"the log holds answers of the cameras {_named(cameras)}; choose one with --camera"
            )
        ours = batch if camera is None else batch[batch.camera == camera]
        sizes |= {*zip(ours.width.tolist(), ours.height.tolist(), strict=True)}
        if len(sizes) > 1:
            (width, height), (other_width, other_height) = sorted(sizes)[:2]
            raise InputError(
                f"the log holds images of {width} x {height} and of {other_width} x {other_height} "
                "pixels, which no camera has; give each camera a name (X-Camera), and choose one "
                "with --camera"
            )
        counts.answers += len(ours)
        yield ours
    if camera is not None and camera not in cameras:
        raise InputError(
            f"the log holds no answer of camera {shown(camera)}; it has {_named(cameras)}"
        )
    counts.camera = camera if camera is not None else next(iter(cameras), "")


def _named(cameras: set[str]) -> str:
    return ", ".join(shown(each) or "'' (no name)" for each in sorted(cameras))


def _thinned(answers: Iterable[pd.DataFrame], every: float, counts: _Counts) -> Iterator[Any]:
    """Yield one answer in `every` seconds, as named tuples."""
    last = -np.inf
    for batch in answers:
        seconds = batch.time.astype("datetime64[us, UTC]").astype("int64").to_numpy() / 1e6
        for answer, time in zip(batch.itertuples(index=False), seconds, strict=True):
            if not every or time >= last + every:  # several processes answer in any order
                last = time
                counts.counted += 1
                yield answer


def _windows(
    answers: Iterable[Any], components: int, cusum: Cusum | None, size: int, counts: _Counts
) -> list[Window]:
    """Cut answers into windows and watch them in a row; return the newest KEPT windows."""
    windows: deque[Window] = deque(maxlen=KEPT)
    waiting: list[tuple[Any, np.ndarray]] = []
    reports: list[datetime] = []
    for answer in answers:
        if components and answer.embedding is None:
            counts.left_out += 1
            continue
        row = np.append(answer.image_score, answer.embedding if components else [])
        if len(row) != 1 + components:
            raise InputError(
                f"an answer of {answer.time.isoformat()} has {len(row) - 1} components and the "
                f"reference {components}; delete the folder of the reference and that part"
            )
        if cusum and cusum.add(_strange(row[None])[0]):
            reports.append(answer.time)
        waiting.append((answer, row))
        if len(waiting) < size:
            continue
        rows = np.stack([row for _, row in waiting])
        begin, end = waiting[0][0].time, waiting[-1][0].time
        if not np.ptp(rows, axis=0).any():
            raise InputError(
                f"all {size} images from {begin.isoformat()} to {end.isoformat()} score the same, "
                "as copies do; see whether the camera hangs"
            )
        flagged = float(np.mean([each.verdict == "anomalous" for each, _ in waiting]))
        capital = cusum.log_capital if cusum else 0.0
        windows.append(Window(begin, end, rows, flagged, capital, reports))
        waiting, reports = [], []
    return list(windows)


def _strange(rows: np.ndarray) -> np.ndarray:
    """Return what the CUSUM watches of rows (N, 1 + K): (N, F).

    The score and, where there are components, how far they lie from their mean in deviations.
    """
    if rows.shape[1] == 1:
        return rows
    return np.column_stack([rows[:, 0], np.sqrt((rows[:, 1:] ** 2).mean(1))])


def _plain(value: Any) -> Any:  # noqa: ANN401 - of JSON
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
