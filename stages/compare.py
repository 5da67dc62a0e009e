"""metrics/detectors, curves, scores and test images -> summary, leaderboard, pictures and report.

What `dvc exp show` lists and `dvc plots show` displays, and one page that opens without a network.
Nothing is measured here, only laid side by side. `dvc repro compare`
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from pydantic import ConfigDict, Field

from blackswan.data.dataset import Split
from blackswan.detectors.interface import LOSSES
from blackswan.errors import InputError, run
from blackswan.evaluation import ranking
from blackswan.evaluation.model import fingerprint
from blackswan.outputs import replace_file, replace_folder, write_json
from blackswan.params import Section, load_section
from blackswan.reporting import charts, formats, report, robustness, sheets
from blackswan.reporting.drawing import write_png
from blackswan.reporting.examples import read_examples, sample
from blackswan.reporting.heatmaps import HeatmapScale
from blackswan.tracking.runs import Record, Tracker

DATASET = Path("data/dataset")
SCORES = Path("data/scores")
METRICS = Path("metrics/detectors")
CURVES = Path("metrics/curves")
SUMMARY = Path("metrics/summary.json")
LEADERBOARD = Path("metrics/leaderboard.csv")
PICTURES = Path("metrics/pictures")
REPORT = Path("metrics/report.html")
ROBUSTNESS = Path("metrics/robustness.json")  # written by `make drift`
MAPS = "maps.parquet"  # in the scores of a detector
TITLES = {"roc": "ROC", "precision_recall": "Precision and recall", "pro": "Per-region overlap"}


class Params(Section):
    """What is compared, and how much of it is shown."""

    references: dict[str, str]  # rows beside the entries of `detectors`, and what they are
    gallery_images: int = Field(ge=1, le=60)  # of one gallery
    sample_images: int = Field(ge=1, le=12)  # of one defect


class Block(Section):
    """A block that other stages read; here it is only shown."""

    model_config = ConfigDict(extra="allow")


def rows_of_the_table(params: Params) -> list[str]:
    """Return what is compared; raises InputError where that is nothing or one thing twice."""
    blocks = load_section(Block, "detectors").model_extra or {}
    if twice := sorted(blocks.keys() & params.references.keys()):
        raise InputError(f"{twice[0]} stands in detectors and in compare.references; remove one")
    if not (names := [*blocks, *params.references]):
        raise InputError("detectors and compare.references are empty; name what is compared")
    return names


def read_settings() -> dict[str, Any]:
    """Return the blocks of params.yaml that the numbers rest on."""
    blocks = {  # one by one, so that dvc.yaml can be held against them
        "source": load_section(Block, "source"),
        "extract_frames": load_section(Block, "extract_frames"),
        "split": load_section(Block, "split"),
        "synthesize_anomalies": load_section(Block, "synthesize_anomalies"),
        "build_dataset": load_section(Block, "build_dataset"),
        "train_vit": load_section(Block, "train_vit"),
        "fit_baseline": load_section(Block, "fit_baseline"),
        "fit_detector": load_section(Block, "fit_detector"),
        "detectors": load_section(Block, "detectors"),
        "evaluate": load_section(Block, "evaluate"),
    }
    return {name: block.model_extra for name, block in blocks.items()}


def read_result(detector: str) -> dict[str, Any]:
    """Read what evaluate_detector measured."""
    path = METRICS / f"{detector}.json"
    if not path.exists():
        raise InputError(f"{path} is missing; run `dvc repro compare`, which writes it")
    return dict(json.loads(path.read_bytes()))


def read_scores(detector: str, test: Split) -> pd.DataFrame:
    """Read the scores of the test images; raises InputError where they are of another dataset."""
    scores = pd.read_parquet(SCORES / detector / "scores.parquet")
    if set(scores.path) != set(test.facts.path):
        raise InputError(
            f"{SCORES / detector} holds scores of other images than {DATASET}; "
            "run `dvc repro compare`, which scores these"
        )
    return scores


def read_robustness() -> dict[str, Any]:
    """Read what `make drift` measured, if it ran: it runs beside the pipeline."""
    return dict(json.loads(ROBUSTNESS.read_bytes())) if ROBUSTNESS.exists() else {"detectors": {}}


def draw_all(detectors: list[str], test: Split, samples: int) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of what belongs to no detector alone; `detectors` come best first."""
    yield "samples", sheets.contact_sheet("Test images and their masks", sample(test, samples))
    for name, title in TITLES.items():
        lines = {each: pd.read_csv(CURVES / each / f"{name}.csv") for each in detectors}
        if lines := {each: points for each, points in lines.items() if len(points)}:
            yield name, charts.curves(title, lines)


