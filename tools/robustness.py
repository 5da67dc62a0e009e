"""Write metrics/robustness.json, which the report page shows, from metrics/drift (`make drift`).

`make drift` runs beside the pipeline, so it says of which test images and thresholds it is.
"""

import json
from pathlib import Path

from blackswan.data.dataset import Split
from blackswan.drift.robustness import summarise
from blackswan.errors import explained
from blackswan.evaluation.model import fingerprint
from blackswan.outputs import write_json

DRIFTS, RESULT = Path("metrics/drift"), Path("metrics/robustness.json")
DATASET, METRICS = Path("data/dataset"), Path("metrics/detectors")


def main() -> None:
    """Sum up what was measured of each detector that is compared."""
    summary = summarise(DRIFTS)
    images = fingerprint(Split(DATASET, "test").paths)
    compared = {}
    for name, found in summary["detectors"].items():
        measured = METRICS / f"{name}.json"
        if measured.exists():
            threshold = json.loads(measured.read_bytes())["threshold"]
            compared[name] = found | {"test_images": images, "threshold": threshold}
    write_json(RESULT, summary | {"detectors": compared})


if __name__ == "__main__":
    explained(main)
