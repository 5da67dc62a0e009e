import shutil
from collections import Counter

import cv2
import numpy as np

from blackswan.data.images import read_image
from blackswan.data.records import COLUMNS, read_index

FRAMES = "data/frames"


def test_a_clip_becomes_one_png_per_frame_and_an_index(finished):
    frames = read_index(finished.root / FRAMES / "index.csv")
    assert [frame.image for frame in frames] == [
        f"images/clip/{number:06d}.png" for number in range(40)
    ]
    assert [frame.timestamp_s for frame in frames] == [round(n / 20, 6) for n in range(40)]
    assert {(f.source, f.label, f.defect, f.mask, f.split, f.group) for f in frames} == {
        ("clip.avi", "normal", "", "", "", "")
    }
    assert sorted(finished.outputs(FRAMES)) == sorted(
        [f"{FRAMES}/index.csv", *(f"{FRAMES}/{frame.image}" for frame in frames)]
    )
    header = (finished.root / FRAMES / "index.csv").read_text().splitlines()[0]
    assert header == ",".join(COLUMNS)


def test_the_pixels_are_those_of_the_clip_in_rgb(finished):
    capture = cv2.VideoCapture(str(finished.root / "data/raw/clip.avi"))
    decoded = [capture.read()[1] for _ in range(40)]
    for number in (0, 17, 39):
        square = decoded[number][:, 4:44, ::-1]  # 48x40, the middle square is 40x40
        expected = cv2.resize(square, (32, 32), interpolation=cv2.INTER_AREA)
        found = read_image(finished.root / FRAMES / f"images/clip/{number:06d}.png")
        assert np.array_equal(found, expected)


def test_twice_the_same_bytes_and_nothing_left_over(tiny_project):
    before = tiny_project.outputs()
    assert tiny_project.run("extract_frames").splitlines() == [
        "clip.avi: 40 frames declared, 40 decoded, 40 taken",
        "40 frames from data/raw/clip.avi",
    ]
    assert tiny_project.outputs() == before
    assert sorted(path.name for path in (tiny_project.root / "data").iterdir()) == [
        "anomalies", "dataset", "frames", "labels.csv", "models", "raw", "scores", "weights",
    ]  # fmt: skip


def test_sampling_crop_and_size_are_params(tiny_project):
    tiny_project.set(
        extract_frames__crop=[8, 4, 24, 16],
        extract_frames__size=None,
        extract_frames__video__every_n_seconds=0.2,
        extract_frames__video__start_s=0.5,
        extract_frames__video__end_s=1.5,
        extract_frames__video__max_frames=4,
    )
    tiny_project.run("extract_frames")
    frames = read_index(tiny_project.root / FRAMES / "index.csv")
    assert [frame.timestamp_s for frame in frames] == [0.5, 0.7, 0.9, 1.1]
    assert frames[0].image == "images/clip/000010.png"
    image = read_image(tiny_project.root / FRAMES / frames[0].image)
    assert image.shape == (16, 24, 3)


def test_a_folder_of_videos(tiny_project):
    raw = tiny_project.root / "data/raw"
    shutil.copy(raw / "clip.avi", raw / "b.avi")
    (raw / "._b.avi").write_bytes(b"what macOS leaves behind")
    tiny_project.set(source__path="data/raw", extract_frames__video__max_frames=3)
    tiny_project.run("extract_frames")
    frames = read_index(tiny_project.root / FRAMES / "index.csv")
    assert Counter(frame.source for frame in frames) == {"b.avi": 3, "clip.avi": 3}


def test_nested_videos_of_one_name_are_told_apart(tiny_project, capsys):
    raw = tiny_project.root / "data/raw"
    for name in ("a", "b"):
        (raw / name).mkdir()
        shutil.copy(raw / "clip.avi", raw / name)
    (raw / "b/notes.txt").touch()
    tiny_project.set(source__path="data/raw", extract_frames__video__max_frames=3)
    tiny_project.run("extract_frames")
    frames = read_index(tiny_project.root / FRAMES / "index.csv")
    counts = {"a/clip.avi": 3, "b/clip.avi": 3, "clip.avi": 3}
    assert Counter(frame.source for frame in frames) == counts
    assert frames[0].image == "images/a/clip/000000.png"
    said = "data/raw: files that are no videos are left out: 1 .txt\n"
    assert said in capsys.readouterr().err


def test_clips_of_anomalies_are_not_taken_as_normal(tiny_project):
    raw = tiny_project.root / "data/raw"
    (raw / "anomaly").mkdir()
    shutil.copy(raw / "clip.avi", raw / "anomaly")
    tiny_project.set(source__path="data/raw")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/anomaly/clip.avi lies in the folder of anomalous images" in message


def test_an_mvtec_tree_keeps_splits_defects_and_masks(tiny_project, mvtec_tree):
    tiny_project.set(source__path=str(mvtec_tree), extract_frames__size=None)
    assert tiny_project.run("extract_frames") == f"27 frames from {mvtec_tree}\n"
    frames = read_index(tiny_project.root / FRAMES / "index.csv")
    assert Counter((f.split, f.label, f.defect, bool(f.mask)) for f in frames) == {
        ("train", "normal", "", False): 16,
        ("test", "normal", "", False): 4,
        ("test", "anomalous", "scratch", True): 3,
        ("test", "anomalous", "hole", True): 2,
        ("test", "anomalous", "stain", True): 2,
    }
    scratch = next(frame for frame in frames if frame.defect == "scratch")
    assert (scratch.image, scratch.mask) == (
        "images/test/scratch/000.png",
        "masks/test/scratch/000.png",
    )
    image = read_image(tiny_project.root / FRAMES / scratch.image)
    mask = read_image(tiny_project.root / FRAMES / scratch.mask)[..., 0] > 0
    assert mask.sum() == 5 * 9
    assert (image[mask] == 255).all()
    assert np.array_equal(image, read_image(mvtec_tree / "test/scratch/000.png"))


def test_two_videos_of_one_name_are_refused(tiny_project):
    raw = tiny_project.root / "data/raw"
    shutil.copy(raw / "clip.avi", raw / "clip.mov")
    tiny_project.set(source__path="data/raw")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw has two images that would both be images/clip/000000.png" in message


def test_a_crop_that_cuts_the_anomaly_away_is_refused(tiny_project, mvtec_tree):
    tiny_project.set(
        source__path=str(mvtec_tree), extract_frames__crop=[0, 0, 5, 5], extract_frames__size=None
    )
    message = tiny_project.refuse("extract_frames")
    assert "leaves nothing of the anomaly of test/" in message