def draw_detector(
    detector: str, result: dict[str, Any], test: Split, images: int
) -> Iterator[tuple[str, Figure]]:
    """Yield name and figure of scores, verdicts, calibration, losses and galleries of one."""
    scores = read_scores(detector, test)
    main, unseen = scores[scores.table == ranking.MAIN], scores[scores.table != ranking.MAIN]
    show, threshold = formats.of_scores(result), result["threshold"]
    calibrated = show is formats.probability
    sets = {"normal": main[main.label == 0], "anomalous": main[main.label == 1]}
    sets |= {f"unseen: {table}": rows for table, rows in unseen.groupby("table")}
    values = {name: rows.image_score for name, rows in sets.items() if len(rows)}
    yield "scores", charts.score_histogram(f"{detector}: scores", values, threshold, calibrated)
    yield "confusion", charts.confusion_matrix(f"{detector}: verdicts", main.label, main.flagged)
    if calibrated:
        bins = pd.read_csv(CURVES / detector / "reliability.csv")
        yield "reliability", charts.reliability_diagram(f"{detector}: calibration", bins)
    if (losses := SCORES / detector / LOSSES).exists():
        yield "losses", charts.losses(f"{detector}: loss while it learnt", pd.read_csv(losses))
    scale = HeatmapScale(**result["heatmap"])
    for name, what, rows in [("gallery", "test images", main), ("unseen", "unseen kinds", unseen)]:
        if len(chosen := ranking.mixed(rows, threshold, images)):
            examples = read_examples(chosen, test, SCORES / detector / MAPS, show)
            title = f"{detector}: {what}, {ranking.outcome_counts(rows)}"
            yield name, sheets.gallery(title, examples, scale, show)


def main() -> None:
    """Rank, draw, and lay it all on one page."""
    params = load_section(Params, "compare")
    tracker = Tracker("compare")
    results = {detector: read_result(detector) for detector in rows_of_the_table(params)}
    test = Split(DATASET, "test")
    best_first = ranking.best_first(results)
    with replace_folder(PICTURES) as pictures:
        for name, figure in draw_all(best_first, test, params.sample_images):
            write_png(figure, pictures / f"{name}.png")
        for detector in best_first:
            result = results[detector]
            for name, figure in draw_detector(detector, result, test, params.gallery_images):
                write_png(figure, pictures / detector / f"{name}.png")
        images = fingerprint(test.paths)
        drifts = robustness.of_these(read_robustness(), results, images)
        page = report.render(results, read_settings(), images, pictures, drifts)
    with replace_file(REPORT) as file:
        file.write_text(page, encoding="utf-8")
    with replace_file(LEADERBOARD) as file:
        ranking.leaderboard(results).to_csv(file, index=False, float_format="%.6g")
    summary = ranking.summarise(results)
    write_json(SUMMARY, summary)
    tracker.record(
        Record(
            params={"compare": params},
            reads=[DATASET / "test"],
            metrics=summary,
            pictures=[PICTURES, REPORT, LEADERBOARD],
        )
    )
    print(f"{len(best_first)} compared, {best_first[0]} is first; see {REPORT}")


if __name__ == "__main__":
    run(main)
