"""data/dataset -> data/models/median_residual: the baseline that every table holds.

It learns nothing, so all normal images of train and validation calibrate its threshold. A detector
that does not beat it has not earned its keep. `dvc repro fit_baseline`
"""

from pathlib import Path

from blackswan.data.dataset import Split
from blackswan.data.regions import Camera, of_run
from blackswan.data.splits import Params as SplitParams
from blackswan.detectors import median_residual
from blackswan.detectors.interface import Detector
from blackswan.errors import run
from blackswan.evaluation import calibration
from blackswan.evaluation.ignoring import Ignoring
from blackswan.outputs import replace_folder
from blackswan.params import load_section
from blackswan.tracking.runs import Record, Tracker

DATASET = Path("data/dataset")
IGNORE = Path("data/ignore.json")
MODEL = Path("data/models/median_residual")


def main() -> None:
    """Save the baseline with its params and calibration scores."""
    params = load_section(median_residual.Params, "fit_baseline")
    choice = load_section(calibration.Choice, "evaluate.calibration").root
    guard_seconds = load_section(SplitParams, "split").guard_seconds
    tracker = Tracker("fit_baseline")
    ignored = of_run(IGNORE, load_section(Camera, "ignore.camera").root)
    detector = median_residual.Detector(params)
    train = Split(DATASET, "train")
    judge: Detector = detector
    if ignored:
        judge = Ignoring(detector, ignored, train.preprocessing)
    images = train.normal_images + Split(DATASET, "validation").normal_images
    facts = calibration.with_source(images.facts)
    method = calibration.choose(choice, facts)
    with replace_folder(MODEL) as folder:
        detector.save(folder)
        if method != "split":
            folds = calibration.plan(facts, method, guard_seconds, seed=0)
            score = calibration.scorer(judge, images)
            scores = calibration.calibrate(
                facts, folds, lambda _: score
            )  # whatever it is fitted on
            calibration.write_scores(folder, scores, method)
    tracker.record(
        Record(
            params={"fit_baseline": params},
            reads=[DATASET / "train", DATASET / "validation"],
            writes=[MODEL],
        )
    )
    print(f"{MODEL}: {params.kernel} pixel median, {params.blur} pixel box, thresholds by {method}")


if __name__ == "__main__":
    run(main)
