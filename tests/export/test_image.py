"""The steps of the image that serves an export, without a Docker daemon."""

import json
import re
import subprocess
import sys
import time
from urllib.request import urlopen

import pytest
from conftest import ROOT
from servers import free_port
from small_detectors import PHOTO, draw_photo

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from blackswan.export import exporting


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_steps_of_the_service_image_in_a_clean_environment(complete_of, dataset, tmp_path):
    exported, place = tmp_path / "exported", tmp_path / "opt"
    photos = exporting.Photos(PHOTO, [draw_photo(200)])
    exporting.export(complete_of("median_residual"), exported, "onnx", dataset, photos, int8=False)
    text = (ROOT / "docker/serve.Dockerfile").read_text()
    for step in re.findall(r"^RUN (.+)", text, flags=re.M):
        words = [sys.executable if word == "python" else word for word in step.split()]
        command = [word.replace("/opt/blackswan", str(place)) for word in words]
        subprocess.run(command, cwd=ROOT, check=True)
    port = str(free_port())
    changed = {"/detector": str(exported), "0.0.0.0": "127.0.0.1", "8000": port}
    last = json.loads(re.findall(r"^CMD (.+)", text, flags=re.M)[-1])
    command = [place / "bin/python", "-P", *(changed.get(word, word) for word in last[1:])]
    process = subprocess.Popen(command, cwd=tmp_path)
    try:
        ready = 0
        for _ in range(300):
            try:
                ready = urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).status
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        assert ready == 200
    finally:
        process.terminate()
        process.wait()
    assert not list(place.glob("lib/*/site-packages/torch"))
