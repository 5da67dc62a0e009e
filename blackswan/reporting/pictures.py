"""The pictures of a comparison: those of all detectors together, and those of each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from blackswan.data.dataset import Split
from blackswan.detectors.interface import LOSSES
from blackswan.errors import InputError
from blackswan.evaluation import ranking
from blackswan.reporting import charts, formats, sheets
from blackswan.reporting.examples import read_examples, sample
from blackswan.reporting.heatmaps import HeatmapScale

MAPS = "maps.parquet"  # in the scores of a detector
TITLES = {"roc": "ROC", "precision_recall": "Precision and recall", "pro": "Per-region overlap"}


@dataclass(frozen=True)
class Measured:
    """What evaluate_detector found of a detector, and the folders it wrote."""

    detector: str
    result: Mapping[str, Any]
    scores: Path
    curves: Path


def read_scores(folder: Path, test: Split) -> pd.DataFrame:
    """Read the scores of the test images; raises InputError where they are of another dataset."""
    scores = pd.read_parquet(folder / "scores.parquet")
    if set(scores.path) != set(test.facts.path):
        raise InputError(
            f"{folder} holds scores of other images than {test.paths[0].parent}; "
            "run `dvc repro compare`, which scores these"
        )
    return scores


def of_all(
    detectors: list[str], test: Split, curves: Path, samples: int
) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of what belongs to no detector alone; `detectors` come best first."""
    yield "samples", sheets.contact_sheet("Test images and their masks", sample(test, samples))
    for name, title in TITLES.items():
        lines = {each: pd.read_csv(curves / each / f"{name}.csv") for each in detectors}
        if lines := {each: points for each, points in lines.items() if len(points)}:
            yield name, charts.curves(title, lines)


def of_one(measured: Measured, test: Split, images: int) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of scores, verdicts, calibration, losses and galleries of one."""
    detector, result = measured.detector, measured.result
    scores = read_scores(measured.scores, test)
    main, unseen = scores[scores.table == ranking.MAIN], scores[scores.table != ranking.MAIN]
    show, threshold = formats.of_scores(result), result["threshold"]
    calibrated = show is formats.probability
    sets = {"normal": main[main.label == 0], "anomalous": main[main.label == 1]}
    sets |= {f"unseen: {table}": rows for table, rows in unseen.groupby("table")}
    values = {name: rows.image_score for name, rows in sets.items() if len(rows)}
    yield "scores", charts.score_histogram(f"{detector}: scores", values, threshold, calibrated)
    yield "confusion", charts.confusion_matrix(f"{detector}: verdicts", main.label, main.flagged)
    if calibrated:
        bins = pd.read_csv(measured.curves / "reliability.csv")
        yield "reliability", charts.reliability_diagram(f"{detector}: calibration", bins)
    if (losses := measured.scores / LOSSES).exists():
        yield "losses", charts.losses(f"{detector}: loss while it learnt", pd.read_csv(losses))
    scale = HeatmapScale(**result["heatmap"])
    for name, what, rows in [("gallery", "test images", main), ("unseen", "unseen kinds", unseen)]:
        if len(chosen := ranking.mixed(rows, threshold, images)):
            examples = read_examples(chosen, test, measured.scores / MAPS, show)
            title = f"{detector}: {what}, {ranking.outcome_counts(rows)}"
            yield name, sheets.gallery(title, examples, scale, show)
