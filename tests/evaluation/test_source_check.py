"""What is said of a source in seconds is what the stages would find in it."""

import subprocess
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT, SHARED, draw_nail

from blackswan.data.images import write_png
from blackswan.errors import InputError
from blackswan.evaluation import source_check
from blackswan.evaluation.source_check import check

PARAMS = ROOT / "params.yaml"
CASES = SHARED / "cases"


def write(path, size=(40, 60), value=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def said(path, params=PARAMS):
    """Return the lines on a source, and the sentence that they end in."""
    lines = []
    try:
        lines.extend(check(path, params))
    except InputError as error:
        return lines, str(error)
    return lines, ""


def test_what_the_source_itself_is_refused_for_takes_no_torch():
    """It takes seconds to import, and a wrong folder should be named at once."""
    code = (
        "import sys, blackswan.cli, blackswan.evaluation.source_check\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_source_that_has_all_it_needs(tmp_path):
    for number in range(100):
        write(tmp_path / f"normal/{number:02d}.png")
    for name in ("dent/0.png", "dent/1.png", "hole/0.png"):
        write(tmp_path / "anomaly" / name, size=(50, 50))
    lines, error = said(tmp_path)
    assert lines == [
        f"{tmp_path}: 103 photos",
        "  normal    100",
        "  anomalous 3 (dent: 2, hole: 1)",
        "  masks     0",
        "  size      50 x 50: 3, 60 x 40: 100",
        "  bits      8: 103",
        "  taken     crop none, size 224 x 224",
        f"  numbered  {tmp_path.name}/normal/*: 100 numbered photos, neighbours 0 grey levels "
        "apart, others 0, neighbours nearer in 50%: separate photos (split.sequences: true if they "
        "are frames of one video)",
        "  splits    train 55, validation 20, test 25 normal; test 3 anomalous",
        "  support   every detector and evaluate.alpha have as many images as they ask for",
    ]
    assert error == ""


def test_pairs_of_shots_are_told_to_lose_some_defects(tmp_path):
    for number in range(100):
        for kind in ("normal", "anomaly"):
            write(tmp_path / f"{kind}/part{number}.png", size=(40, 40))
    params = tmp_path / "params.yaml"
    written = PARAMS.read_text().replace("group_pattern: ''", "group_pattern: 'part(\\d+)'")
    params.write_text(written)
    lines = list(check(tmp_path, params))
    assert "  splits    train 55, validation 20, test 25 normal; test 25 anomalous" in lines
    assert any(line.startswith("  left out  75 anomalous images are left out") for line in lines)


@pytest.fixture
def numbered(tmp_path):
    """A hundred photos that slide over one texture, as a camera numbers the frames of a video."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 300, 3)).astype(np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 3)
    for number in range(100):
        view = texture[:, 2 * number : 2 * number + 60]
        cv2.imwrite(str(tmp_path / f"name_{number:04d}.png"), view)
    return tmp_path


def test_numbered_frames_of_one_video_are_told_as_the_run_does(numbered, monkeypatch):
    lines, _ = said(numbered)
    [line] = [line for line in lines if line.startswith("  numbered  ")]
    assert line.startswith(f"  numbered  {numbered.name}/name_*: 100 numbered photos, neighbours ")
    assert line.endswith("(split.sequences: false if not)")
    # 100 frames at 25 a second: blocks of 5, borders at 55 and 75; 2 before and 3 after go.
    assert "  splits    train 53, validation 15, test 22 normal; test 0 anomalous" in lines
    monkeypatch.setattr(source_check, "SECONDS", 0)
    lines, _ = said(numbered)
    assert [line for line in lines if line.startswith("  numbered  not looked at: more than")]
    assert "  splits    train 55, validation 20, test 25 normal; test 0 anomalous" in lines


def test_numbered_photos_of_which_some_are_broken(numbered):
    (numbered / "name_0050.png").write_bytes(b"")
    lines, error = said(numbered)
    assert "  numbered  not looked at, for some are broken; taken for separate photos" in lines
    assert error.startswith("1 of 100 images of")


def test_what_is_too_few_and_what_is_broken_are_said_after_the_counts(tmp_path):
    for number in range(12):
        write(tmp_path / f"{number:02d}.png")
    lines, error = said(tmp_path)
    assert lines[-1] == "  splits    train 7, validation 2, test 3 normal; test 0 anomalous"
    assert error.startswith("too few images: detectors.dino_memory.references = 16 needs")
    (tmp_path / "03.png").write_bytes(b"no image")
    (tmp_path / "07.png").write_bytes(b"")
    lines, error = said(tmp_path)
    assert error.startswith(f"2 of 12 images of {tmp_path} cannot be taken; replace or remove")
    assert "too few images" in error
    broken = [line for line in lines if line.startswith("  broken    ")]
    assert ["03.png" in broken[0], "07.png" in broken[1]] == [True, True]
    assert len(broken) == 2


def test_a_normal_photo_without_a_pose_is_named(tmp_path):
    for number in range(20):
        write_png(tmp_path / f"parts/{number:02d}.png", draw_nail(9 * number))
    write_png(tmp_path / "parts/flat.png", np.full((128, 128, 3), 90, np.uint8))
    params = yaml.safe_load(PARAMS.read_text())
    params["extract_frames"]["pose"] = "upright"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    lines, error = said(tmp_path / "parts", tmp_path / "params.yaml")
    assert error.startswith("1 of 21 images of")
    assert [line for line in lines if "broken" in line and "on flat no part stands out" in line]


def test_a_clip_that_takes_longer_is_left_off(drawn_clip, monkeypatch):
    monkeypatch.setattr(source_check, "SECONDS", -1.0)
    lines, error = said(drawn_clip)
    assert lines[0].endswith(" 0 frames and more, of which the first were decoded")
    assert lines[-1] == "  splits    not looked at: more frames than can be decoded in seconds"
    assert error == ""


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("broken", "3 of 20 images of"),
        ("concrete_crack", "Negative (8), Positive (8); set extract_frames.folder.normal"),
        ("flat_test", "too few images"),
        ("inverted", "no param names: masks (4)"),
        ("ksdd", "no param names: kos00 (6)"),
        ("loco", "set extract_frames.category to one of juice"),
        ("masksjpg", "no param names: masks (4)"),
        ("some_masks", "no param names: masks (3)"),
        ("twelve", "evaluate.alpha=0.333334"),
        ("video/static10s.mp4", ""),
        ("video/corrupt_mid.mp4", ""),
    ],
)
def test_what_is_wrong_with_each_case_is_said(case, words):
    assert words in said(CASES / case)[1]


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("flat_test", "left out 4 test images without a label"),
        pytest.param(
            "heic",
            "left out ",
            marks=pytest.mark.skipif(
                find_spec("pillow_heif") is not None, reason="HEIC is read with the extra"
            ),
        ),
        ("no_test_good", "has no normal test images"),
        ("png12in16", "are read as 12 bits"),
        ("side_defect_nomask", "10 of 10 photos are not square"),
        ("video/corrupt_mid.mp4", "25 frames are damaged"),
        ("video/joined_ts_named.mp4", "the clock steps back or stands still at 1 frames"),
    ],
)
def test_what_is_odd_in_a_case_is_told(case, words, capsys):
    said(CASES / case)
    assert words in capsys.readouterr().err
