import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from conftest import SHARED, draw_nail
from PIL import Image

from blackswan.data.images import read_image, read_mask, write_png
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
        [
            f"{FRAMES}/index.csv",
            f"{FRAMES}/preprocessing.json",
            *(f"{FRAMES}/{frame.image}" for frame in frames),
        ]
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
        "anomalies", "checkpoints", "dataset", "detectors", "frames", "labels.csv", "models", "raw",
        "scores", "weights",
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
    assert "in folders that no param names: the folder itself (1), a (1), b (1)" in (
        tiny_project.refuse("extract_frames")
    )
    tiny_project.set(extract_frames__folder__normal="")
    tiny_project.run("extract_frames")
    frames = read_index(tiny_project.root / FRAMES / "index.csv")
    counts = {"a/clip.avi": 3, "b/clip.avi": 3, "clip.avi": 3}
    assert Counter(frame.source for frame in frames) == counts
    assert frames[0].image == "images/a/clip/000000.png"
    assert "data/raw: left out 1 .txt\n" in capsys.readouterr().err


def test_clips_are_labelled_by_their_folders(tiny_project):
    raw = tiny_project.root / "data/raw"
    for name in ("normal/a", "anomaly/smoke", "anomaly/fire"):
        (raw / name).mkdir(parents=True)
        shutil.copy(raw / "clip.avi", raw / name)
    (raw / "clip.avi").unlink()
    tiny_project.set(source__path="data/raw", extract_frames__video__max_frames=3)
    tiny_project.run("extract_frames")
    frames = read_index(tiny_project.root / FRAMES / "index.csv")
    assert Counter((frame.source, frame.label, frame.defect) for frame in frames) == {
        ("normal/a/clip.avi", "normal", ""): 3,
        ("anomaly/smoke/clip.avi", "anomalous", "smoke"): 3,
        ("anomaly/fire/clip.avi", "anomalous", "fire"): 3,
    }


def test_an_mvtec_tree_keeps_splits_defects_and_masks(tiny_project, mvtec_tree):
    tiny_project.set(source__path=str(mvtec_tree), extract_frames__size=None)
    assert tiny_project.run("extract_frames") == (
        f"27 frames from {mvtec_tree}: 20 normal, 7 anomalous "
        "(2 hole, 3 scratch, 2 stain; 7 with a mask)\n"
    )
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


def test_long_parts_are_laid_alike_and_their_masks_with_them(tiny_project):
    for number, degrees in enumerate((10, 80, 200)):
        write_png(tiny_project.root / f"data/raw/nails/normal/{number}.png", draw_nail(degrees))
    defect = draw_nail(300)
    mask = np.zeros(defect.shape[:2], bool)
    mask[62:66, 62:66] = True
    write_png(tiny_project.root / "data/raw/nails/anomaly/0.png", defect)
    write_png(tiny_project.root / "data/raw/nails/marks/0.png", mask)
    tiny_project.set(
        source__path="data/raw/nails",
        extract_frames__pose="upright",
        extract_frames__size=None,
        extract_frames__folder__masks="marks/*",
    )
    tiny_project.run("extract_frames")
    frames = tiny_project.root / FRAMES
    laid = [
        read_image(frames / frame.image).astype(int) for frame in read_index(frames / "index.csv")
    ]
    for image in laid[1:]:
        assert np.abs(image - laid[0]).mean() < 3
    rows, columns = np.nonzero(read_mask(frames / "masks/anomaly/0.png", (128, 128)))
    # The shaft's middle, which the head moves off the middle of the picture by nothing.
    assert rows.mean() == pytest.approx(63.5, abs=3)
    assert columns.mean() == pytest.approx(63.5, abs=3)

    write_png(
        tiny_project.root / "data/raw/nails/normal/3.png", np.full((128, 128, 3), 99, np.uint8)
    )
    message = tiny_project.refuse("extract_frames")
    assert "on normal/3.png no part stands out from a plain background" in message
    assert "extract_frames.pose: none" in message


