"""What laying screws alike does for PaDiM, whose Gaussians belong to positions.

    python benchmarks/screw/pose.py ../shared/data/mvtec/screw

PaDiM's and PatchCore's blocks of params.yaml on all normal train images, as they lie and with
`extract_frames.pose: upright`; seeds move the features PaDiM draws and the first pick of
PatchCore's bank. The knobs of pose.py were set before the first run of this script, after a look at
the outlines of train and some test images and at no score. "upright, cropped" was added once the
results of "upright" had been seen; its box is the first that was tried. Writes
benchmarks/screw/pose.json.
"""

import sys
from pathlib import Path

sys.path.append("benchmarks")
from clip_thresholds import Frames
from measured import record
from patchcore import measure, screws

from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.detectors.interface import load_module
from blackswan.errors import InputError, run
from blackswan.outputs import write_json
from blackswan.params import load_section

RESULT = Path("benchmarks/screw/pose.json")
DETECTORS = ["padim", "patchcore"]
BOX = (64, 0, 128, 256)  # left, top, width, height: about an upright screw of 256 pixels
CHANGES = {
    "none": {},
    "upright": {},
    "upright, cropped": {"image_size": [448, 224]},  # twice as fine: the box is half as wide
}


def main() -> None:
    """Measure both detectors on both poses and write what came out."""
    if len(sys.argv) != 2:
        raise InputError("name the folder of screw: pose.py PATH")
    normals, test, labels = screws(Path(sys.argv[1]))
    found: dict[str, dict[str, object]] = {}
    for setting, changes in CHANGES.items():
        pose, _, cropped = setting.partition(", ")
        steps = [Step(crop=BOX, size=None)] if cropped else []
        prepare = Preprocessing(steps=steps, pose=pose)
        laid = [Frames(part.paths, [prepare(one) for one in part]) for part in (normals, test)]
        for name in DETECTORS:
            stated = load_section(load_module(name).Params, f"detectors.{name}")
            params = type(stated)(**stated.model_dump() | changes)
            found.setdefault(name, {})[setting] = measure(name, *laid, labels, params)
            print(name, setting, found[name][setting], flush=True)
            write_json(RESULT, found)
    record([str(RESULT.relative_to("benchmarks"))])


if __name__ == "__main__":
    run(main)
