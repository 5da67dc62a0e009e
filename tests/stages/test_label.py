import shutil
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest
import yaml
from conftest import ROOT, SHARED, draw_part

from blackswan.data.images import read_image, write_png
from blackswan.data.records import read_index

LABELS = "data/labels.csv"


def records(project):
    return read_index(project.root / LABELS)


def test_every_image_has_a_label_a_split_and_a_group(finished):
    labels = records(finished)
    assert Counter((r.split, r.label) for r in labels) == {
        ("train", "normal"): 19,
        ("train", "anomalous"): 19,
        ("validation", "normal"): 9,
        ("validation", "anomalous"): 9,
        ("test", "normal"): 6,
        ("test", "anomalous"): 18,
    }
    for record in labels:
        folder = "frames" if record.label == "normal" else "anomalies"
        assert record.image.startswith(f"{folder}/images/")
        assert (finished.root / "data" / record.image).is_file()
        assert bool(record.mask) == (record.label == "anomalous")
        if record.mask:
            assert (finished.root / "data" / record.mask).is_file()


def test_an_anomalous_copy_goes_where_its_frame_goes(finished):
    labels = records(finished)
    normal = {r.image.removeprefix("frames/"): r for r in labels if r.label == "normal"}
    for record in labels:
        if record.label == "anomalous":
            origin = normal[record.source]
            assert (record.split, record.group, record.timestamp_s) == (
                origin.split,
                origin.group,
                origin.timestamp_s,
            )


def test_splits_are_apart_in_time(finished):
    times = defaultdict(list)
    for record in records(finished):
        times[record.split].append(record.timestamp_s)
    assert max(times["train"]) < 1.0 < min(times["validation"])
    assert max(times["validation"]) < 1.6 < min(times["test"])
    assert min(times["validation"]) - max(times["train"]) >= 0.12
    assert min(times["test"]) - max(times["validation"]) >= 0.12


def test_twice_the_same_bytes(tiny_project):
    before = tiny_project.outputs()
    assert tiny_project.run("label") == (
        "test anomalous 18; test normal 6; train anomalous 19; train normal 19; "
        "validation anomalous 9; validation normal 9\n"
    )
    assert tiny_project.outputs() == before


def test_an_mvtec_tree_gives_part_of_its_train_to_validation(tiny_project, mvtec_tree):
    tiny_project.set(source__path=str(mvtec_tree), split__train=0.5, split__validation=0.25)
    for stage in ("extract_frames", "synthesize_anomalies", "label"):
        tiny_project.run(stage)
    labels = records(tiny_project)
    normal = [r for r in labels if r.label == "normal"]
    assert Counter(r.split for r in normal) == {"train": 11, "validation": 5, "test": 4}
    assert {r.image.split("/")[2] for r in normal if r.split == "validation"} == {"train"}
    assert Counter(r.defect for r in labels if r.split == "test" and r.defect) == {
        "scratch": 3,
        "hole": 2,
        "stain": 2,
    }


def test_a_camera_that_stands_still_passes(tiny_project):
    frames = tiny_project.root / "data/frames/images/clip"
    shutil.copy(frames / "000002.png", frames / "000037.png")
    assert "train normal 19" in tiny_project.run("label")


@pytest.mark.parametrize("quality", [100, 95])
def test_a_copy_across_splits_stops_the_pipeline(tiny_project, mvtec_tree, quality):
    tiny_project.set(source__path=str(mvtec_tree), label__leak_check__max_pixel_difference=6.0)
    for stage in ("extract_frames", "synthesize_anomalies"):
        tiny_project.run(stage)
    frames = tiny_project.root / "data/frames/images"
    image = read_image(frames / "train/good/002.png")
    encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    write_png(frames / "test/good/001.png", cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1])
    message = tiny_project.refuse("label")
    assert "nearly the same lie in different splits" in message
    assert "test/good/001.png" in message


def test_a_copy_within_one_split_is_no_leak(tiny_project):
    frames = tiny_project.root / "data/frames/images/clip"
    shutil.copy(frames / "000002.png", frames / "000005.png")
    assert "train normal 19" in tiny_project.run("label")


def test_what_few_images_cannot_support_is_said_at_once_and_what_it_names_works(
    tiny_project, tmp_path
):
    rng = np.random.default_rng(0)
    for number in range(12):
        image, _ = draw_part(rng)
        write_png(tmp_path / f"twelve/{number}.png", image)
    memory = yaml.safe_load((ROOT / "params.yaml").read_text())["detectors"]["dino_memory"]
    memory |= {"backbone": "tiny", "layers": [1, 2], "image_size": 56}
    tiny_project.set(
        source__path=str(tmp_path / "twelve"),
        split__train=0.55,
        split__validation=0.2,
        evaluate__alpha=0.05,
        detectors__dino_memory=memory,
        compare__references={"vit": "", "median_residual": ""},
    )
    for stage in ("extract_frames", "synthesize_anomalies"):
        tiny_project.run(stage)
    assert tiny_project.refuse("label") == (
        "error: too few images: detectors.dino_memory.references = 16 needs at least 16 normal "
        "images to learn from and there are 8; evaluate.alpha = 0.05 is too small for 9 normal "
        "images that calibrate dino_memory, padim, median_residual (the smallest is 0.1) and 2 "
        "normal validation images that calibrate vit (the smallest is 0.333334); add normal "
        "images, or `dvc exp run -S detectors.dino_memory.references=8 -S evaluate.alpha=0.333334`"
        " works"
    )
    tiny_project.set(detectors__dino_memory__references=8, evaluate__alpha=0.333334)
    tiny_project.run("label")
    tiny_project.run("build_dataset")
    tiny_project.run("fit_baseline")
    for name in ("padim", "dino_memory"):
        tiny_project.run("fit_detector", name)
    for name in ("padim", "dino_memory", "median_residual"):
        tiny_project.run("evaluate_detector", name)


