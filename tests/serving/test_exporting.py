"""Decisions become corrections of data/frames, and new images files of the source."""

import shutil

import numpy as np
import pytest
import yaml
from conftest import ROOT, Project, draw_part
from typer.testing import CliRunner

from blackswan import cli
from blackswan.data.images import encode_png, write_png
from blackswan.data.known import sha256_of
from blackswan.data.records import read_index
from blackswan.serving.decisions import Decision, Decisions


def keep(decisions, content, label, defect="", name="part.png"):
    sha256 = sha256_of(content)
    latest = decisions.latest(sha256)
    one = Decision(
        id=0, sha256=sha256, version=0, camera="line1", name=name, user="anna", time="",
        detector="padim", detector_hash="h", score=1.0, p_value=0.5, verdict="normal", label=label,
        defect=defect, note="",
    )  # fmt: skip
    return decisions.keep(one, content, latest.version if latest else 0)


@pytest.fixture
def project(tmp_path, small_params, monkeypatch):
    """A project whose source has twelve normal photos and three scratches, extracted."""
    project, rng = Project(tmp_path), np.random.default_rng(0)
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    for number in range(15):
        defect = "scratch" if number > 11 else None
        folder = "anomaly/scratch" if defect else "normal"
        write_png(tmp_path / f"data/raw/{folder}/{number:02d}.png", draw_part(rng, defect)[0])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small_params))
    project.set(source__path="data/raw", extract_frames__folder__normal="normal")
    project.run("extract_frames")
    monkeypatch.chdir(tmp_path)
    return project


def export(*options):
    result = CliRunner().invoke(cli.app, ["decisions", "export", "kept", *options])
    return result.output if result.exit_code == 0 else str(result.exception)


def test_decisions_come_back_as_labels(project):
    root = project.root
    decisions = Decisions(root / "kept")
    photo, scratch = root / "data/raw/normal/03.png", root / "data/raw/anomaly/scratch/12.png"
    frame = root / "data/frames/images/normal/05.png"
    new = encode_png(draw_part(np.random.default_rng(7))[0])
    odd = encode_png(draw_part(np.random.default_rng(8), "hole")[0])
    keep(decisions, photo.read_bytes(), "normal")
    kept = keep(decisions, photo.read_bytes(), "anomalous", "dent")
    keep(decisions, scratch.read_bytes(), "normal")
    keep(decisions, frame.read_bytes(), "normal")
    keep(decisions, new, "normal")
    keep(decisions, odd, "anomalous", "hole")
    decisions.close()
    assert export() == (
        "data/corrections.csv: 3 images of data/frames; left out, for data/frames does not hold "
        "them: 1 anomalous, 1 normal; --add-images copies them to data/raw\n"
    )
    rows = (root / "data/corrections.csv").read_text().splitlines()
    assert rows[1].startswith("images/anomaly/scratch/12.png,normal,,anna,")
    assert rows[2] == f"images/normal/03.png,anomalous,dent,anna,{kept.time}"
    assert rows[3].startswith("images/normal/05.png,normal,,anna,")

    assert export("--add-images").endswith(
        "added to data/raw: 1 anomalous, 1 normal; run `dvc repro`\n"
    )
    assert (root / f"data/raw/normal/{sha256_of(new)}.png").read_bytes() == new
    assert (root / f"data/raw/anomaly/hole/{sha256_of(odd)}.png").read_bytes() == odd
    assert "2 of data/raw that no run has read yet: export again after it" in export()
    for stage in ("extract_frames", "synthesize_anomalies", "label"):
        project.run(stage)
    labels = {
        record.image: (record.label, record.defect)
        for record in read_index(root / "data/labels.csv")
    }
    assert labels["frames/images/normal/03.png"] == ("anomalous", "dent")
    assert labels["frames/images/anomaly/scratch/12.png"] == ("normal", "")
    assert labels[f"frames/images/normal/{sha256_of(new)}.png"] == ("normal", "")
    assert labels[f"frames/images/anomaly/hole/{sha256_of(odd)}.png"] == ("anomalous", "hole")
    made = [image for image in labels if image.startswith("anomalies/")]
    assert made
    assert not any("normal/03" in image for image in made)  # what is anomalous has no copies
    assert export() == "data/corrections.csv: 5 images of data/frames\n"


def test_what_cannot_be_exported_is_said(project):
    assert export().startswith("error: kept holds no decisions.sqlite; name the folder of")
    decisions = Decisions(project.root / "kept")
    keep(decisions, encode_png(np.zeros((16, 16, 3), np.uint8)), "normal")
    decisions.close()
    project.set(extract_frames__folder__normal="*/OK")
    assert "does not say where a normal photo of data/raw lies" in export("--add-images")
    (project.root / "clip.avi").touch()
    project.set(source__path="clip.avi")
    assert export().endswith(
        "1 normal; clip.avi takes no photos, a folder of photos as source.path would\n"
    )
