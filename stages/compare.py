"""metrics/detectors, curves, scores and test images -> summary, leaderboard, pictures and report.

What `dvc exp show` lists and `dvc plots show` displays, and one page that opens without a network.
Nothing is measured here, only laid side by side. `dvc repro compare`
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from blackswan.data.dataset import Split
from blackswan.errors import InputError, run
from blackswan.evaluation import ranking
from blackswan.evaluation.model import fingerprint
from blackswan.outputs import replace_file, replace_folder, write_json
from blackswan.params import Section, load_section
from blackswan.reporting import report, robustness
from blackswan.reporting.drawing import write_png
from blackswan.reporting.pictures import Measured, of_all, of_one
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


def read_robustness() -> dict[str, Any]:
    """Read what `make drift` measured, if it ran: it runs beside the pipeline."""
    return dict(json.loads(ROBUSTNESS.read_bytes())) if ROBUSTNESS.exists() else {"detectors": {}}


def main() -> None:
    """Rank, draw, and lay it all on one page."""
    params = load_section(Params, "compare")
    tracker = Tracker("compare")
    results = {detector: read_result(detector) for detector in rows_of_the_table(params)}
    test = Split(DATASET, "test")
    best_first = ranking.best_first(results)
    with replace_folder(PICTURES) as pictures:
        for name, figure in of_all(best_first, test, CURVES, params.sample_images):
            write_png(figure, pictures / f"{name}.png")
        for detector in best_first:
            measured = Measured(detector, results[detector], SCORES / detector, CURVES / detector)
            for name, figure in of_one(measured, test, params.gallery_images):
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
