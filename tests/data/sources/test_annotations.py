import json

import cv2
import numpy as np
import pytest
from conftest import ROOT, SHARED

from blackswan.data.sources import folder
from blackswan.data.sources.annotations import Interval, list_frames, read_times
from blackswan.data.sources.opening import Params, open_source
from blackswan.errors import InputError
from blackswan.params import load_section

PARAMS = load_section(Params, "extract_frames", ROOT / "params.yaml")


def folders(**changes):
    return folder.Params.model_validate(PARAMS.folder.model_dump() | changes)


@pytest.fixture
def photos(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/odd.png", "rest.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((10, 12, 3), 90, np.uint8))
    return tmp_path


def read(photos, name, text, **changes):
    (photos / name).write_text(text)
    return {
        item.frame.image: (item.frame.label, item.frame.defect, item.read()[1])
        for item in list_frames(photos, folders(annotations=name, **changes))
    }


def coco(annotations, **changes):
    names = ["C:\\export\\a\\1.png", "a/2.png", "images/b/odd.png"]
    images = [
        {"id": n, "file_name": name, "height": 10, "width": 12} for n, name in enumerate(names)
    ]
    categories = [{"id": 3, "name": "dent"}, {"id": 7, "name": "scratch"}]
    found = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(found | changes)


def test_coco(photos, capsys):
    polygon = [[3, 2, 7, 2, 7, 4, 3, 4]]
    runs = {"counts": [1, 2, 117], "size": [10, 12]}
    found = read(
        photos,
        "coco.json",
        coco(
            [
                {"image_id": 2, "category_id": 3, "segmentation": polygon},
                {"image_id": 2, "category_id": 7, "segmentation": runs},
                {"image_id": 2, "category_id": 3, "bbox": [9, 8, 2, 1]},
            ]
        ),
    )
    assert found["a/1"] == found["a/2"] == ("normal", "", None)
    label, defect, mask = found["b/odd"]
    assert (label, defect) == ("anomalous", "dent+scratch")
    expected = np.zeros((10, 12), bool)
    expected[2:5, 3:8] = expected[1:3, 0] = expected[8, 9:11] = True
    assert np.array_equal(mask, expected)
    assert capsys.readouterr().err == f"{photos}: left out 2 images that coco.json does not name\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "is neither COCO"),
        ("[", "is no JSON"),
        (coco([], categories=[{"id": 3, "name": ""}]), "a category without a name"),
        (coco([{"image_id": 9, "category_id": 3, "bbox": [1, 1, 1, 1]}]), "is neither COCO"),
        (
            coco([], images=[{"id": 1, "file_name": "c/1.png", "height": 1, "width": 1}]),
            r"may be .*a/1.png or .*b/1.png",
        ),
        (
            coco([], images=[{"id": 1, "file_name": "new.png", "height": 1, "width": 1}]),
            "names new.png, which is not below",
        ),
        (
            coco([{"image_id": 2, "category_id": 3, "segmentation": {"counts": "abc"}}]),
            "compressed mask",
        ),
    ],
)
def test_coco_that_is_in_doubt_is_refused(photos, text, said):
    with pytest.raises(InputError, match=said):
        read(photos, "coco.json", text)


def test_all_files_that_are_missing_are_named_at_once(photos):
    images = [
        {"id": n, "file_name": name, "height": 10, "width": 12}
        for n, name in enumerate(["a/1.png", *(f"x/p{n}.png" for n in range(11))])
    ]
    with pytest.raises(InputError) as caught:
        read(photos, "coco.json", coco([], images=images))
    assert str(caught.value) == (
        f"{photos}/coco.json names 11 files that are not below {photos}: x/p0.png, x/p1.png, "
        "x/p2.png, x/p3.png, x/p4.png, x/p5.png, x/p6.png, x/p7.png, 3 more; add them, or "
        "remove them from coco.json"
    )
    lines = [line(f"{n}.png", label=classified("normal")) for n in (8, 9)]
    with pytest.raises(InputError, match=r"names 2 files that are not below .*any/8.png, s3:"):
        read(photos, "all.manifest", "\n".join(lines))


