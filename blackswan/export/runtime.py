"""A detector that was exported, run by ONNX Runtime or OpenVINO: no torch, the same answers.

What it imports is all that a serving install needs.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from blackswan.detectors.interface import Scores
from blackswan.errors import InputError
from blackswan.evaluation import model as complete
from blackswan.evaluation.model import Facts, Model
from blackswan.parallel import available_cores
from blackswan.params import Section, load_section

EXPORT = "export.json"
NORMALS = "normal_scores.json"  # of held-out normal images, one list a set; p-values count them
Runtime = Literal["onnx", "openvino"]
FILES: dict[Runtime, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
}
PACKAGES: dict[Runtime, str] = {"onnx": "onnxruntime", "openvino": "openvino"}
HAIR = 1e-5  # what rounding moves a score by is a tenth of this, a tolerated difference ten times
Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # images to scores, maps and maybe logits


class Parity(Section):
    """How far the graph is from the detector, on images from their encoded bytes."""

    images: int
    image_score: float  # the largest difference, see parity.py
    anomaly_map: float
    other_verdicts: int  # images flagged by one of the two


class Auroc(Section):
    """Image AUROC on validation, of the detector and of its graph in INT8."""

    detector: float
    graph: float


class Exported(Section):
    """What an export says of itself; the numbers are exact."""

    facts: Facts
    runtime: Runtime
    int8: bool
    probabilities: bool  # the image scores are probabilities
    size: tuple[int, int]  # height and width of prepared images, which the graph takes
    photo: tuple[int, int] | None  # of the photos that it takes as well, and prepares itself
    detector_md5: str  # of the folder it was made of, as DVC knows it
    files_sha256: dict[str, str]
    validation: Parity
    photos: Parity | None
    auroc: Auroc | None


class Graph:
    """A detector whose score is one graph."""

    def __init__(self, folder: Path, exported: Exported) -> None:
        self.folder, self.exported = folder, exported
        path = folder / FILES[exported.runtime][0]
        self._run = (_open_onnx if exported.runtime == "onnx" else _open_openvino)(path)

    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Score RGB images, uint8 (H, W, 3): prepared ones, or photos of the size it prepares.

        One at a time, so that none changes a bit of another. Raises InputError for another size.
        """
        known = (self.exported.size, self.exported.photo)
        for shape in {image.shape[:2] for image in images}:
            if shape not in known:
                raise InputError(
                    f"the graph of {self.folder} takes images of "
                    f"{' or '.join(f'{size[1]} x {size[0]}' for size in known if size)} pixels, "
                    f"not {shape[1]} x {shape[0]}; export it for photos of that size"
                )
        found = [self._run(np.ascontiguousarray(image)[None]) for image in images]
        scores, maps, *logits = (np.concatenate(part) for part in zip(*found, strict=True))
        return Scores(
            self._settled(scores), maps, self.exported.size,
            probabilities=self.exported.probabilities, logits=logits[0] if logits else None,
        )  # fmt: skip

    def _settled(self, scores: np.ndarray) -> np.ndarray:
        """Return the scores, of which those within a hair of the threshold are the threshold.

        It is the score of an image that set it, which must not be flagged by a last bit.
        """
        threshold = np.float32(self.exported.facts.threshold)
        scale = threshold * (1 - threshold) if self.exported.probabilities else abs(threshold)
        near = np.abs(scores - threshold) <= max(HAIR * scale, np.spacing(abs(threshold)))
        return np.where(near, threshold, scores)

    def save(self, folder: Path) -> None:
        """Copy the export into an existing folder."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


def is_export(folder: Path) -> bool:
    """Say whether a folder is what `blackswan export` wrote."""
    return (folder / EXPORT).exists()


def load(folder: Path) -> Model:
    """Read a detector, exported or as `dvc repro` wrote it; raises InputError where it is neither.

    An exported one needs the package of its runtime alone.
    """
    if not is_export(folder):
        if not find_spec("torch"):
            raise InputError(
                f"{folder} needs torch, which is not installed; name what `blackswan export` wrote"
            )
        return complete.load(folder)
    exported = load_section(Exported, "", folder / EXPORT)
    for name, expected in exported.files_sha256.items():
        if not (folder / name).is_file() or sha256(folder / name) != expected:
            raise InputError(f"{folder / name} is not whole; copy the export again")
    package = PACKAGES[exported.runtime]
    if not find_spec(package):
        raise InputError(
            f"{folder} needs {package}; pip install it, or `blackswan export` to another runtime"
        )
    sets = json.loads((folder / NORMALS).read_bytes())
    return Model(Graph(folder, exported), exported.facts, [np.array(part) for part in sets])


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})


def _open_openvino(path: Path) -> Run:
    import openvino

    # Else it may compute in 16 bits where the processor has them.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape([1, -1, -1, 3])  # what is known of a shape is planned once
    compiled = core.compile_model(model, "CPU", options)
    return lambda images: [found.copy() for found in compiled(images).values()]
