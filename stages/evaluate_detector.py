"""data/models/<detector>, validation and test -> metrics, curves, scores and the complete model.

One script judges every detector. Threshold, p-values and the colour scale of the heatmaps come from
the scores of normal images that the fit left, else from validation; test is only ever scored.
`dvc repro evaluate_detector@padim`
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from blackswan.data.dataset import Split
from blackswan.data.regions import Camera, of_run
from blackswan.detectors.interface import LOSSES, load_module
from blackswan.errors import run
from blackswan.evaluation.calibration import with_source
from blackswan.evaluation.ignoring import Ignoring
from blackswan.evaluation.model import Facts, Scale, fingerprint, save
from blackswan.evaluation.ranking import group_count, interval
from blackswan.evaluation.results import measure, write_curves
from blackswan.evaluation.scoring import (
    Calibration,
    Params,
    read_calibration,
    score_test,
)
from blackswan.evaluation.thresholds import (
    largest_p_values,
    largest_threshold,
    threshold_between,
)
from blackswan.evaluation.verdict import Verdict, judge
from blackswan.outputs import replace_folder, write_json
from blackswan.params import block_name, load_section
from blackswan.tracking.runs import Record, Tracker

DATASET = Path("data/dataset")
IGNORE = Path("data/ignore.json")
MODELS = Path("data/models")
DETECTORS = Path("data/detectors")
SCORES = Path("data/scores")
METRICS = Path("metrics/detectors")
CURVES = Path("metrics/curves")


def heatmap_scale(calibrated: Calibration, alpha: float) -> dict[str, float]:
    """Return the fixed colour scale: normal maps stay below `threshold`, the scale ends at `top`.

    The threshold is the conformal one of the peaks of normal maps; the top is the median peak of
    anomalous validation images, or twice the threshold where there is none.
    """
    threshold = largest_threshold(calibrated.sets("map_peak"), alpha)
    peaks = calibrated.anomalies.map_peak
    top = float(peaks.median()) if len(peaks) else 2 * threshold
    return {"threshold": threshold, "top": max(threshold, top)}


def does_it_hold(calibrated: Calibration, test: pd.DataFrame, params: Params) -> Verdict:
    """Judge the threshold by the normal images of `test`, which has flagged beside its facts."""
    normals = with_source(test[test.label == 0])
    return judge(calibrated.left_out, normals, params.alpha)


def main() -> None:
    """Take the threshold from validation, score test, write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", help="a module of blackswan/detectors")
    name = block_name("detectors and compare.references", parser.parse_args().detector)
    params = load_section(Params, "evaluate")
    ignored = of_run(IGNORE, load_section(Camera, "ignore.camera").root)
    module = load_module(name)
    tracker = Tracker(f"evaluate_detector {name}")
    detector = module.load(MODELS / name)
    train, held_out, test = (Split(DATASET, split) for split in ("train", "validation", "test"))
    if ignored:
        detector = Ignoring(detector, ignored, train.preprocessing)
    learns_anomalies = getattr(module, "LEARNS_ANOMALIES", False)
    calibrated = read_calibration(
        detector, MODELS / name, held_out, params, all_anomalies=learns_anomalies
    )
    normal_scores, source = calibrated.sets(), calibrated.threshold_from
    threshold = largest_threshold(normal_scores, params.alpha)
    if learns_anomalies:
        anomalous_scores = calibrated.anomalies.image_score.to_numpy()
        threshold = threshold_between(threshold, anomalous_scores, params.miss_rate)
        source += f", and at most {params.miss_rate:g} of validation's anomalies missed"
    if ignored:
        source += f"; the regions of {ignored.camera} (sha256 {ignored.sha256[:12]}) do not count"
    scale = heatmap_scale(calibrated, params.alpha)

    facts = Facts(
        detector=name,
        alpha=params.alpha,
        threshold=threshold,
        threshold_from=source,
        heatmap=Scale(**scale),
        preprocessing=train.preprocessing,
        data_sha256=fingerprint(train.paths),
    )
    with (
        replace_folder(DETECTORS / name) as complete,
        replace_folder(SCORES / name) as scores,
        replace_folder(CURVES / name) as curves,
    ):
        save(complete, MODELS / name, facts, normal_scores, ignored)
        seen = set(held_out.facts.defect[held_out.facts.label == 1])
        found = score_test(detector, test, seen, params.batch_size, scores / "maps.parquet")
        judged = found.images.assign(
            p_value=largest_p_values(found.images.image_score, normal_scores, params.alpha),
            flagged=found.images.image_score > threshold,
        )
        judged.to_parquet(scores / "scores.parquet", index=False)
        timed = judged.assign(timestamp_s=test.facts.timestamp_s)
        held = does_it_hold(calibrated, timed, params)
        write_curves(found, params.calibration_bins, curves)
        if (MODELS / name / LOSSES).exists():
            shutil.copyfile(MODELS / name / LOSSES, scores / LOSSES)
        result = measure(found, threshold, params.calibration_bins) | {
            "heatmap": scale,
            "threshold_from": source,
            "verdict": held.verdict,
            "threshold_verdict": {"advice": held.advice, **asdict(held)},
        }
        write_json(METRICS / f"{name}.json", result)
    tracker.record(
        Record(
            params={"evaluate": params},
            reads=[MODELS / name, DATASET / "validation", DATASET / "test"],
            writes=[DETECTORS / name],
            metrics=result,
            pictures=[CURVES / name],
        )
    )
    if found.hidden:
        print(f"{name}: {found.hidden} anomalous test images show nothing outside of the regions")
    keys = ("image_auroc", "pixel_auroc", "false_positive_rate", "recall")
    shown = [f"{key} {interval(result, key, 4)}" for key in keys if key in result]
    print(f"{name}: the promise on false alarms: {held.verdict}; {held.advice}".rstrip("; "))
    print(f"{name}: " + ", ".join([*shown, f"groups {group_count(result)}"]))


if __name__ == "__main__":
    run(main)
