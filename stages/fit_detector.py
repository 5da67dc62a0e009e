"""data/dataset, data/weights -> data/models/<detector>: fit a detector on normal images alone.

One that fits in seconds learns from train and validation, and is fitted again on parts of them to
calibrate its threshold; another learns from train, for validation to calibrate it.
`dvc repro fit_detector@patchcore`
"""

import argparse
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
from pydantic import Field

from blackswan.data.dataset import Pictures, Split
from blackswan.data.regions import Camera, Ignored, of_run
from blackswan.data.splits import Params as SplitParams
from blackswan.detectors.interface import LOSSES, Detector, Resources, check_fits, load_module
from blackswan.detectors.patches import PatchParams, open_backbone
from blackswan.errors import run
from blackswan.evaluation import calibration
from blackswan.evaluation.calibration import Fold, Scorer
from blackswan.evaluation.ignoring import Ignoring
from blackswan.networks.backbones import check_scale
from blackswan.networks.checkpoints import remove
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import replace_folder
from blackswan.params import Section, block_name, height_and_width, load_section
from blackswan.tracking.runs import Record, Tracker

DATASET = Path("data/dataset")
IGNORE = Path("data/ignore.json")
WEIGHTS = Path("data/weights")
MODELS = Path("data/models")
CHECKPOINTS = Path("data/checkpoints")


class Params(Section):
    """What all fits share."""

    seed: int = Field(ge=0)


def fit_and_calibrate(
    module: ModuleType,
    images: Pictures,
    params: PatchParams,
    folds: list[Fold],
    resources: Resources,
    ignored: Ignored | None,
) -> tuple[Detector, pd.DataFrame]:
    """Fit on all `images`, and return too how fits without them score those of each fold."""
    embeddings = resources.checkpoints / "embeddings"
    try:
        backbone = open_backbone(resources.weights / params.backbone, params)
        known = RememberedBackbone(backbone, images, len(images), embeddings)
        resources = replace(resources, backbone=known)

        def fit(positions: np.ndarray) -> Scorer:
            detector = module.fit(images.take(positions), params, resources)
            if ignored:
                detector = Ignoring(detector, ignored, Split(DATASET, "train").preprocessing)
            return calibration.scorer(detector, images)

        detector = module.fit(images, params, resources)
        facts = calibration.with_source(images.facts)
        return detector, calibration.calibrate(facts, folds, fit)
    finally:
        remove(embeddings)


def main() -> None:
    """Fit one detector, calibrate it where that takes seconds, and save both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", help="a key of the block `detectors` of params.yaml")
    name = block_name("detectors", parser.parse_args().detector)
    module = load_module(name)
    check_fits(name, module)
    params = load_section(module.Params, f"detectors.{name}")
    shared = load_section(Params, "fit_detector")
    tracker = Tracker(f"fit_detector {name}")
    choice = load_section(calibration.Choice, "evaluate.calibration").root
    guard_seconds = load_section(SplitParams, "split").guard_seconds
    ignored = of_run(IGNORE, load_section(Camera, "ignore.camera").root)

    images, held_out = (Split(DATASET, split).normal_images for split in ("train", "validation"))
    if size := getattr(params, "image_size", None):
        everything = (images + held_out).sizes
        check_scale(everything, height_and_width(size), f"detectors.{name}.image_size")
    resources = Resources(held_out, WEIGHTS, CHECKPOINTS / name, shared.seed)
    facts = calibration.with_source((images + held_out).facts)
    method = calibration.choose(choice, facts, getattr(module, "FITS_IN_SECONDS", False))
    if method == "split":
        detector = module.fit(images, params, resources)
    else:
        images += held_out
        folds = calibration.plan(facts, method, guard_seconds, shared.seed)
        detector, scores = fit_and_calibrate(module, images, params, folds, resources, ignored)
    with replace_folder(MODELS / name) as folder:
        detector.save(folder)
        if method != "split":
            calibration.write_scores(folder, scores, method)
    remove(CHECKPOINTS / name)
    tracker.record(
        Record(
            params={f"detectors.{name}": params, "fit_detector": shared},
            reads=[DATASET / "train", DATASET / "validation", WEIGHTS / params.backbone],
            writes=[MODELS / name],
            curves=MODELS / name / LOSSES,
        )
    )
    how = "" if method == "split" else f", thresholds by {method}"
    print(f"{name}: fitted on {len(images)} normal images{how}")


if __name__ == "__main__":
    run(main)
