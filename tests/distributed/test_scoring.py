"""Verdicts by Spark are those of this machine, byte for byte, and each image has one."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from blackswan import cli
from blackswan.data.images import write_png
from blackswan.errors import InputError
from blackswan.reporting import verdicts

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("spark"), pytest.mark.timeout(300)]

FILES = ["gallery.html", "verdicts.csv", "verdicts.parquet"]


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(31):
        size = (40, 48) if number % 5 else (44, 40)
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        write_png(tmp_path / f"photos/{number % 3}/{number}.png", image)
    return tmp_path / "photos"


def score(finished, photos, out, engine, gallery=True, share=0.0):
    model = finished.root / "data/detectors/padim"
    cli._score(model, photos, out, 0, gallery, share, engine, ignore=None, camera="")
    return [(out / name).read_bytes() for name in FILES if gallery or name != "gallery.html"]


def test_the_bytes_are_those_of_this_machine(spark, finished, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(verdicts, "PART", 4)
    local = score(finished, photos, tmp_path / "local", "local")
    assert score(finished, photos, tmp_path / "spark", "spark") == local
    pictures = [
        sorted(path.relative_to(tmp_path / name).as_posix()
               for path in (tmp_path / name / "overlays").rglob("*.png"))
        for name in ("local", "spark")
    ]  # fmt: skip
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("goes_on_by", ["spark", "local"])
def test_a_killed_worker_leaves_each_image_with_one_verdict(
    spark, finished, photos, tmp_path, monkeypatch, kill_a_worker, goes_on_by
):
    monkeypatch.setattr(verdicts, "PART", 1)
    whole = score(finished, photos, tmp_path / "whole", "local", gallery=False)
    out = tmp_path / "out"
    kill_a_worker(out / verdicts.PARTS, "*.parquet")
    with pytest.raises(InputError, match="a process of Spark died"):
        score(finished, photos, out, "spark", gallery=False)
    before = {path: path.stat().st_mtime_ns for path in (out / verdicts.PARTS).glob("*.parquet")}
    assert 0 < len(before) < 31
    with monkeypatch.context() as kept:
        kept.setattr(verdicts.shutil, "rmtree", lambda *arguments, **options: None)
        assert score(finished, photos, out, goes_on_by, gallery=False) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before  # scored once
    names = pd.read_parquet(out / "verdicts.parquet").path
    assert sorted(names) == sorted(f"{number % 3}/{number}.png" for number in range(31))


def test_a_broken_photo_ends_in_one_sentence(spark, finished, photos, tmp_path):
    (photos / "1/7.png").write_bytes(b"no image")
    for engine in ("local", "spark"):
        with pytest.raises(InputError, match=r"^\S+/photos/1/7.png is empty, corrupt"):
            score(finished, photos, tmp_path / engine, engine)
    tables = []
    for engine in ("local", "spark"):
        out = tmp_path / f"most by {engine}"
        tables.append(score(finished, photos, out, engine, share=0.04))
        tables[-1].append((out / "quarantine.csv").read_bytes())
    assert tables[0] == tables[1]
    assert tables[0][-1].startswith(b"path,reason\n1/7.png,")


def test_video_is_for_this_machine(finished, tmp_path):
    clip = finished.root / "data/raw/clip.avi"
    with pytest.raises(InputError, match=r"--engine spark scores photos, which .*clip.avi is not"):
        score(finished, clip, tmp_path / "out", "spark")


def test_the_command_opens_and_ends_its_own_session(finished, photos, tmp_path):
    pytest.importorskip("pyspark")
    program = "from blackswan.cli import app; app()"
    words = ["score", str(finished.root / "data/detectors/padim"), "photos", "--engine", "spark"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" of 31 images flagged; see verdicts\n")