def test_a_threshold_or_a_knob_changes_no_byte_so_that_dvc_computes_no_more(tiny_project):
    before = tiny_project.outputs()
    tiny_project.set(evaluate__alpha=0.3, detectors__padim__features=4)
    tiny_project.run("label")
    assert tiny_project.outputs() == before


def test_a_knob_out_of_range_is_named_before_anything_is_trained(tiny_project):
    tiny_project.set(detectors__padim__features=0)
    assert "detectors.padim.features = 0: " in tiny_project.refuse("label")


@pytest.fixture
def numbered(tiny_project):
    """A project whose source is a folder with the frames of its clip, numbered."""
    source = tiny_project.root / "walk"
    source.mkdir()
    images = sorted((tiny_project.root / "data/frames/images/clip").glob("*.png"))
    for number, image in enumerate(images):
        shutil.copy(image, source / f"name_{number}.png")
    tiny_project.set(source__path="walk")
    return tiny_project


def test_numbered_frames_are_split_by_their_order(numbered):
    for stage in ("extract_frames", "synthesize_anomalies"):
        numbered.run(stage)
    assert "walk/name_*: 40 numbered photos, neighbours" in numbered.run("label")
    numbers = defaultdict(list)
    for record in records(numbered):
        if record.label == "normal":
            numbers[record.split].append(int(record.image[:-4].rpartition("_")[2]))
            assert record.source == "walk/name_*"
    order = [sorted(numbers[split]) for split in ("train", "validation", "test")]
    # At 25 a second blocks of 5, borders at 20 and 30, and a guard of 0.06 s is one image a side.
    assert order == [list(range(19)), list(range(22, 29)), list(range(32, 40))]
    numbered.run("build_dataset")
    assert "thresholds by block_and_forward" in numbered.run("fit_detector", "padim")


def test_a_still_camera_passes_as_numbered_frames_but_not_as_photos(numbered):
    for image in (numbered.root / "walk").glob("*.png"):
        if not image.name.endswith("_0.png"):
            shutil.copy(image.with_name("name_0.png"), image)
    for stage in ("extract_frames", "synthesize_anomalies"):
        numbered.run(stage)
    message = numbered.refuse("label")
    assert "nearly the same lie in different splits (more than 5 pairs): " in message
    assert message.endswith(
        "Remove the copies, or, where they are frames of one video, set split.sequences: true"
    )
    numbered.set(split__sequences=True)
    numbered.run("synthesize_anomalies")
    assert "train normal 19" in numbered.run("label")


def test_a_copy_across_given_splits_is_to_leave_one_of_them(tiny_project, mvtec_tree):
    tree = shutil.copytree(mvtec_tree, tiny_project.root / "tree")
    write_png(tree / "test/good/001.png", read_image(tree / "train/good/002.png"))
    tiny_project.set(source__path="tree")
    for stage in ("extract_frames", "synthesize_anomalies"):
        tiny_project.run(stage)
    message = tiny_project.refuse("label")
    assert message.endswith("Remove the copies from test or train of source.path")


def test_parts_that_are_shown_with_and_without_their_defect_pass(tiny_project):
    rng = np.random.default_rng(0)
    for number in range(16):
        part, _ = draw_part(rng)
        for folder in ("normal", "anomaly"):
            if folder == "anomaly":
                part[20:26, 20:26] = cv2.add(part[20:26, 20:26], (60, 60, 60, 0))
            path = tiny_project.root / "parts" / folder / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, part)
    tiny_project.set(source__path="parts", label__leak_check__max_pixel_difference=5.0)
    for stage in ("extract_frames", "synthesize_anomalies"):
        tiny_project.run(stage)
    assert "test anomalous 16; test normal 4; train anomalous 8" in tiny_project.run("label")


@pytest.mark.parametrize("name", ["static10s.mp4", "static_cctv.mp4", "screen.mp4"])
def test_a_camera_that_stands_still_is_no_leak(tiny_project, name):
    clip = SHARED / "cases/video" / name
    if not clip.is_file():
        pytest.skip(f"no ../shared/data/cases/video/{name}")
    tiny_project.set(source__path=str(clip), evaluate__alpha=0.2)
    for stage in ("extract_frames", "synthesize_anomalies"):
        tiny_project.run(stage)
    assert "train normal" in tiny_project.run("label")


def test_what_cannot_leave_regions_out_is_said_before_anything_is_trained(tiny_project):
    tiny_project.set(ignore__camera="line1", compare__references={"vit": "", "median_residual": ""})
    assert tiny_project.refuse("label") == (
        "error: ignore.camera = line1 leaves regions out, and vit scores an image by more than its "
        "anomaly map; take the vit out of compare.references, give patchcore a top_fraction, or "
        "set ignore.camera: ''"
    )
