from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from blackswan.data.images import write_png
from blackswan.data.sources import opening
from blackswan.data.sources.folder import Params, list_frames
from blackswan.errors import InputError
from blackswan.params import load_section

ROOT = Path(__file__).parents[3]
ALIENS = ROOT / "../shared/data/folder/aliens"


def params(normal="normal", anomalous="anomaly", masks="", group_pattern=""):
    return Params(
        normal=normal,
        anomalous=anomalous,
        masks=masks,
        annotations="",
        group_pattern=group_pattern,
    )


SOURCE = load_section(opening.Params, "extract_frames", ROOT / "params.yaml")

SOURCE_WITH_MASKS = SOURCE.model_copy(
    update={
        "folder": SOURCE.folder.model_copy(update={"masks": "masks"}),
        "invert_masks": False,
    }
)


def draw(root, *names, size=(6, 4), grey=90):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (grey, grey, grey)).save(root / name)


def rows(items):
    return [(item.frame.image, item.frame.label, item.frame.defect) for item in items]


def refused(act, *words):
    with pytest.raises(InputError) as caught:
        act()
    for word in words:
        assert str(word) in str(caught.value)


def test_flat_folder_is_normal(tmp_path):
    draw(tmp_path, "b.jpg", "a.png")
    assert rows(list_frames(tmp_path, params())) == [("a", "normal", ""), ("b", "normal", "")]
    draw(tmp_path, "camera/c.png")
    items = list_frames(tmp_path, params(normal=""))
    assert rows(items) == [("a", "normal", ""), ("b", "normal", ""), ("camera/c", "normal", "")]
    assert [item.frame.group for item in items] == ["a", "b", "camera/c"]
    assert {item.frame.source for item in items} == {tmp_path.name}
    assert {(item.frame.split, item.frame.mask, item.frame.timestamp_s) for item in items} == {
        ("", "", None)
    }
    image, mask = items[0].read()
    assert image.shape == (4, 6, 3)
    assert mask is None


def test_labels_and_defects(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "anomaly/1.png", "anomaly/dent/2.png")
    assert rows(list_frames(tmp_path, params())) == [
        ("anomaly/1", "anomalous", "anomaly"),
        ("anomaly/dent/2", "anomalous", "dent"),
        ("normal/1", "normal", ""),
        ("normal/2", "normal", ""),
    ]


def test_sub_folders_may_be_nested(tmp_path):
    draw(tmp_path, "Images/Normal/1.png", "Images/Normal/2.png", "Images/Anomaly/1.png")
    draw(tmp_path, "Masks/Anomaly/1.png", grey=0)
    items = list_frames(tmp_path, params("Images/Normal", "Images/Anomaly/", "Masks/Anomaly"))
    assert rows(items)[0] == ("Images/Anomaly/1", "anomalous", "Anomaly")
    assert items[0].read()[1].tolist() == [[False] * 6] * 4


def test_masks_follow_their_images(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "anomaly/1.jpg", "anomaly/dent/1.png")
    draw(tmp_path, "masks/1.png", grey=0)
    draw(tmp_path, "masks/dent/1.bmp", grey=255)
    read = {
        item.frame.image: item.read()[1] for item in list_frames(tmp_path, params(masks="masks"))
    }
    assert not read["anomaly/1"].any()
    assert read["anomaly/dent/1"].all()
    assert read["normal/1"] is None


def test_gifs_that_do_not_move_are_photos(tmp_path, capsys):
    draw(tmp_path, "normal/1.gif", "normal/2.gif", "anomaly/1.GIF")
    draw(tmp_path, "masks/1.gif", grey=255)
    items = list(opening.open_source(tmp_path, SOURCE_WITH_MASKS).images)
    assert [item.frame.label for item in items] == ["anomalous", "normal", "normal"]
    assert items[1].read()[0].tolist() == [[[90] * 3] * 6] * 4
    assert items[0].read()[1].all()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "normal/3.gif", save_all=True, append_images=frames[1:])
    refused(
        lambda: opening.open_source(tmp_path, SOURCE_WITH_MASKS),
        "holds videos, such as normal/3.gif, and photos, such as anomaly/1.GIF; keep one kind (a",
    )


