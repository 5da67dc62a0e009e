"""Bad input ends in one sentence with the remedy, exit code 1, and earlier results as they were.

`Project.refuse` asserts all of that; the tests here say which sentence. Real processes, at the end,
show that nothing else reaches stderr.
"""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image

from blackswan.data import images
from blackswan.data.dataset import pq
from blackswan.data.records import read_index

NAME = "padim"


@pytest.fixture
def raw(tiny_project):
    return tiny_project.root / "data/raw"


def point_at(project, path, **changes):
    project.set(source__path=str(path), extract_frames__folder__masks="", **changes)


def photos(folder, count=6, size=(40, 32)):
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


# Videos


def test_a_missing_source(tiny_project):
    point_at(tiny_project, "data/raw/swan.mp4")
    message = tiny_project.refuse("extract_frames")
    assert "source.path data/raw/swan.mp4 does not exist; point it at a video" in message


def test_an_empty_video(tiny_project, raw):
    (raw / "empty.mp4").touch()
    point_at(tiny_project, "data/raw/empty.mp4")
    assert "data/raw/empty.mp4 is empty; copy it again" in tiny_project.refuse("extract_frames")


def test_a_text_file_named_mp4(tiny_project, raw):
    (raw / "text.mp4").write_text("not a video\n" * 50)
    point_at(tiny_project, "data/raw/text.mp4")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/text.mp4 is no video that FFmpeg can read; re-encode it" in message


def test_a_file_that_is_no_video(tiny_project, raw):
    (raw / "notes.txt").write_text("hello")
    point_at(tiny_project, "data/raw/notes.txt")
    assert "is neither a folder nor a video" in tiny_project.refuse("extract_frames")


