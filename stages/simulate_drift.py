"""data/detectors/<detector>, test -> metrics/drift: what it says of test images that drift.

For seventeen drifts of a camera at five severities, the metrics of evaluate_detector at the same
threshold, and where its promise on false alarms breaks. Nothing is chosen by what comes out here;
evaluate_detector and compare never see it. `dvc repro drift/dvc.yaml:simulate_drift@padim`
"""

import argparse
from pathlib import Path

import pandas as pd
from pydantic import Field
from tqdm import tqdm

from blackswan.data.dataset import Split
from blackswan.detectors.interface import load_module
from blackswan.drift.corruptions import NAMES, SEVERITIES
from blackswan.drift.pictures import drift_panels
from blackswan.drift.simulation import STEP, draw, simulate, table_of
from blackswan.errors import run
from blackswan.evaluation import scoring
from blackswan.evaluation.ignoring import Ignoring
from blackswan.evaluation.model import load
from blackswan.outputs import replace_file
from blackswan.params import Section, block_name, load_section
from blackswan.reporting.drawing import write_png

DATASET = Path("data/dataset")
MODELS = Path("data/models")
DETECTORS = Path("data/detectors")
SCORES = Path("data/drift")
METRICS = Path("metrics/drift")


class Params(Section):
    """How much of the test split drifts."""

    seed: int = Field(ge=0)
    images: int | None = Field(ge=1)  # normal ones, and as many anomalous, evenly; null takes all


def main() -> None:
    """Score drifted images, lay out what became of the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", help="a module of blackswan/detectors")
    name = block_name("detectors and compare.references", parser.parse_args().detector)
    params = load_section(Params, "simulate_drift")
    judged = load_section(scoring.Params, "evaluate")
    load_module(name)  # a name that is no detector ends here
    model = load(DETECTORS / name)
    detector = model.detector
    if model.ignored:
        detector = Ignoring(detector, model.ignored, model.facts.preprocessing)
    calibrated = scoring.read_calibration(
        detector, MODELS / name, Split(DATASET, "validation"), judged, all_anomalies=False
    )

    sample = draw(Split(DATASET, "test"), params.images)
    scores, pixels = [], []
    shown = tqdm(total=1 + len(NAMES) * len(SEVERITIES), desc=f"drift {name}", disable=None)
    with shown:
        steps = simulate(detector, sample, seed=params.seed, batch_size=judged.batch_size)
        for part, found in steps:
            scores.append(part)
            pixels.append({"drift": part.drift[0], "severity": part.severity[0], **found})
            shown.update()
    every = pd.concat(scores, ignore_index=True)
    table = table_of(every, pixels, calibrated.left_out, model.facts.threshold, model.facts.alpha)
    with replace_file(SCORES / f"{name}.parquet") as file:
        every.to_parquet(file, index=False)
    with replace_file(METRICS / f"{name}.csv") as file:
        table.to_csv(file, index=False, float_format="%.6g")
    with replace_file(METRICS / f"{name}.png") as file:
        write_png(drift_panels(f"{name} when the camera drifts", table), file)
    broken = table[(table.kind == STEP) & (table.severity == 0)].set_index("drift").breaks_at
    kept = ", ".join(broken.index[broken.isna()]) or "none"
    print(f"{name}: the promise on false alarms is never void under {kept}")


if __name__ == "__main__":
    run(main)
