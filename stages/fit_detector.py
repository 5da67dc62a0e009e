"""data/dataset, data/weights -> data/models/<detector>: fit a detector on normal images alone.

Train images are what it learns from; normal validation images may normalise its maps.
`dvc repro fit_detector@patchcore`
"""

import argparse
from pathlib import Path

from pydantic import Field

from blackswan.data.dataset import Split
from blackswan.detectors.interface import Resources, load_module
from blackswan.errors import InputError, run
from blackswan.networks.checkpoints import remove
from blackswan.outputs import replace_folder
from blackswan.params import Section, block_name, load_section

DATASET = Path("data/dataset")
WEIGHTS = Path("data/weights")
MODELS = Path("data/models")
CHECKPOINTS = Path("data/checkpoints")


class Params(Section):
    """What all fits share."""

    seed: int = Field(ge=0)


def main() -> None:
    """Fit one detector and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", help="a key of the block `detectors` of params.yaml")
    name = block_name("detectors", parser.parse_args().detector)
    module = load_module(name)
    if not hasattr(module, "fit"):
        raise InputError(f"{name} has a stage of its own; take it out of the block detectors")
    params = load_section(module.Params, f"detectors.{name}")
    seed = load_section(Params, "fit_detector").seed
    images = Split(DATASET, "train").normal_images
    validation = Split(DATASET, "validation").normal_images
    detector = module.fit(images, params, Resources(validation, WEIGHTS, CHECKPOINTS / name, seed))
    with replace_folder(MODELS / name) as folder:
        detector.save(folder)
    remove(CHECKPOINTS / name)
    print(f"{name}: fitted on {len(images)} normal images")


if __name__ == "__main__":
    run(main)
