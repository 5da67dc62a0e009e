"""A drawn clip, a drawn MVTec-style tree, and a tiny project in which the real stages run."""

# ruff: noqa: E402
import os

# Before torch is imported: who forks has no use for its threads, and small sums need none.
os.environ["OMP_NUM_THREADS"] = "1"

import copy
import io
import runpy
import shutil
import signal
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_weights import write_weights

from blackswan.data.images import write_png
from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.detectors import median_residual
from blackswan.evaluation.model import Facts, Model, Scale

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / "../shared/data"
CHAIN = ["extract_frames", "synthesize_anomalies", "label", "build_dataset"]
SMALL = {
    "source.path": "data/raw/clip.avi",
    "extract_frames.size": 32,
    "build_dataset.image_size": 32,
    "build_dataset.rows_per_shard": 20,
    "split.train": 0.5,
    "split.validation": 0.25,
    "split.guard_seconds": 0.06,
    "synthesize_anomalies.unseen": ["perlin_texture", "cut_paste"],
    "evaluate.alpha": 0.2,
}


class Project:
    """A folder with params.yaml and data/, in which stage scripts run as `dvc repro` runs them."""

    def __init__(self, root):
        self.root = root

    def set(self, **changes):
        """Change params; `__` stands for the dot, a value of ... removes the key."""
        params = yaml.safe_load((self.root / "params.yaml").read_text())
        for key, value in changes.items():
            *blocks, name = key.replace("__", ".").split(".")
            block = params
            for part in blocks:
                block = block[part]
            if value is ...:
                del block[name]
            else:
                block[name] = value
        (self.root / "params.yaml").write_text(yaml.safe_dump(params))

    def run(self, stage, *arguments):
        """Run a stage in this process and return what it printed."""
        script = f"stages/{stage}.py"
        before, sys.argv = sys.argv, [script, *arguments]
        printed = io.StringIO()
        try:
            with chdir(self.root), redirect_stdout(printed):
                runpy.run_path(script, run_name="__main__")
        finally:
            sys.argv = before
        return printed.getvalue()

    def refuse(self, stage, *arguments):
        """Run a stage that must end in one sentence and change nothing; return the sentence."""
        earlier = self.outputs()
        with pytest.raises(SystemExit) as ended:
            self.run(stage, *arguments)
        message = ended.value.code
        assert isinstance(message, str)  # sys.exit prints it to stderr and the exit code is 1
        assert message.startswith("error: ")
        assert "\n" not in message
        assert self.outputs() == earlier
        return message

    def run_chain(self):
        for stage in CHAIN:
            self.run(stage)

    def outputs(self, *folders):
        """Return the bytes of every file below some folders, else of all that the stages write."""
        files = {}
        for folder in folders or ("data", "metrics"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_file() and (folders or "raw" not in path.relative_to(self.root).parts):
                    files[path.relative_to(self.root).as_posix()] = path.read_bytes()
        return files


class Pictures(list):
    """Images that know their paths, as those of a split do."""

    @property
    def paths(self):
        return [f"{number}.png" for number in range(len(self))]

    @property
    def sizes(self):
        return [image.shape[:2] for image in self]

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return Pictures(found) if isinstance(key, slice) else found


def draw_nail(
    degrees, *, shift=(0, 0), length=70, background=200, colour=(90, 60, 40), size=(128, 128)
):
    """A nail on a plain ground: a long shaft with a wide head, turned about the middle."""
    canvas = np.full((*size, 3), background, np.uint8)
    middle = size[1] // 2, size[0] // 2
    top = middle[1] - length // 2
    cv2.rectangle(canvas, (middle[0] - 3, top), (middle[0] + 3, top + length), colour, -1)
    cv2.rectangle(canvas, (middle[0] - 12, top), (middle[0] + 12, top + 14), colour, -1)
    turn = cv2.getRotationMatrix2D(middle, degrees, 1.0)
    turn[:, 2] += shift
    return cv2.warpAffine(
        canvas, turn, size[::-1], borderValue=(background,) * 3, flags=cv2.INTER_CUBIC
    )


def draw_clip(path, frames=40, size=(48, 40), fps=20, codec="MJPG"):
    """Write a clip in which a bright disc moves over a texture that drifts."""
    rng = np.random.default_rng(1)
    width, height = size
    texture = cv2.GaussianBlur(rng.integers(0, 256, (200, 400, 3)).astype(np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 20, 200, cv2.NORM_MINMAX)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
    assert writer.isOpened()
    for frame in range(frames):
        image = texture[frame : frame + height, 4 * frame : 4 * frame + width].copy()
        cv2.circle(image, (frame % width, height // 2), 6, (240, 230, 20), -1)
        writer.write(image)
    writer.release()
    return path


def draw_part(rng, defect=None, size=32):
    """Return an image of a round part and the mask of its defect."""
    image = np.full((size, size, 3), 60, np.uint8)
    center = tuple(int(value) for value in rng.integers(size // 2 - 4, size // 2 + 4, 2))
    cv2.circle(image, center, size // 3, (150, 160, 170), -1)
    image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((size, size), np.uint8)
    if defect:
        x, y = rng.integers(size // 4, size // 2, 2)
        mask[y : y + 5, x : x + {"scratch": 9, "hole": 5, "stain": 3}[defect]] = 255
        image[mask > 0] = {"scratch": 255, "hole": 0, "stain": 220}[defect]
    return image, mask


def make_model(size=16):
    """A complete model of the baseline, whose threshold is 5."""
    facts = Facts(
        detector="median_residual",
        alpha=0.2,
        threshold=5.0,
        threshold_from="4 images",
        heatmap=Scale(threshold=1, top=20),
        preprocessing=Preprocessing(steps=[Step(crop="none", size=size)]),
        data_sha256="0" * 64,
    )
    detector = median_residual.Detector(median_residual.Params(kernel=3, blur=3))
    return Model(detector, facts, [np.array([1, 2, 3, 4])])


@pytest.fixture
def photos(tmp_path):
    """Ten flat photos, of which the fourth and the eighth have specks."""
    rng = np.random.default_rng(0)
    for number in range(10):
        image = np.full((16, 16, 3), 100, np.uint8)
        if number in (3, 7):
            image[rng.integers(4, 12, 6), rng.integers(4, 12, 6)] = 255
        write_png(tmp_path / f"parts/{number % 2}/{number}.png", image)
    return tmp_path / "parts"


@pytest.fixture(scope="session")
def drawn_clip(tmp_path_factory):
    """A clip of 40 frames, 2 seconds; read only."""
    return draw_clip(tmp_path_factory.mktemp("clip") / "clip.avi")


@pytest.fixture(scope="session")
def mvtec_tree(tmp_path_factory):
    """An MVTec-style tree with 16 + 4 normal parts and three kinds of defects; read only."""
    root, rng = tmp_path_factory.mktemp("mvtec") / "washer", np.random.default_rng(2)
    kinds = {"train/good": 16, "test/good": 4, "test/scratch": 3, "test/hole": 2, "test/stain": 2}
    for folder, count in kinds.items():
        defect = folder.split("/")[1].replace("good", "")
        for number in range(count):
            image, mask = draw_part(rng, defect)
            path = root / folder / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            if defect:
                path = root / "ground_truth" / defect / f"{number:03d}_mask.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
    return root


@pytest.fixture(scope="session")
def small_params():
    """The repository's params.yaml with small sizes."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in SMALL.items():
        *blocks, name = key.split(".")
        block = params
        for part in blocks:
            block = block[part]
        assert name in block, key
        block[name] = copy.copy(value)
    tiny = {"backbone": "tiny", "layers": [1, 2], "image_size": 56, "features": 8}
    params["detectors"] = {"padim": params["detectors"]["padim"] | tiny}
    params["embed_defects"] |= {"detector": "padim", "backbone": "tiny", "layers": [2]}
    params["embed_defects"]["image_size"] = 56
    params["compare"]["references"] = {"median_residual": ""}
    return params


@pytest.fixture(scope="session")
def finished(tmp_path_factory, drawn_clip, small_params):
    """A project after every stage of padim and the baseline; read only."""
    project = Project(tmp_path_factory.mktemp("finished"))
    # Copied, for a stage that runs locks its script.
    shutil.copytree(ROOT / "stages", project.root / "stages")
    (project.root / "data/raw").mkdir(parents=True)
    shutil.copy(drawn_clip, project.root / "data/raw/clip.avi")
    (project.root / "params.yaml").write_text(yaml.safe_dump(small_params))
    project.run_chain()
    write_weights(project.root / "data/weights/tiny", "dinov2")
    project.run("fit_baseline")
    project.run("fit_detector", "padim")
    for name in ("padim", "median_residual"):
        project.run("evaluate_detector", name)
    return project


@pytest.fixture
def tiny_project(finished, tmp_path):
    """A copy of the finished project, to be changed."""
    shutil.copytree(finished.root, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def shared_videos():
    """The folder of real clips, where there is one."""
    if not (SHARED / "video").is_dir():
        pytest.skip("no ../shared/data/video")
    return SHARED / "video"