def test_a_video_cut_short_yields_what_can_be_decoded(tiny_project, raw):
    whole = (raw / "clip.avi").read_bytes()
    (raw / "cut.avi").write_bytes(whole[: len(whole) // 2])
    point_at(tiny_project, "data/raw/cut.avi")
    said, count = tiny_project.run("extract_frames").splitlines()
    declared, decoded, taken = (
        int(part.split()[0]) for part in said.removeprefix("cut.avi: ").split(", ")
    )
    assert declared == 40
    assert 15 <= decoded == taken <= 25
    assert count.startswith(f"{taken} frames")


def test_a_video_cut_before_its_first_frame(tiny_project, raw):
    (raw / "cut.avi").write_bytes((raw / "clip.avi").read_bytes()[:300])
    point_at(tiny_project, "data/raw/cut.avi")
    assert "data/raw/cut.avi" in tiny_project.refuse("extract_frames")


def test_a_one_pixel_video(tiny_project, shared_videos):
    point_at(tiny_project, shared_videos / "one_pixel.mp4")
    message = tiny_project.refuse("extract_frames")
    assert "one_pixel.mp4 is 1x1 pixels; at least 16x16 are needed" in message


def test_no_frame_in_the_sampled_time(tiny_project):
    tiny_project.set(extract_frames__video__start_s=9.0)
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/clip.avi: none of its 40 frames" in message
    assert "start_s" in message


def test_a_video_shorter_than_the_splits_need(tiny_project):
    tiny_project.set(extract_frames__video__max_frames=4)
    tiny_project.run("extract_frames")
    for stage in ("synthesize_anomalies", "label"):
        message = tiny_project.refuse(stage)
        assert "split gets no normal image" in message
        assert "split.guard_seconds" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_video_without_permission(tiny_project, raw):
    (raw / "clip.avi").chmod(0)
    message = tiny_project.refuse("extract_frames")
    assert "no permission for data/raw/clip.avi; make it readable" in message


def test_a_video_whose_name_is_not_utf8(tiny_project, raw):
    name = os.fsdecode(b"caf\xe9.avi")
    try:
        shutil.copy(raw / "clip.avi", raw / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    point_at(tiny_project, "data/raw")
    assert "caf\\xe9.avi, which is not UTF-8" in tiny_project.refuse("extract_frames")


# Long values


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("extract_frames", {"source__path": "x" * 200 + "/" + "y/" * 1500}),
        ("extract_frames", {"extract_frames__crop": "x" * 5000}),
        ("extract_frames", {"extract_frames__crop": ["x " * 5000]}),
        ("extract_frames", {"extract_frames__folder__group_pattern": "(?P<" + "x" * 5000}),
        ("synthesize_anomalies", {"synthesize_anomalies__generators": ["x " * 5000]}),
        ("fit_detector", {"detectors__padim__backbone": "x" * 200 + "/" + "y/" * 1500}),
        ("fit_detector", {"detectors__padim__layers": [12345] * 5000}),
        ("fit_detector", {"detectors__padim__" + "x" * 1000: 1}),
    ],
)
def test_a_long_value_is_cut(tiny_project, stage, changes):
    tiny_project.set(**changes)
    message = tiny_project.refuse(stage, *(["padim"] if stage == "fit_detector" else []))
    assert "..." in message
    assert len(message) < 700


# Folders of photos


def test_a_folder_without_images(tiny_project, raw):
    (raw / "photos").mkdir()
    point_at(tiny_project, "data/raw/photos")
    assert "data/raw/photos has 0 normal images" in tiny_project.refuse("extract_frames")


def test_a_folder_with_one_image(tiny_project, raw):
    photos(raw / "photos", count=1)
    point_at(tiny_project, "data/raw/photos")
    assert "data/raw/photos has 1 normal images" in tiny_project.refuse("extract_frames")


def test_mixed_sizes_become_one_size(tiny_project, raw):
    photos(raw / "photos", size=(40, 32))
    Image.new("RGB", (90, 50), "red").save(raw / "photos/wide.png")
    Image.new("RGB", (20, 70), "red").save(raw / "photos/tall.png")
    point_at(tiny_project, "data/raw/photos")
    assert tiny_project.run("extract_frames") == "8 frames from data/raw/photos\n"
    written = (tiny_project.root / "data/frames/images").iterdir()
    assert {Image.open(path).size for path in written} == {(32, 32)}


def test_mixed_sizes_that_are_kept_are_refused(tiny_project, raw):
    photos(raw / "photos", size=(40, 32), count=12)
    photos(raw / "more", size=(30, 30), count=12)
    for path in (raw / "more").iterdir():
        path.rename(raw / "photos" / f"more-{path.name}")
    point_at(
        tiny_project,
        "data/raw/photos",
        extract_frames__crop="none",
        extract_frames__size=None,
        build_dataset__image_size=None,
        evaluate__alpha=0.3,
    )
    for stage in ("extract_frames", "synthesize_anomalies", "label"):
        tiny_project.run(stage)
    message = tiny_project.refuse("build_dataset")
    assert "differ in size; set build_dataset.image_size" in message


@pytest.mark.parametrize("broken", ["corrupt", "cut", "empty"])
def test_an_image_that_cannot_be_decoded(tiny_project, raw, broken):
    path = photos(raw / "photos") / "3.png"
    content = {"corrupt": b"not a picture" * 20, "cut": path.read_bytes()[:500], "empty": b""}
    path.write_bytes(content[broken])
    point_at(tiny_project, "data/raw/photos")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/photos/3.png" in message
    assert "replace or remove it" in message


def test_a_decompression_bomb(tiny_project, raw):
    # 85 million pixels of one colour in a few kB
    Image.new("1", (9_500, 9_000)).save(photos(raw / "photos") / "bomb.png")
    point_at(tiny_project, "data/raw/photos")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/photos/bomb.png" in message
    assert f"the limit is {images.MAX_PIXELS:,}" in message


def test_an_image_whose_name_is_not_utf8(tiny_project, raw):
    folder = photos(raw / "photos")
    try:
        (folder / "0.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    point_at(tiny_project, "data/raw/photos")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/photos holds the name caf\\xe9.png, which is not UTF-8" in message


def test_a_mask_that_does_not_fit(tiny_project, raw, mvtec_tree):
    tree = raw / "washer"
    shutil.copytree(mvtec_tree, tree)
    Image.new("L", (31, 32), 255).save(tree / "ground_truth/hole/001_mask.png")
    point_at(tiny_project, "data/raw/washer")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/washer/ground_truth/hole/001_mask.png is 31 x 32 pixels" in message


# Names and links


def rename(folder, *names):
    """Give the first of the photos in `folder` other names."""
    for path, name in zip(sorted(folder.iterdir()), names, strict=False):
        path.rename(folder / name)


@pytest.mark.parametrize(
    "names", [("x" * 247 + ".png", "x" * 250 + "y.png"), ("ü" * 125 + ".png",)]
)
def test_names_near_the_limit_of_the_disk_go_through_the_chain(tiny_project, raw, names):
    rename(photos(raw / "photos", count=16), *names)
    point_at(tiny_project, "data/raw/photos", evaluate__alpha=0.3)
    tiny_project.set(synthesize_anomalies__anomalies_per_frame=2)
    tiny_project.run_chain()
    frames = read_index(tiny_project.root / "data/frames/index.csv")
    short = [frame.image for frame in frames if len(frame.image) > 60]
    assert len(set(short)) == len(names)
    assert max(len(name.encode()) for name in short) < 230


def test_a_source_path_that_is_too_long(tiny_project):
    point_at(tiny_project, "data/raw/" + "x" * 300)
    message = tiny_project.refuse("extract_frames")
    assert message.startswith("error: the name data/raw/xxx")
    assert message.endswith("xxx is too long; shorten it")
    assert len(message) < 300


def test_folders_nested_too_deep(tiny_project, raw):
    folder = raw / "photos" / "/".join(["a folder of shots"] * 60)
    photos(folder)
    point_at(tiny_project, "data/raw/photos", extract_frames__folder__normal="")
    message = tiny_project.refuse("extract_frames")
    assert "bytes, the limit is 1000; shorten the names of its folders" in message


@pytest.mark.parametrize("break_", ["\r", "\n", "\t"])
def test_a_name_with_a_control_character(tiny_project, raw, break_):
    rename(photos(raw / "photos"), f"a{break_}b.png")
    shutil.copy(raw / "clip.avi", raw / f"a{break_}b.avi")
    shown = f"a{ascii(break_)[1:-1]}b"
    point_at(tiny_project, "data/raw/photos")
    message = tiny_project.refuse("extract_frames")
    assert f"data/raw/photos holds the name {shown}.png, which has a control character" in message
    point_at(tiny_project, f"data/raw/a{break_}b.avi")
    message = tiny_project.refuse("extract_frames")
    assert f"the name '{shown}.avi' is not UTF-8 or has a control character" in message


def test_odd_names_go_through_the_chain(tiny_project, raw):
    names = [" a.png", 'b "c".png', "d,e.png", "f\u202fg.png", "'h';.png", "%20#?.png", "-i .png"]
    rename(photos(raw / "photos, with", count=16), *names)
    point_at(tiny_project, "data/raw/photos, with", evaluate__alpha=0.3)
    tiny_project.run_chain()
    found = {frame.image for frame in read_index(tiny_project.root / "data/frames/index.csv")}
    assert found >= {f"images/{name}" for name in names}


def test_a_video_named_as_a_mac_names_recordings(tiny_project, raw):
    (raw / "clip.avi").rename(raw / "at 9.41\u202fAM.avi")
    point_at(tiny_project, "data/raw")
    assert "40 taken" in tiny_project.run("extract_frames")


def test_a_video_that_is_there_twice(tiny_project, raw):
    (raw / "other.avi").symlink_to("clip.avi")
    point_at(tiny_project, "data/raw")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/clip.avi and data/raw/other.avi are one file; remove one" in message


def test_linked_class_folders(tiny_project, raw):
    photos(raw / "store/good", count=4)
    photos(raw / "store/bad", count=3)
    (raw / "photos").mkdir()
    (raw / "photos/normal").symlink_to("../store/good")
    (raw / "photos/anomaly").symlink_to(raw / "store/bad")
    point_at(tiny_project, "data/raw/photos")
    assert tiny_project.run("extract_frames") == (
        "7 frames from data/raw/photos: 4 normal, 3 anomalous (3 anomaly; 0 with a mask)\n"
    )
    frames = read_index(tiny_project.root / "data/frames/index.csv")
    assert [frame.label for frame in frames] == ["anomalous"] * 3 + ["normal"] * 4
    (raw / "photos/anomaly").unlink()
    (raw / "photos/anomaly").symlink_to("../store/good")
    message = tiny_project.refuse("extract_frames")
    assert "are one folder; remove one of the links" in message
    (raw / "photos/anomaly").unlink()
    (raw / "photos/anomaly").mkdir()
    (raw / "photos/anomaly/0.png").symlink_to("../normal/0.png")
    message = tiny_project.refuse("extract_frames")
    assert "photos/anomaly/0.png and data/raw/photos/normal/0.png are one file" in message
    (raw / "photos/anomaly/0.png").unlink()
    (raw / "photos/anomaly/up").symlink_to("..")
    message = tiny_project.refuse("extract_frames")
    assert "leads back to data/raw/photos without end" in message


def test_a_linked_mvtec_tree(tiny_project, raw, mvtec_tree):
    (raw / "washer").mkdir()
    for name in ("train", "ground_truth"):
        (raw / "washer" / name).symlink_to(mvtec_tree / name)
    (raw / "washer/test").mkdir()
    for kind in ("good", "hole", "scratch", "stain"):
        (raw / "washer/test" / kind).symlink_to(mvtec_tree / "test" / kind)
    point_at(tiny_project, "data/raw/washer")
    assert tiny_project.run("extract_frames") == (
        "27 frames from data/raw/washer: 20 normal, 7 anomalous "
        "(2 hole, 3 scratch, 2 stain; 7 with a mask)\n"
    )


@pytest.mark.parametrize("case", ["link_anomaly", "link_normal"])
def test_the_linked_folders_of_others(tiny_project, case):
    source = SHARED / "cases" / case
    if not source.is_dir():
        pytest.skip("no ../shared/data/cases")
    point_at(tiny_project, source)
    if (source / "anomaly").is_symlink():
        tiny_project.run("extract_frames")
        frames = read_index(tiny_project.root / "data/frames/index.csv")
        assert {frame.label for frame in frames} == {"normal", "anomalous"}
    else:  # copied by something that knows no links
        message = tiny_project.refuse("extract_frames")
        assert f"{case}/anomaly is a text file that names the folder ../store/anomaly" in message


def test_a_class_folder_that_is_a_file(tiny_project, raw):
    photos(raw / "photos/normal")
    (raw / "photos/anomaly").write_text("../moved/away")
    point_at(tiny_project, "data/raw/photos")
    message = tiny_project.refuse("extract_frames")
    assert "data/raw/photos/anomaly is a file; replace it by the folder of that name" in message


@pytest.mark.parametrize("linked", ["data", "data/frames", "data/anomalies", "data/dataset"])
def test_outputs_on_another_disk(tiny_project, linked):
    before = tiny_project.outputs()
    disk = tiny_project.root / "disk"
    (tiny_project.root / linked).rename(disk)
    (tiny_project.root / linked).symlink_to(disk)
    tiny_project.run_chain()
    assert (tiny_project.root / linked).is_symlink()
    stored = {
        path.replace("disk", linked, 1): content
        for path, content in tiny_project.outputs("disk").items()
    }
    assert stored == {path: before.get(path, content) for path, content in stored.items()}
    assert {path for path in before if path.startswith(f"{linked}/")} <= stored.keys()
    assert not list(tiny_project.root.rglob(".*.partial"))


def test_an_output_that_leads_nowhere(tiny_project):
    frames = tiny_project.root / "data/frames"
    shutil.rmtree(frames)
    frames.symlink_to("/mnt/gone/frames")
    message = tiny_project.refuse("extract_frames")
    assert "data/frames is a link to /mnt/gone/frames, which is missing; create it" in message


# Params


MISSPELT = "is not a known key; did you mean"


# The sentence has the key in front of the words.
@pytest.mark.parametrize(
    ("stage", "key", "value", "words"),
    [
        ("extract_frames", "source.path", ..., " is missing; add it"),
        ("extract_frames", "extract_frames.crop", "centre", " = 'centre': Input should be"),
        ("extract_frames", "extract_frames.size", 8, " = 8: must be at least 16 pixels"),
        (
            "extract_frames",
            "extract_frames.size",
            9000,
            " = 9000: asks for more pixels than a square of 8944 has",
        ),
        (
            "build_dataset",
            "build_dataset.image_size",
            100_000,
            " = 100000: asks for more pixels than a square of 8944 has",
        ),
        ("extract_frames", "extract_frames.video.end_s", ..., " is missing; add it"),
        (
            "extract_frames",
            "extract_frames.video.every_n_second",
            1,
            f" {MISSPELT} every_n_seconds?",
        ),
        ("extract_frames", "extract_frames.video.max_frames", 0, " = 0: Input should be"),
        ("synthesize_anomalies", "synthesize_anomalies.patch.noise_ratio", 1.5, " = 1.5: "),
        ("synthesize_anomalies", "synthesize_anomalies.generators", ["snow"], ".0 = 'snow': "),
        ("synthesize_anomalies", "synthesize_anomalies.generators", [], " = []: List should have"),
        (
            "synthesize_anomalies",
            "synthesize_anomalies.generator",
            "spot",
            f" {MISSPELT} generators?",
        ),
        ("label", "label.leak_check.max_hash_distance", 65, " = 65: Input should be less"),
        (
            "build_dataset",
            "build_dataset.augment.rotation.probabilty",
            0.5,
            f" {MISSPELT} probability?",
        ),
        ("build_dataset", "build_dataset.rows_per_shard", "many", " = 'many': "),
        ("fit_detector", "fit_detector.seed", -1, " = -1: "),
        ("fit_baseline", "fit_baseline.blur", ..., " is missing; add it"),
        ("evaluate_detector", "evaluate.alpha", 1.0, " = 1.0: Input should be less than 1"),
        ("evaluate_detector", "evaluate.alpha", float("nan"), " = nan: "),
    ],
)
def test_a_param_is_named_in_full(tiny_project, stage, key, value, words):
    tiny_project.set(**{key: value})
    message = tiny_project.refuse(stage, *([NAME] if stage.endswith("_detector") else []))
    assert message.startswith(f"error: params.yaml: {key}{words}")


@pytest.mark.parametrize(
    ("stage", "changes", "words"),
    [
        ("label", {"label": ...}, "params.yaml has no block label; add it"),
        ("label", {"split.train": 0.9}, "split: train + validation must be below 1"),
        (
            "synthesize_anomalies",
            {"synthesize_anomalies.patch.patches_min": 9},
            "synthesize_anomalies.patch: patches_min is larger than patches_max; swap them",
        ),
        (
            "synthesize_anomalies",
            {"synthesize_anomalies.generators": ["scratch", "cut_paste"]},
            "synthesize_anomalies: unseen lists cut_paste, which training sees; take it out",
        ),
        (
            "synthesize_anomalies",
            {"synthesize_anomalies.generators": ["scratch", "spot", "scratch"]},
            "synthesize_anomalies: generators lists a generator twice; remove one",
        ),
    ],
)
def test_params_that_do_not_fit_each_other(tiny_project, stage, changes, words):
    tiny_project.set(**changes)
    assert words in tiny_project.refuse(stage)


def test_params_that_are_no_yaml_or_missing(tiny_project):
    params = tiny_project.root / "params.yaml"
    params.write_text("source: [\n  path: 3\n")
    assert "params.yaml is not valid YAML" in tiny_project.refuse("extract_frames")
    params.write_bytes(b"source: \xff\n")
    assert "params.yaml is not UTF-8 at byte 8; save it" in tiny_project.refuse("extract_frames")
    params.unlink()
    message = tiny_project.refuse("extract_frames")
    assert message == "error: params.yaml is missing; run from the top of the repository"


# Inputs of later stages


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        ("synthesize_anomalies", "data/frames/index.csv"),
        ("label", "data/anomalies/index.csv"),
        ("build_dataset", "data/labels.csv"),
    ],
)
def test_an_index_that_is_missing_or_no_index(tiny_project, stage, missing):
    (tiny_project.root / missing).write_text("a,b\n1,2\n")
    assert f"{missing} has the columns ['a', 'b']" in tiny_project.refuse(stage)
    (tiny_project.root / missing).unlink()
    assert f"{missing} is missing or empty" in tiny_project.refuse(stage)