def test_masks_in_doubt(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "anomaly/1.png", "anomaly/2.png")
    refused(
        lambda: list_frames(tmp_path, params(masks="masks")), "no masks in masks", "folder.masks"
    )
    draw(tmp_path, "masks/2.png", size=(5, 4))
    items = list_frames(tmp_path, params(masks="masks"))
    refused(items[1].read, tmp_path / "masks/2.png", "5 x 4", "6 x 4")
    draw(tmp_path, "masks/3.png")
    refused(
        lambda: list_frames(tmp_path, params(masks="masks")),
        tmp_path / "masks/3.png",
        "no image anomaly/3",
    )


def test_masks_for_some_images_only(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "anomaly/1.png", "anomaly/2.png")
    draw(tmp_path, "masks/1.png", grey=255)
    items = list_frames(tmp_path, params(masks="masks"))
    assert [item.frame.label for item in items] == ["anomalous"] * 2 + ["normal"] * 2
    assert items[0].read()[1].all()
    assert items[1].read()[1] is None


def test_masks_with_names_of_their_own(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "anomaly/dent/1.png")
    draw(tmp_path, "masks/dent/1_mask.png", grey=255)
    items = list_frames(tmp_path, params(masks="masks/*_mask"))
    assert items[0].read()[1].all()
    draw(tmp_path, "masks/dent/1_mask.bmp")
    refused(lambda: list_frames(tmp_path, params(masks="masks/*_mask")), "masks of one image")
    refused(lambda: list_frames(tmp_path, params(masks="masks/*_x")), "no masks in masks/*_x")


def test_masks_beside_the_images_tell_the_labels(tmp_path):
    """KolektorSDD as it comes."""
    for part, grey in (("Part0", 0), ("Part1", 255), ("Part2", 0)):
        draw(tmp_path, f"kos01/{part}.jpg")
        draw(tmp_path, f"kos01/{part}_label.bmp", grey=grey)
    items = list_frames(tmp_path, params(normal="", masks="*_label"))
    assert rows(items) == [
        ("kos01/Part0", "normal", ""),
        ("kos01/Part1", "anomalous", "anomaly"),
        ("kos01/Part2", "normal", ""),
    ]
    assert [item.read()[1] is None for item in items] == [True, False, True]
    (tmp_path / "kos01/Part2.jpg").unlink()
    refused(
        lambda: list_frames(tmp_path, params(normal="", masks="*_label")),
        "Part2_label.bmp has no image kos01/Part2",
    )


def test_masks_beside_the_images_by_their_suffix(tmp_path):
    """The magnetic tiles as they come: a folder for each defect."""
    for name, grey in (("MT_Free/Imgs/1", 0), ("MT_Free/Imgs/2", 0), ("MT_Crack/Imgs/1", 255)):
        draw(tmp_path, f"{name}.jpg")
        draw(tmp_path, f"{name}.png", grey=grey)
    refused(lambda: list_frames(tmp_path, params()), "differ only in their suffix", "*.png")
    chosen = params(normal="MT_Free", anomalous="*", masks="*.png")
    items = list_frames(tmp_path, chosen)
    assert rows(items) == [
        ("MT_Crack/Imgs/1", "anomalous", "MT_Crack"),
        ("MT_Free/Imgs/1", "normal", ""),
        ("MT_Free/Imgs/2", "normal", ""),
    ]
    assert [item.read()[1] is None for item in items] == [False, True, True]
    draw(tmp_path, "MT_Free/Imgs/2.png", grey=255)
    refused(list_frames(tmp_path, chosen)[2].read, "MT_Free/Imgs/2.jpg", "marks a defect in it")


@pytest.mark.parametrize("pattern", ["*", "*/mask", "masks/*_*"])
def test_patterns_of_masks_are_checked_with_the_params(pattern):
    with pytest.raises(ValidationError, match="for the name of the image"):
        params(masks=pattern)


def test_every_image_is_normal_but_those_of_a_named_folder(tmp_path):
    draw(tmp_path, "day1/1.png", "day2/1.png", "2.png", "anomaly/1.png")
    found = rows(list_frames(tmp_path, params(normal="")))
    assert [label for _, label, _ in found] == ["normal", "anomalous", "normal", "normal"]
    assert len(list_frames(tmp_path, params(normal="", anomalous=""))) == 4