def line(name, **labels):
    row = {"source-ref": f"s3://bucket/any/{name}"}
    for key, (value, metadata) in labels.items():
        row |= {key: value, f"{key}-metadata": metadata}
    return json.dumps(row)


def classified(name):
    return 1, {"class-name": name, "type": "groundtruth/image-classification"}


def test_a_manifest_of_classes_boxes_and_colours(photos):
    picture = np.full((10, 12, 3), 255, np.uint8)
    picture[2:5, 3:8] = (0x23, 0xA4, 0x36)
    (photos / "masks").mkdir()
    cv2.imwrite(str(photos / "masks/odd.png"), picture[:, :, ::-1])
    colours = {
        "type": "groundtruth/semantic-segmentation",
        "internal-color-map": {
            "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"},
            "1": {"class-name": "cracked", "hex-color": "#23A436"},
        },
    }
    one = {"class_id": 0, "left": 1, "top": 2, "width": 3, "height": 4}
    boxes = (
        {"annotations": [one]},
        {"type": "groundtruth/object-detection", "class-map": {"0": "dent"}},
    )
    found = read(
        photos,
        "all.manifest",
        "\n".join(
            [
                line("a/1.png", label=classified("normal")),
                line("a/2.png", label=classified("normal")),
                line("b/1.png", box=boxes),
                line(
                    "b/odd.png", label=classified("anomaly"), mask=("s3://x/masks/odd.png", colours)
                ),
                "",
            ]
        ),
    )
    assert {name: label[:2] for name, label in found.items()} == {
        "a/1": ("normal", ""),
        "a/2": ("normal", ""),
        "b/1": ("anomalous", "dent"),
        "b/odd": ("anomalous", "cracked"),
    }
    assert np.argwhere(found["b/1"][2]).min(axis=0).tolist() == [2, 1]
    assert found["b/1"][2].sum() == 12
    assert found["b/odd"][2].sum() == 15


def test_a_class_that_no_param_names_is_refused(photos):
    text = line("a/1.png", label=classified("ok"))
    with pytest.raises(InputError, match="has the class ok; set extract_frames.folder.normal"):
        read(photos, "all.jsonl", text)
    lines = [line(name, label=classified("ok")) for name in ("a/1.png", "a/2.png")]
    found = read(photos, "all.jsonl", "\n".join(lines), normal="ok")
    assert [label[0] for label in found.values()] == ["normal", "normal"]


VISA = "image,label,mask\nx/a/1.png,normal,\nx/a/2.png,normal,\n"


def test_a_table_of_images(photos):
    """VisA as it comes, with labels of several classes."""
    mask = np.zeros((10, 12), np.uint8)
    mask[4, 5] = 3
    cv2.imwrite(str(photos / "b/mask.png"), mask)
    text = f'{VISA}x/b/odd.png,"burnt,stuck",x/b/mask.png\nx/b/1.png,burnt,\n'
    with pytest.raises(InputError, match=r"has the class burnt; set .* '\*' for every other"):
        read(photos, "image_anno.csv", text)
    found = read(photos, "image_anno.csv", text, anomalous="*")
    assert {name: label[:2] for name, label in found.items()} == {
        "a/1": ("normal", ""),
        "a/2": ("normal", ""),
        "b/1": ("anomalous", "burnt"),
        "b/odd": ("anomalous", "burnt+stuck"),
    }
    assert np.argwhere(found["b/odd"][2]).tolist() == [[4, 5]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "has the columns a, b; of photos it needs image and label, and may have mask"),
        ("video,start_s,end_s,defect\n", "gives the times of videos, and .* holds none"),
        (f"{VISA}a/1.png,normal,\n", "line 4 of .* names an image twice"),
        (f"{VISA}b/1.png,,\n", "line 4 of .* has no label"),
        (f"{VISA}b/9.png,normal,\n", "names b/9.png, which is not below"),
        (f"{VISA},normal,\n", "line 4 of .* names no image"),
        (f"{VISA}b/1.png,bent,burnt,\n", "line 4 of .* has more values than columns; quote"),
        (f'{VISA}"b/1.png,normal,\n', "is no table .*; mend its quotes"),
    ],
)
def test_a_table_in_doubt_is_refused(photos, text, said):
    with pytest.raises(InputError, match=said):
        read(photos, "image_anno.csv", text)


