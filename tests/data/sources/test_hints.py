"""What labels a source and is named by no param, and the param that reads it."""

import json

import cv2
import numpy as np
import pytest
from conftest import ROOT

from blackswan.data.sources import folder
from blackswan.data.sources.hints import find
from blackswan.data.sources.opening import Params, open_source
from blackswan.errors import InputError
from blackswan.params import load_section

PARAMS = load_section(Params, "extract_frames", ROOT / "params.yaml")
POINTS = {"points": [[1, 1], [4, 1], [4, 4]], "shape_type": "polygon"}
LABELME = json.dumps({"shapes": [POINTS], "imageHeight": 10, "imageWidth": 12})
COCO = json.dumps(
    {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": 10, "width": 12} for n in range(1, 5)
        ],
        "annotations": [{"image_id": 4, "category_id": 1, "bbox": [1, 1, 2, 2]}],
        "categories": [{"id": 1, "name": "dent"}],
    }
)
CLASS = {"class-name": "normal", "type": "groundtruth/image-classification"}
LINES = [
    json.dumps({"source-ref": f"s3://x/{n}.png", "label": 0, "label-metadata": CLASS})
    for n in range(1, 5)
]
TABLE = "image,label,mask\n" + "".join(f"{n}.png,normal,\n" for n in range(1, 5))


@pytest.fixture
def photos(tmp_path):
    for number in range(1, 5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((10, 12, 3), 90, np.uint8))
    return tmp_path


def read(path, **changes):
    names = folder.Params.model_validate(PARAMS.folder.model_dump() | changes)
    return list(open_source(path, PARAMS.model_copy(update={"folder": names})).images)


def count(path, **changes):
    return [item.frame.label for item in read(path, **changes)].count("anomalous")


@pytest.mark.parametrize(
    ("name", "text", "what", "param", "value"),
    [
        ("4.json", LABELME, "LabelMe files such as 4.json", "masks", "*.json"),
        ("4.txt", "1 1 5 5 3\n", "boxes such as 4.txt", "masks", "*.txt"),
        ("all.json", COCO, "all.json, a COCO file", "annotations", "all.json"),
        ("a.manifest", "\n".join(LINES), "a manifest of SageMaker", "annotations", "a.manifest"),
        ("a.csv", TABLE, "a table of images and labels", "annotations", "a.csv"),
    ],
)
def test_labels_beside_photos_are_named_and_the_param_reads_them(
    photos, capsys, name, text, what, param, value
):
    (photos / name).write_text(text)
    (photos / "readme.txt").write_text("four parts")
    with pytest.raises(InputError, match="every file would be normal; set ") as caught:
        count(photos)
    assert what in str(caught.value)
    quoted = f"'{value}'" if "*" in value else value
    assert str(caught.value).endswith(
        f'folder.normal to "" if so, or extract_frames.folder.{param}={quoted}'
    )
    assert count(photos, **{param: value}) == (name in ("4.json", "4.txt", "all.json"))
    capsys.readouterr()
    assert count(photos, normal="") == 0
    assert f"is not read; extract_frames.folder.{param}={quoted} reads" in capsys.readouterr().err


def test_outlines_in_a_folder_of_their_own_are_told(tmp_path, capsys):
    for name in ("normal/1.png", "normal/2.png", "anomaly/dent/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.full((10, 12, 3), 90, np.uint8))
    (tmp_path / "boxes/dent").mkdir(parents=True)
    (tmp_path / "boxes/dent/1.txt").write_text("1,1,5,5\n")
    assert count(tmp_path) == 1
    assert capsys.readouterr().err.splitlines()[1] == (
        f"{tmp_path}: boxes such as boxes/dent/1.txt, is not read; "
        "extract_frames.folder.masks=boxes reads it"
    )


def test_folders_that_no_param_names_hint_at_the_file_that_labels_them(photos):
    (photos / "more").mkdir()
    (photos / "1.png").rename(photos / "more/1.png")
    (photos / "all.jsonl").write_text("\n".join(LINES))
    with pytest.raises(InputError, match=r"normal, or extract_frames.folder.annotations=all.jsonl"):
        count(photos)


def test_shares_of_an_image_are_no_pixels(photos):
    (photos / "4.txt").write_text("0 0.3 0.5 0.4 0.2\n")
    with pytest.raises(InputError, match=r"\(YOLO\), such as 4.txt, .* once they are lines"):
        count(photos)
    with pytest.raises(InputError, match=r"4.txt holds boxes as shares of the image, as YOLO has"):
        read(photos, masks="*.txt")[3].read()


def test_files_of_other_kinds_are_no_hint(photos):
    (photos / "settings.json").write_text("{}")
    (photos / "empty.json").touch()
    (photos / "1.txt").write_text("scratched?\n")
    (photos / "2.txt").touch()
    (photos / "3.json").write_text("[]")
    (photos / "scores.csv").write_text("name,score\n")
    assert find(photos, {"1", "2", "3", "4"}, "anomaly") == []
    assert count(photos) == 0


def test_times_beside_clips(tmp_path, drawn_clip):
    for name in ("a.avi", "b.avi"):
        (tmp_path / name).write_bytes(drawn_clip.read_bytes())
    (tmp_path / "times.csv").write_text("video,start_s,end_s,defect\na.avi,0,1,smoke\n")
    with pytest.raises(InputError, match=r"times.csv, a table of times, .*annotations=times.csv"):
        count(tmp_path)
    assert count(tmp_path, annotations="times.csv") == 20
