from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blackswan.data.sources.mvtec import is_tree, list_categories, list_frames
from blackswan.errors import InputError

SCREW = Path(__file__).parents[3] / "../shared/data/mvtec/screw"


def draw(root, *names, size=(6, 4)):
    """Draw images that all differ, of one size in bytes where they are BMP."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.frombuffer(name.encode() * 72, np.uint8)[: size[0] * size[1] * 3]
        Image.fromarray(pixels.reshape(size[1], size[0], 3)).save(root / name)


def draw_mask(root, name, value, size=(6, 4)):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(root / name)


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "bottle"
    draw(
        root, "train/good/000.png", "train/good/001.png", "test/good/000.png", "test/crack/000.png"
    )
    draw_mask(root, "ground_truth/crack/000_mask.png", 255)
    return root


def refused(act, *words):
    with pytest.raises(InputError) as caught:
        act()
    assert "\n" not in str(caught.value)
    for word in words:
        assert str(word) in str(caught.value)


def test_splits_labels_and_defects(tree):
    items = list_frames(tree)
    assert [(i.frame.image, i.frame.split, i.frame.label, i.frame.defect) for i in items] == [
        ("test/crack/000", "test", "anomalous", "crack"),
        ("test/good/000", "test", "normal", ""),
        ("train/good/000", "train", "normal", ""),
        ("train/good/001", "train", "normal", ""),
    ]
    assert [i.frame.group for i in items] == [i.frame.image for i in items]
    assert {(i.frame.source, i.frame.mask) for i in items} == {("bottle", "")}
    image, mask = items[0].read()
    assert image.shape == (4, 6, 3)
    assert mask.tolist() == [[True] * 6] * 4
    assert items[1].read()[1] is None


def test_btad_names(tmp_path):
    draw(tmp_path, "train/ok/0.bmp", "train/ok/1.bmp", "test/ok/0.bmp", "test/ko/0.bmp")
    draw_mask(tmp_path, "ground_truth/ko/0.png", 1)
    items = list_frames(tmp_path)
    assert Counter(i.frame.label for i in items) == {"normal": 3, "anomalous": 1}
    assert items[0].frame.defect == "ko"
    assert items[0].read()[1].all()


def test_root_of_categories(tree, tmp_path):
    draw(tmp_path / "cable", "train/good/0.png", "train/good/1.png", "test/good/0.png")
    assert list_categories(tmp_path) == ["bottle", "cable"]
    assert (is_tree(tree), is_tree(tmp_path)) == (True, False)
    assert {i.frame.source for i in list_frames(tmp_path, "cable")} == {"cable"}
    assert len(list_frames(tree, "bottle")) == 4
    refused(lambda: list_frames(tmp_path), "is a root of categories", "bottle, cable")
    refused(lambda: list_frames(tmp_path, "pill"), "no category pill", "bottle, cable")
    refused(lambda: list_frames(tree, "cable"), "is itself one category", "not cable")


def test_unknown_layout_says_what_was_found(tmp_path):
    draw(tmp_path / "odd", "images/1.png", "labels/1.png")
    refused(
        lambda: list_frames(tmp_path / "odd"), tmp_path / "odd", "no train/good", "images, labels"
    )
    draw(tmp_path / "bare", "train/0.png", "test/good/0.png")
    assert is_tree(tmp_path / "bare")
    refused(lambda: list_frames(tmp_path / "bare"), "no train/good", "train holds 0.png")
    (tmp_path / "empty").mkdir()
    refused(lambda: list_frames(tmp_path / "empty"), "empty holds nothing")
    refused(lambda: list_frames(tmp_path / "absent"), "absent is not a folder")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("extra/good/0.png", "no place in an MVTec-style tree"),
        ("0.png", "no place"),
        ("test_private/good/0.png", "no place"),
        ("validation/crack/0.png", "is not normal"),
        ("train/crack/0.png", "is not normal"),
    ],
)
def test_files_without_a_place(tree, name, words):
    draw(tree, name)
    refused(lambda: list_frames(tree), tree / name, words)


def test_masks_in_doubt(tree):
    draw(tree, "test/crack/001.png")
    assert list_frames(tree)[1].read()[1] is None
    draw_mask(tree, "ground_truth/crack/001.png", 255, size=(3, 4))
    refused(list_frames(tree)[1].read, "001.png is 3 x 4", "6 x 4")
    draw_mask(tree, "ground_truth/crack/001_mask.png", 255)
    refused(lambda: list_frames(tree), "are masks of one image")
    (tree / "ground_truth/crack/001.png").rename(tree / "ground_truth/crack/002.png")
    refused(lambda: list_frames(tree), "ground_truth/crack/002.png has no image test/crack/002")


def test_without_ground_truth(tree):
    (tree / "ground_truth/crack/000_mask.png").unlink()
    assert [i.read()[1] for i in list_frames(tree)] == [None] * 4


def test_mask_of_a_normal_image_has_to_be_black(tree):
    draw_mask(tree, "ground_truth/good/000.png", 0)
    normal = next(i for i in list_frames(tree) if i.frame.image == "test/good/000")
    assert normal.read()[1] is None
    draw_mask(tree, "ground_truth/good/000.png", 7)
    refused(normal.read, "test/good/000.png", "marks a defect")


def test_image_in_both_splits(tree):
    (tree / "test/good/009.png").write_bytes((tree / "train/good/001.png").read_bytes())
    refused(lambda: list_frames(tree), "train/good/001.png", "test/good/009.png", "same image")


def test_too_few_images(tree):
    (tree / "train/good/001.png").unlink()
    refused(lambda: list_frames(tree), "1 images", "at least two")
    draw(tree, "train/good/001.png")


def test_folder_param_names_the_normal_images(tmp_path):
    draw(tmp_path, "train/normal/0.png", "train/normal/1.png")
    draw(tmp_path, "test/normal/0.png", "test/abnormal/0.png")
    labels = Counter((i.frame.split, i.frame.label) for i in list_frames(tmp_path, "", "normal"))
    assert labels == {("train", "normal"): 2, ("test", "normal"): 1, ("test", "anomalous"): 1}
    refused(lambda: list_frames(tmp_path), "no train/good", "extract_frames.folder.normal")


def test_several_masks_of_one_image_are_joined(tree):
    """MVTec LOCO as it comes: validation/good, and a folder of masks for each image."""
    draw(tree, "validation/good/000.png", "test/logical_anomalies/000.png")
    folder = "ground_truth/logical_anomalies/000"
    for number, column in enumerate((1, 4)):
        mask = np.zeros((4, 6), np.uint8)
        mask[2, column] = 250 + number
        (tree / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tree / folder / f"{number:03d}.png")
    items = {i.frame.image: i for i in list_frames(tree)}
    assert items["validation/good/000"].frame.split == "validation"
    marks = items["test/logical_anomalies/000"].read()[1]
    assert np.argwhere(marks).tolist() == [[2, 1], [2, 4]]


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_validation_by_any_of_its_names(tree, name):
    draw(tree, f"{name}/good/000.png")
    items = {i.frame.image: i.frame.split for i in list_frames(tree)}
    assert items[f"{name}/good/000"] == "validation"
    draw(tree, f"{name}/crack/000.png")
    refused(lambda: list_frames(tree), f"{name}/crack/000.png is not normal")


def test_a_public_test_beside_private_ones(tmp_path, capsys):
    """MVTec AD 2 as it comes."""
    draw(tmp_path, "train/good/0.png", "train/good/1.png", "validation/good/0.png")
    draw(tmp_path, "test_public/good/0.png", "test_public/bad/0.png")
    draw(tmp_path, "test_private/0.png", "test_private_mixed/0.png")
    draw_mask(tmp_path, "test_public/ground_truth/bad/0_mask.png", 255)
    items = list_frames(tmp_path)
    assert [(i.frame.image, i.frame.split, i.frame.label) for i in items] == [
        ("test_public/bad/0", "test", "anomalous"),
        ("test_public/good/0", "test", "normal"),
        ("train/good/0", "train", "normal"),
        ("train/good/1", "train", "normal"),
        ("validation/good/0", "validation", "normal"),
    ]
    assert items[0].read()[1].all()
    assert "left out 2 test images without a label" in capsys.readouterr().err


def test_without_normal_test_images_train_is_held_out(tree, capsys):
    (tree / "test/good/000.png").unlink()
    draw(tree, "test/000.png", "test/001.png")
    assert [(i.frame.image, i.frame.split) for i in list_frames(tree)] == [
        ("test/crack/000", "test"),
        ("train/good/000", ""),
        ("train/good/001", ""),
    ]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "left out 2 test images without a label" in said[0]
    assert "no normal test images (test/good): some of train are held out" in said[1]


@pytest.mark.skipif(not SCREW.is_dir(), reason="needs ../shared/data/mvtec/screw")
def test_screw():
    items = list_frames(SCREW)
    assert Counter((i.frame.split, i.frame.label) for i in items) == {
        ("train", "normal"): 320,
        ("test", "normal"): 41,
        ("test", "anomalous"): 119,
    }
    assert Counter(i.frame.defect for i in items if i.frame.defect) == {
        "manipulated_front": 24,
        "scratch_head": 24,
        "scratch_neck": 25,
        "thread_side": 23,
        "thread_top": 23,
    }
    image, mask = next(i for i in items if i.frame.label == "anomalous").read()
    assert image.shape == (256, 256, 3)
    assert mask.shape == (256, 256)
    assert 0 < mask.mean() < 0.2
    assert list_frames(SCREW.parent, "screw")[0].frame == items[0].frame


def test_exposures_of_one_part_are_one_group(tmp_path):
    draw(
        tmp_path, "train/good/exp1_num_7.png", "train/good/exp2_num_7.png",
        "train/good/exp1_num_8.png", "test/good/exp1_num_9.png", "test/crack/exp1_num_5.png",
    )  # fmt: skip
    items = list_frames(tmp_path, group_pattern=r"(num_\d+)")
    assert {item.frame.image: item.frame.group for item in items} == {
        "test/crack/exp1_num_5": "num_5",
        "test/good/exp1_num_9": "num_9",
        "train/good/exp1_num_7": "num_7",
        "train/good/exp1_num_8": "num_8",
        "train/good/exp2_num_7": "num_7",
    }
    refused(lambda: list_frames(tmp_path, group_pattern=r"exp2_(\d+)"), "finds no group in")