def test_times_of_videos(tmp_path):
    table = tmp_path / "times.csv"
    table.write_text("video,start_s,end_s,defect\na.mp4,1.5,2,smoke\na.mp4,1,,fire\n")
    assert read_times(table, ["a.mp4", "b.mp4"]) == {
        "a.mp4": [Interval(1.5, 2, "smoke"), Interval(1, float("inf"), "fire")]
    }
    table.write_text("video,start_s,end_s,defect\n,1,2,smoke\n")
    assert list(read_times(table, ["b.mp4"])) == ["b.mp4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "has the columns a, b; make its first line video,start_s,end_s,defect"),
        ("video,start_s,end_s,defect\nc.mp4,1,2,smoke\n", "line 2 of .* names the video c.mp4"),
        ("video,start_s,end_s,defect\na.mp4,2,1,smoke\n", "line 2 of .* needs start_s, a later"),
        ("video,start_s,end_s,defect\na.mp4,1,2,\n", "and a defect"),
        ("video,start_s,end_s,defect\na.mp4,x,2,smoke\n", "needs start_s"),
        ("video,start_s,end_s,defect\na.mp4,1\n", "and a defect"),
        (
            "video,start_s,end_s,defect\na.mp4,1,2,smoke,fire\n",
            "line 2 of .* needs start_s, a later",
        ),
        ("video,start_s,end_s,defect\n\n,1,2,smoke\n", "line 3 of .* the video of no name"),
        ("video,start_s,end_s,defect\na.mp4,1,2,Ri\xdf\n", "is no table in UTF-8; save it as"),
        ('video,start_s,end_s,defect\n"a.mp4,1,2,smoke\n', "is no table .*; mend its quotes"),
    ],
)
def test_times_that_are_none_are_refused(tmp_path, text, said):
    (tmp_path / "times.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=said):
        read_times(tmp_path / "times.csv", ["a.mp4", "b.mp4"])


def test_times_label_a_video_that_is_the_source_itself(tmp_path, drawn_clip, capsys):
    clip = tmp_path / "clip.avi"
    clip.write_bytes(drawn_clip.read_bytes())
    (tmp_path / "times.csv").write_text(
        "video,start_s,end_s,defect\nclip.avi,0.5,0.7,smoke\nclip.avi,60,90,fire\n"
    )
    params = PARAMS.model_copy(update={"folder": folders(annotations="times.csv")})
    labels = [item.frame.defect for item in open_source(clip, params).images]
    assert labels == [""] * 10 + ["smoke"] * 4 + [""] * 26
    assert "clip.avi: no frame that was taken shows fire from 60 to 90 s" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
@pytest.mark.parametrize(
    ("name", "changes", "normal", "anomalous"),
    [
        ("lookout_cookies", {"annotations": "manifest.jsonl"}, 31, 32),
        ("deeppcb", {"masks": "boxes"}, 70, 70),
    ],
)
def test_read_as_they_lie_there(name, changes, normal, anomalous):
    params = PARAMS.model_copy(update={"folder": folders(**changes)})
    items = list(open_source(SHARED / name, params).images)
    masks = [item.read()[1] for item in items]
    assert sum(item.frame.label == "normal" for item in items) == normal
    assert sum(mask is not None for mask in masks) == anomalous
    assert all(0 < mask.mean() < 0.5 for mask in masks if mask is not None)