def test_the_inner_of_two_named_folders_tells_the_label(tmp_path):
    draw(tmp_path, "Images/1.png", "Images/2.png", "Images/bad/1.png")
    assert rows(list_frames(tmp_path, params("Images", "Images/bad")))[2] == (
        "Images/bad/1", "anomalous", "bad",
    )  # fmt: skip
    (tmp_path / "Images/bad").rename(tmp_path / "Images/good")
    draw(tmp_path, "Images/good/2.png")
    found = rows(list_frames(tmp_path, params("Images/good", "Images")))
    assert found[0] == ("Images/1", "anomalous", "Images")
    assert found[2:] == [("Images/good/1", "normal", ""), ("Images/good/2", "normal", "")]


def test_a_pattern_names_the_folders_of_every_day(tmp_path):
    draw(tmp_path, "day1/OK/1.png", "day1/NG/1.png", "day2/OK/1.png", "day2/NG/dent/2.png")
    refused(
        lambda: list_frames(tmp_path, params()),
        "no param names: day1/NG (1), day1/OK (1), day2/NG/dent (1), day2/OK (1); set",
        "to its sub-folders ('*/OK' name those of all folders)",
    )
    expected = [
        ("day1/NG/1", "anomalous", "NG"),
        ("day1/OK/1", "normal", ""),
        ("day2/NG/dent/2", "anomalous", "dent"),
        ("day2/OK/1", "normal", ""),
    ]
    assert rows(list_frames(tmp_path, params("*/OK", "*/NG"))) == expected
    assert rows(list_frames(tmp_path, params("day*/O*", "d*/NG"))) == expected
    expected[2] = ("day2/NG/dent/2", "anomalous", "NG")
    assert rows(list_frames(tmp_path, params("*/OK", "*"))) == expected
    draw(tmp_path, "masks/day1/NG/1.png", grey=255)
    assert list_frames(tmp_path, params("*/OK", "*/NG", "masks"))[0].read()[1].all()


def test_a_pattern_that_fits_nothing_or_too_much_is_refused(tmp_path):
    draw(tmp_path, "day1/OK/1.png", "day1/NG/1.png", "day2/OK/1.png")
    for named, key in ((("*/ok", "*/NG"), "normal"), (("*/OK", "*/N"), "anomalous")):
        refused(
            lambda named=named: list_frames(tmp_path, params(*named)),
            f"extract_frames.folder.{key} is */{'ok' if key == 'normal' else 'N'}, which fits no",
            "it holds files in day1/NG (1), day1/OK (1), day2/OK (1); mend the pattern",
        )
    refused(
        lambda: list_frames(tmp_path, params("*/OK", "*/*")),
        "normal (*/OK) and anomalous (*/*) both name the folder day1/OK",
        "set anomalous to '*'",
    )
    refused(lambda: list_frames(tmp_path, params("day1", "day1")), "both name the folder day1")


def test_only_a_star_is_a_pattern(tmp_path):
    draw(tmp_path, "[ab]/1.png", "[ab]/2.png", "a/1.png", "?/1.png")
    found = rows(list_frames(tmp_path, params("[ab]", "*")))
    assert found == [
        ("?/1", "anomalous", "?"), ("[ab]/1", "normal", ""), ("[ab]/2", "normal", ""),
        ("a/1", "anomalous", "a"),
    ]  # fmt: skip
    draw(tmp_path, "[ab]x/1.png")
    refused(lambda: list_frames(tmp_path, params("[ab]*", "?")), "no param names: a (1)")


def test_the_rest_beside_a_nested_folder_is_named_by_its_own_folders(tmp_path):
    draw(tmp_path, "data/set/normal/1.png", "data/set/normal/2.png")
    draw(tmp_path, "data/set/dent/1.png", "data/old/1.png", "more/1.png")
    found = rows(list_frames(tmp_path, params("data/set/normal", "*")))
    assert [defect for _, _, defect in found] == ["old", "dent", "", "", "more"]
    draw(tmp_path, "data/set/1.png")
    refused(
        lambda: list_frames(tmp_path, params("data/set/normal", "*")),
        "no param names: data/set (1)",
    )


def test_a_file_named_like_a_class_folder_has_no_label(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "anomaly.png")
    refused(lambda: list_frames(tmp_path, params()), "names: the folder itself (1); set")


@pytest.mark.parametrize("name", ["0", "2024", "07"])
def test_a_folder_named_by_a_number(tmp_path, name):
    draw(tmp_path, f"{name}/1.png", f"{name}/2.png", "1/1.png")
    assert params(f"./{name}", "./1").normal == name
    assert len(list_frames(tmp_path, params(f"./{name}", "./1"))) == 3
    with pytest.raises(ValidationError, match=r"begin a name like 0 with ./, as ./0"):
        params(int(name))
    with pytest.raises(ValidationError, match="write '' for none"):
        params(None)