def test_all_broken_images_are_named_at_once(tiny_project, mvtec_tree):
    tree = tiny_project.root / "data/raw/washer"
    shutil.copytree(mvtec_tree, tree)
    broken = ["test/hole/000.png", "train/good/003.png", "train/good/015.png"]
    for name in broken:
        (tree / name).write_bytes((tree / name).read_bytes()[:200])
    Image.new("L", (3, 3), 255).save(tree / "ground_truth/stain/001_mask.png")
    tiny_project.set(source__path="data/raw/washer")
    message = tiny_project.refuse("extract_frames")
    assert "4 of 27 images cannot be taken: " in message
    for name in [*broken, "ground_truth/stain/001_mask.png"]:
        assert f"data/raw/washer/{name}" in message


def test_many_broken_images_have_a_line_each(tiny_project, capsys):
    photos = tiny_project.root / "data/raw/photos"
    photos.mkdir()
    for number in range(40):
        (photos / f"{number:02d}.png").write_bytes(b"no image")
    tiny_project.set(source__path="data/raw/photos")
    message = tiny_project.refuse("extract_frames")
    assert message.startswith(
        "error: 40 of 40 images cannot be taken, each is named above; the first: data/raw/photos/00"
    )
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == [
        f"data/raw/photos/{number:02d}.png" for number in range(40)
    ]


def test_what_fails_every_image_alike_ends_at_the_second(tiny_project):
    tiny_project.set(extract_frames__crop=[0, 0, 4000, 4000])
    message = tiny_project.refuse("extract_frames")
    assert message.startswith("error: crop = [0, 0, 4000, 4000]")


def test_photos_are_not_cropped_by_default(tiny_project, tmp_path, capsys):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, -20:] = 255  # a square from the centre has none of it
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(photos / name), wide)
    tiny_project.set(source__path=str(photos))
    tiny_project.run("extract_frames")
    image = read_image(tiny_project.root / FRAMES / "images/a.png")
    assert image.shape == (32, 32, 3)
    assert (image[:, -5:] == 255).all()
    assert capsys.readouterr().err == (
        f"{photos}: 2 of 2 photos are not square; they are scaled to 32 x 32, which changes "
        "their aspect (extract_frames.crop: center_square cuts instead; size: {within: 32}, and "
        "build_dataset.image_size alike, keeps it)\n"
    )
    tiny_project.set(extract_frames__size={"within": 96})
    tiny_project.run("extract_frames")
    assert read_image(tiny_project.root / FRAMES / "images/a.png").shape == (32, 96, 3)
    assert capsys.readouterr().err == ""
    tiny_project.set(extract_frames__size=32)
    tiny_project.set(extract_frames__crop="center_square")
    tiny_project.run("extract_frames")
    assert not read_image(tiny_project.root / FRAMES / "images/a.png").any()
    assert capsys.readouterr().err == ""


CASES = {  # a source of ../shared/data/cases: params that it needs, and what is said
    "png12in16": ({}, "read as 12 bits"),
    "masksjpg": ({"masks": "masks"}, ""),
    "inverted": ({"masks": "masks"}, "invert_masks to true"),
    "exif90": ({"masks": "masks"}, "turned by its EXIF"),
    "exif180": ({"masks": "masks"}, "EXIF turns 2 photos"),
    "tiny_defect": ({"masks": "masks"}, ""),
    "side_defect_nomask": ({}, "are not square"),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_of_pixels_and_masks(tiny_project, capsys, name):
    if not (SHARED / "cases" / name).is_dir():
        pytest.skip(f"no ../shared/data/cases/{name}")
    folder, said = CASES[name]
    settings = {f"extract_frames__folder__{key}": value for key, value in folder.items()}
    tiny_project.set(source__path=str((SHARED / "cases" / name).resolve()), **settings)
    if name in ("inverted", "exif90"):
        assert said in tiny_project.refuse("extract_frames")
        key = "invert_masks" if name == "inverted" else "turn_masks"
        tiny_project.set(**{f"extract_frames__{key}": True})
    tiny_project.run("extract_frames")
    if name not in ("inverted", "exif90"):
        assert said in capsys.readouterr().err
    frames = read_index(tiny_project.root / FRAMES / "index.csv")
    masks = [read_image(tiny_project.root / FRAMES / f.mask)[..., 0] > 0 for f in frames if f.mask]
    assert len(masks) == sum(frame.label == "anomalous" for frame in frames) * ("masks" in folder)
    assert all(0 < mask.mean() < 0.25 for mask in masks)


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
