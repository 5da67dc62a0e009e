"""`blackswan propose-labels` from images to corrections and a report."""

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, make_model
from drawn_proposals import NORMAL, SCRATCH, answering, completion
from typer.testing import CliRunner

from blackswan import cli
from blackswan.proposals.table import read_proposals

PRICES = ["--price-in", "2", "--price-out", "8", "--budget", "1"]


@pytest.fixture
def folder(tmp_path, photos, monkeypatch):
    """A folder with photos, three of them different, and a model in reach."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "load", lambda _: make_model())
    return tmp_path


def run(command, *options):
    result = CliRunner().invoke(cli.app, ["propose-labels", command, *map(str, options)])
    return result.output if result.exit_code == 0 else str(result.exception)


def ask(*options):
    return run("ask", "model", "parts", "--model", "gpt", *PRICES, *options)


def test_a_dry_run_needs_no_key_no_extra_and_no_yes(folder, monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda _: None)
    printed = ask("--dry-run", "dry", "--images", "4", "--sample")
    count = len(list((folder / "dry").iterdir()))
    request = json.loads((folder / "dry/0001/request.json").read_text())
    assert request["messages"][0]["content"].startswith("You help a person")
    assert 1 <= count <= 3
    assert printed.startswith(f"{count} images, at most 0.0")
    assert printed.endswith("; see dry\n")
    assert not (folder / "data").exists()


def test_a_missing_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda _: None)
    assert ask() == "error: language models need the extra `llm`; pip install -e '.[llm]'"


def test_a_dry_run_replaces_nothing_of_others(folder):
    (folder / "mine").mkdir()
    (folder / "mine/notes.txt").write_text("mine")
    assert ask("--dry-run", "mine").startswith("error: mine holds other files; name another folder")
    assert (folder / "mine/notes.txt").read_text() == "mine"
    first = ask("--dry-run", "dry", "--images", "1")
    assert first.startswith("1 images, at most ")
    assert ask("--dry-run", "dry", "--images", "1") == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "inf"], "error: --budget, --price-in and --price-out take numbers"),
        (["--defect", "none"], "error: 'none' cannot be a type of defect"),
        (["--defect", "hole", "--defect", "hole"], "error: 'hole' cannot be a type of defect"),
        (["--prompt", "nowhere.txt"], "error: nowhere.txt is no text file in UTF-8"),
    ],
)
def test_what_cannot_be_asked_is_said(folder, options, message):
    assert ask("--dry-run", "dry", *options).startswith(message)


def test_images_leave_the_machine_with_leave_alone(folder, monkeypatch):
    pytest.importorskip("openai")
    assert ask().startswith("error: OPENAI_API_KEY is not set")
    monkeypatch.setenv("OPENAI_API_KEY", "word")
    assert ask("--images", "3") == (
        "error: crop, image and heatmap of up to 3 images leave this machine, for api.openai.com; "
        "--yes allows it"
    )
    assert not (folder / "data").exists()


def test_from_images_to_a_report(folder):
    pytest.importorskip("openai")
    with answering(completion(NORMAL), completion(SCRATCH)) as (url, requests):
        options = ["--base-url", url, "--defect", "scratch", "--images", "10"]
        printed = ask(*options)
        assert printed == (
            "3 proposed, 0 disputed, 0 abstained, 0 asked before; 0.0066 spent in all; "
            "see data/proposals.csv\n"
        )
        assert len(requests) == 3
        again = ask(*options)
        assert again.startswith("0 proposed, 0 disputed, 0 abstained, 3 asked before")
        assert len(requests) == 3
    rows = read_proposals(folder / "data/proposals.csv")
    assert len({one.sha256 for one in rows}) == 3
    assert run("review") == (
        "data/review.csv: 3 images, 3 of them new; fill in label, defect and reviewer\n"
    )
    labels = "".join(f"{one.image},{one.label}\n" for one in rows)
    (folder / "labels.csv").write_text(f"image,label\n{labels}")
    printed = run("report", "labels.csv")
    assert printed.startswith(f"gpt, {rows[0].prompt}: kappa 1.00 [1.00, 1.00] on 3 images, 0 of 3")
    found = json.loads((folder / "metrics/proposals.json").read_text())
    assert found["by"][0]["right"] == 3
    before = (folder / "metrics/proposals.json").read_bytes()
    run("report", "labels.csv")
    assert (folder / "metrics/proposals.json").read_bytes() == before


def test_a_confirmed_frame_is_a_correction(folder):
    (folder / "params.yaml").write_text("source:\n  path: parts\n")
    frames = folder / "data/frames"
    frames.mkdir(parents=True)
    (folder / "parts").rename(frames / "images")
    (folder / "parts").mkdir()
    (frames / "index.csv").write_text(
        "image,source,timestamp_s,group,split,label,defect,mask\nimages/1/3.png,parts,,,,,,\n"
    )
    pytest.importorskip("openai")
    with answering(completion(NORMAL)) as (url, _):
        run("ask", "model", frames / "images", "--model", "gpt", *PRICES, "--base-url", url)
    run("review")
    review = folder / "data/review.csv"
    lines = review.read_text().splitlines()
    signed = [
        "1/3.png,anomalous,speck,anna," if line.startswith("1/3.png") else line for line in lines
    ]
    review.write_text("\n".join(signed) + "\n")
    assert run("confirm") == ("data/corrections.csv: 1 images of data/frames; 2 have no reviewer\n")
    [_, row] = (folder / "data/corrections.csv").read_text().splitlines()
    assert row.startswith("images/1/3.png,anomalous,speck,anna,20")


@pytest.mark.slow
def test_a_run_that_is_killed_sends_no_image_twice(finished, tmp_path):
    pytest.importorskip("openai")
    running = []

    def kills(_body):
        os.kill(running[-1].pid, signal.SIGKILL)
        return completion(NORMAL)

    def start(url):
        words = [
            sys.executable, "-c", "from blackswan.cli import app; app()", "propose-labels", "ask",
            "data/detectors/median_residual", "data/frames/images", "--model", "gpt", *PRICES,
            "--images", "6", "--base-url", url, "--out", tmp_path / "proposals.csv",
        ]  # fmt: skip
        running.append(
            subprocess.Popen(
                [*map(str, words)],
                cwd=finished.root,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
        )
        return running[-1].communicate()

    good = completion(NORMAL)
    with answering(good, good, kills, good) as (url, requests):
        start(url)
        assert running[-1].returncode == -signal.SIGKILL
        printed, errors = start(url)
        assert running[-1].returncode == 0, errors
    bodies = {json.dumps(body) for body, _ in requests}
    assert len(bodies) == len(requests) == 6
    rows = read_proposals(tmp_path / "proposals.csv")
    assert [row.status == "abstained" for row in rows] == [False, False, True, False, False, False]
    assert "3 asked before" in printed
