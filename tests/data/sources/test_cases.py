"""Folders and layouts that other people hold, as they lie there."""

import shutil
from collections import Counter

import pytest
from conftest import ROOT, SHARED

from blackswan.data.decoding import FORMATS
from blackswan.data.sources import folder
from blackswan.data.sources.opening import Params, open_source
from blackswan.errors import InputError
from blackswan.params import load_section

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
NO_HEIF = pytest.mark.skipif("HEIF" in FORMATS, reason="the files are HEIC by name only")
PARAMS = load_section(Params, "extract_frames", ROOT / "params.yaml")


def read(case, category="", **changes):
    names = folder.Params.model_validate(PARAMS.folder.model_dump() | changes)
    params = PARAMS.model_copy(update={"category": category, "folder": names})
    return list(open_source(CASES / case, params).images)


@pytest.mark.parametrize(
    ("case", "changes", "counts"),
    [
        ("concrete_crack", {"normal": "Negative", "anomalous": "Positive"}, {"": 8, "Positive": 8}),
        ("concrete_crack", {"normal": "Negative", "anomalous": "*"}, {"": 8, "Positive": 8}),
        ("some_masks", {"masks": "masks"}, {"": 8, "anomaly": 4}),
        ("ksdd", {"normal": "", "masks": "*_label"}, {"": 8, "anomaly": 4}),
        pytest.param("heic", {}, {"": 12, "anomaly": 3}, marks=NO_HEIF),
        ("trainnormal", {}, {"": 16, "abnormal": 4}),
        ("flat_test", {}, {"": 10}),
        ("no_test_good", {}, {"": 10, "hole": 3, "scratch": 3}),
        (
            "loco",
            {"category": "juice"},
            {"": 16, "logical_anomalies": 2, "structural_anomalies": 2},
        ),
    ],
)
def test_read_as_it_lies_there(case, changes, counts):
    items = read(case, **changes)
    assert Counter(item.frame.defect for item in items) == counts
    assert all((item.frame.label == "normal") == (not item.frame.defect) for item in items)
    for item in items:
        item.read()


def test_masks_for_some():
    masks = [item.read()[1] for item in read("some_masks", masks="masks")]
    assert [mask is not None for mask in masks] == [True] * 3 + [False] * 9
    masks = [item.read()[1] for item in read("loco", category="juice")]
    assert sum(mask is not None and bool(mask.any()) for mask in masks) == 4


def test_splits_of_the_layouts():
    def splits(case, **changes):
        return Counter(item.frame.split for item in read(case, **changes))

    assert splits("loco", category="juice") == {"train": 8, "validation": 4, "test": 8}
    assert splits("trainnormal") == {"train": 8, "test": 12}
    assert splits("flat_test") == {"": 10}
    assert splits("no_test_good") == {"": 10, "test": 6}


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("concrete_crack", "Negative (8), Positive (8)"),
        ("ksdd", "kos00 (6), kos01 (6), kos02 (6), kos03 (6)"),
        ("some_masks", "masks (3)"),
    ],
)
def test_folders_that_no_param_names(case, found):
    with pytest.raises(InputError, match="in folders that no param names: ") as caught:
        read(case)
    assert found in str(caught.value)


@NO_HEIF
def test_what_is_left_out_is_said(capsys):
    read("heic")
    assert "left out 6 .heic; `pip install pillow-heif` reads HEIC\n" in capsys.readouterr().err
    read("flat_test")
    assert "left out 4 test images without a label" in capsys.readouterr().err


def test_clips_are_labelled_by_folder_and_by_times(tmp_path):
    labels = Counter((item.frame.source, item.frame.label) for item in read("labelled_videos"))
    assert labels == {("normal/a.mp4", "normal"): 60, ("anomaly/b.mp4", "anomalous"): 60}
    shutil.copytree(CASES / "labelled_videos", tmp_path / "clips")
    (tmp_path / "clips").chmod(0o755)
    (tmp_path / "clips/times.csv").write_text(
        "video,start_s,end_s,defect\nnormal/a.mp4,1,1.5,smoke\nanomaly/b.mp4,0.5,,fire\n"
    )
    labels = Counter(
        (item.frame.source, item.frame.defect)
        for item in read(tmp_path / "clips", annotations="times.csv")
    )
    assert labels.keys() == {
        ("normal/a.mp4", ""),
        ("normal/a.mp4", "smoke"),
        ("anomaly/b.mp4", ""),
        ("anomaly/b.mp4", "fire"),
    }
    assert labels["normal/a.mp4", "smoke"] < 20 < labels["anomaly/b.mp4", "fire"]
