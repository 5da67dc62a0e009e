"""An export runs without torch, and says what is wrong with it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from small_detectors import PHOTO, PREPARED, draw_photo

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from blackswan.data.images import write_png
from blackswan.errors import InputError
from blackswan.evaluation import model as complete
from blackswan.export import exporting, runtime
from blackswan.tracking.runs import dvc_hash

# What a serving install does not have; see docker/serve.txt.
ABSENT = [
    "accelerate", "av", "dvc", "dvc_data", "jinja2", "matplotlib", "mlflow", "onnx", "openvino",
    "pandas", "psutil", "pyarrow", "rich", "safetensors", "scipy", "sklearn", "torch", "tqdm",
    "transformers", "typer",
]  # fmt: skip
WITHOUT = f"""
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from pathlib import Path
"""
SCORE = f"""{WITHOUT}
from blackswan.data.images import read_image
from blackswan.export.runtime import load
model = load(Path(sys.argv[1]))
found = model.score([read_image(Path(sys.argv[2]))])
print(json.dumps([
    found.image_scores.tolist(), found.p_values.tolist(), found.flagged.tolist(), found.threshold,
    found.anomaly_maps[0].shape,
]))
"""
SERVE = f"""{WITHOUT}
import io
from blackswan.serving.app import Service
from blackswan.serving.detectors import load_detector, open_source
from blackswan.serving.scorer import Upload
import blackswan.serving.__main__
service = Service(load_detector(open_source(sys.argv[1])))
content = Path(sys.argv[2]).read_bytes()
[future] = service.scorer.judge([Upload(lambda: io.BytesIO(content), "a.png")])
print(json.dumps([float(future.result().found.image_scores[0]), future.result().confidence]))
service.close()
"""


@pytest.fixture(scope="module")
def folder(complete_of, dataset, tmp_path_factory):
    """An export of the baseline; read only."""
    out = tmp_path_factory.mktemp("exports") / "median_residual"
    photos = exporting.Photos(PHOTO, [draw_photo(200)])
    exporting.export(complete_of("median_residual"), out, "onnx", dataset, photos, int8=False)
    return out


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_scores_without_torch_as_the_detector_with_it(complete_of, folder, tmp_path):
    photo = draw_photo(201, stain=True)
    write_png(tmp_path / "a.png", photo)
    expected = complete.load(complete_of("median_residual")).score([photo])
    scores, p_values, flagged, threshold, shape = run(SCORE, folder, tmp_path / "a.png")
    assert scores == pytest.approx(expected.image_scores.tolist(), rel=1e-5)
    assert (p_values, flagged) == (expected.p_values.tolist(), expected.flagged.tolist())
    assert (threshold, shape) == (expected.threshold, [64, 64])


def test_it_is_served_without_torch(complete_of, folder, tmp_path):
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    photo = draw_photo(201, stain=True)
    write_png(tmp_path / "a.png", photo)
    [expected] = complete.load(complete_of("median_residual")).score([photo]).image_scores
    score, confidence = run(SERVE, folder, tmp_path / "a.png")
    assert score == pytest.approx(expected, rel=1e-5)
    assert confidence > 0.5


def test_a_service_knows_it_by_its_files(folder):
    pytest.importorskip("fastapi")
    from blackswan.serving.detectors import load_detector, open_source

    found = load_detector(open_source(str(folder)))
    assert (found.name, found.hash) == ("median_residual", dvc_hash(folder))


def test_a_photo_may_be_prepared_by_the_graph_or_before(folder):
    model, photos = runtime.load(folder), [draw_photo(number) for number in (1, 2)]
    itself = model.detector.score(photos)
    before = model.detector.score([PREPARED(photo) for photo in photos])
    assert np.array_equal(itself.image_scores, before.image_scores)
    assert np.array_equal(itself.anomaly_maps, before.anomaly_maps)
    with pytest.raises(InputError, match="takes images of 64 x 64 or 90 x 70 pixels, not 70 x 90"):
        model.detector.score([photos[0].swapaxes(0, 1)])


def test_a_photo_of_another_size_is_no_part_of_one(folder):
    run_graph = runtime.load(folder).detector._run
    with pytest.raises(Exception, match="(?i)expand|shape"):
        run_graph(np.zeros((1, PHOTO[0] + 8, PHOTO[1], 3), np.uint8))


def test_it_is_copied_whole(folder, tmp_path):
    runtime.load(folder).detector.save(tmp_path)
    assert runtime.load(tmp_path).facts == runtime.load(folder).facts
    content = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content[:-1])
    with pytest.raises(InputError, match=r"model\.onnx is not whole; copy the export again"):
        runtime.load(tmp_path)
    (tmp_path / "export.json").write_text("{}")
    with pytest.raises(InputError, match=r"export\.json: \w+ is missing"):
        runtime.load(tmp_path)


def test_what_is_missing_to_run_it_is_named(complete_of, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs onnxruntime; pip install it"):
        runtime.load(folder)
    with pytest.raises(InputError, match="needs torch, which is not installed; name what"):
        runtime.load(complete_of("median_residual"))
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/export.json").unlink()
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"is no complete model, it has no model\.json"):
        runtime.load(tmp_path / "copy")