# A full disk


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "data/partial")


@pytest.mark.parametrize(
    ("stage", "owner", "function"),
    [
        ("extract_frames", Path, "write_bytes"),
        ("synthesize_anomalies", Path, "write_bytes"),
        ("label", Path, "replace"),
        ("build_dataset", pq.ParquetWriter, "write_table"),
        ("fit_baseline", Path, "write_text"),
        ("evaluate_detector", pq.ParquetWriter, "write_table"),
    ],
)
def test_a_full_disk(tiny_project, monkeypatch, stage, owner, function):
    monkeypatch.setattr(owner, function, full)
    message = tiny_project.refuse(stage, *([NAME] if stage.endswith("_detector") else []))
    assert "the disk is full; free some space" in message


# Real processes


@pytest.mark.parametrize("kind", ["text.mp4", "params"])
def test_stderr_holds_one_sentence_and_no_more(tiny_project, raw, kind):
    earlier = tiny_project.outputs()
    if kind == "params":
        tiny_project.set(extract_frames__size="large")
    else:
        (raw / kind).write_text("not a video\n" * 50)
        point_at(tiny_project, f"data/raw/{kind}")
    process = subprocess.run(
        [sys.executable, "stages/extract_frames.py"],
        cwd=tiny_project.root,
        env={**os.environ, "PYTHONPATH": str(Path(images.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stdout == ""
    assert len(process.stderr.splitlines()) == 1
    assert process.stderr.startswith("error: ")
    assert tiny_project.outputs() == earlier