@pytest.mark.parametrize("pattern", [r"part(\d+)", r"(x)?part(?P<group>\d+)"])
def test_group_pattern(tmp_path, pattern):
    draw(
        tmp_path,
        "normal/part1_a.png",
        "normal/part1_b.png",
        "normal/part2_a.png",
        "anomaly/part2_c.png",
    )
    items = list_frames(tmp_path, params(group_pattern=pattern))
    assert {item.frame.image: item.frame.group for item in items} == {
        "anomaly/part2_c": "2",
        "normal/part1_a": "1",
        "normal/part1_b": "1",
        "normal/part2_a": "2",
    }


def test_group_pattern_has_to_fit_every_image(tmp_path):
    draw(tmp_path, "part1.png", "part2.png", "other.png")
    refused(
        lambda: list_frames(tmp_path, params(group_pattern=r"part(\d+)")), r"part(\d+)", "other.png"
    )
    refused(lambda: list_frames(tmp_path, params(group_pattern=r"(\d*)\.png")), "other.png")


@pytest.mark.parametrize(
    ("pattern", "words"), [("part(", "not a regular expression"), ("part", "brackets")]
)
def test_group_pattern_is_checked_with_the_params(pattern, words):
    with pytest.raises(ValidationError, match=words):
        params(group_pattern=pattern)


@pytest.mark.parametrize(
    "name",
    [
        "day 1/1",
        "Positive/1",
        "Bad/1",
        "good/1",
        "Data/Images/Anomaly/1",  # VisA as it comes
        "kos01/Part5_label",  # KolektorSDD as it comes
        "Train/Good/1",
        "labels/1",
        "parts/masks/1",
    ],
)
def test_labels_by_other_names_are_not_taken_as_normal(tmp_path, name):
    draw(tmp_path, "1.png", "2.png", f"{name}.png")
    refused(
        lambda: opening.open_source(tmp_path, SOURCE),
        f"no param names: the folder itself (2), {name.rpartition('/')[0]} (1); set",
        "extract_frames.folder.normal",
    )
    assert len(list_frames(tmp_path, params(normal=""))) == 3


def test_image_outside_of_the_labels(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "rust/1.png")
    refused(lambda: list_frames(tmp_path, params()), "names: rust (1); set", "now normal, anomaly")


def test_too_few_images(tmp_path):
    refused(lambda: list_frames(tmp_path, params()), tmp_path, "0 normal images")
    draw(tmp_path, "1.png")
    refused(lambda: list_frames(tmp_path, params()), "1 normal images", "at least two")
    refused(lambda: list_frames(tmp_path / "absent", params()), "absent is not a folder")


def test_two_images_of_one_name(tmp_path):
    draw(tmp_path, "1.png", "1.jpg")
    refused(lambda: list_frames(tmp_path, params()), "1.jpg and", "differ only in their suffix")


def test_images_are_read_when_asked(tmp_path):
    draw(tmp_path, "1.png", "2.png", "3.png", size=(3, 3))
    (tmp_path / "3.png").write_bytes(b"")
    items = list_frames(tmp_path, params())
    assert np.array_equal(items[0].read()[0], np.full((3, 3, 3), 90))
    refused(items[2].read, tmp_path / "3.png", "empty")


@pytest.mark.skipif(not ALIENS.is_dir(), reason="needs ../shared/data/folder/aliens")
def test_aliens():
    items = list_frames(ALIENS, params())
    assert Counter(item.frame.label for item in items) == {"normal": 58, "anomalous": 60}
    assert {item.frame.defect for item in items} == {"", "anomaly"}
    assert items[0].read()[0].shape == (380, 550, 3)


def test_a_mask_beside_its_image_is_no_photo(tmp_path):
    draw(tmp_path, "normal/1.png", "normal/2.png", "anomaly/a.png", "anomaly/a_side.png")
    assert len(list_frames(tmp_path, params())) == 4
    mask = np.zeros((6, 4), np.uint8)
    mask[2, 1] = 255
    write_png(tmp_path / "anomaly/a_mask.png", mask)
    refused(
        lambda: list_frames(tmp_path, params()),
        "a_mask.png has two grey levels and is named like a.png",
        "extract_frames.folder.masks to '*_mask'",
    )
    assert len(list_frames(tmp_path, params(masks="*_mask"))) == 4
