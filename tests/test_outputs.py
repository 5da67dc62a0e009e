import itertools
import json
import math
import shutil

import pytest
from kills import killed_at

from blackswan.errors import InputError
from blackswan.outputs import replace_file, replace_folder, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "deep/out"
    for content in ("one", "two"):
        with replace_folder(target) as folder:
            assert names(folder) == []
            (folder / content).write_text(content)
            assert not (target / content).exists()
        assert names(target) == [content]
    assert names(target.parent) == ["out"]


def fail_inside(context):
    with context as partial:
        (partial / "new" if partial.is_dir() else partial).write_text("half")
        raise ZeroDivisionError


def test_a_folder_stays_when_the_block_fails(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "earlier").touch()
    with pytest.raises(ZeroDivisionError):
        fail_inside(replace_folder(target))
    assert names(target) == ["earlier"]
    assert names(tmp_path) == ["out"]


def test_what_a_kill_left_behind_is_cleared(tmp_path):
    for name in (".out.partial", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rest").touch()
    with replace_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["new"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep/a.csv"
    with replace_file(target) as partial:
        partial.write_text("one")
    with pytest.raises(ZeroDivisionError):
        fail_inside(replace_file(target))
    assert target.read_text() == "one"
    assert names(target.parent) == ["a.csv"]


def test_a_linked_folder_is_replaced_where_it_lies(tmp_path):
    disk = tmp_path / "disk/frames"
    disk.mkdir(parents=True)
    (disk / "earlier").touch()
    (tmp_path / "data").mkdir()
    link = tmp_path / "data/frames"
    link.symlink_to("../disk/frames")
    with pytest.raises(ZeroDivisionError):
        fail_inside(replace_folder(link))
    assert names(link) == ["earlier"]
    with replace_folder(link) as folder:
        assert folder.parent == disk.parent  # beside it, so that it can be renamed
        (folder / "new").touch()
    assert link.is_symlink()
    assert names(link) == names(disk) == ["new"]
    assert names(tmp_path / "disk") == names(tmp_path / "data") == ["frames"]


def test_a_linked_folder_that_a_kill_left_renamed_comes_back(tmp_path):
    (tmp_path / ".disk.old").mkdir()
    (tmp_path / ".disk.old/earlier").touch()
    (tmp_path / "frames").symlink_to("disk")
    with pytest.raises(ZeroDivisionError):
        fail_inside(replace_folder(tmp_path / "frames"))
    assert names(tmp_path / "disk") == ["earlier"]


def test_outputs_below_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    with replace_folder(tmp_path / "data/frames") as folder:
        (folder / "new").touch()
    write_json(tmp_path / "data/a.json", {})
    assert names(tmp_path / "disk") == ["a.json", "frames"]
    assert names(tmp_path / "disk/frames") == ["new"]


def test_a_linked_file_is_replaced_and_what_lies_behind_stays(tmp_path):
    (tmp_path / "cache").write_text("earlier")
    (tmp_path / "a.csv").symlink_to("cache")
    with replace_file(tmp_path / "a.csv") as partial:
        partial.write_text("new")
    assert not (tmp_path / "a.csv").is_symlink()
    assert (tmp_path / "a.csv").read_text() == "new"
    assert (tmp_path / "cache").read_text() == "earlier"


def refused(context, words):
    with pytest.raises(InputError, match=words), context:
        pytest.fail("nothing may be written")


def test_a_place_that_cannot_be_taken_is_named_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "gone").symlink_to("/mnt/gone")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    for replace in (replace_folder, replace_file):
        refused(replace(tmp_path / "file/out"), "file is a file where a folder is needed; move it")
        refused(replace(tmp_path / "gone/out"), "gone is a broken link; mend it or remove it")
    refused(replace_folder(tmp_path / "file"), "file is a file where a folder is to be written")
    refused(replace_folder(tmp_path / "link"), "link is a file where a folder is to be written")
    refused(replace_folder(tmp_path / "gone"), "gone is a link to /mnt/gone, which is missing")
    refused(replace_file(tmp_path / "folder"), "folder is a folder where a file is to be written")
    monkeypatch.setattr(type(tmp_path), "is_mount", lambda path: path.name == "folder")
    refused(
        replace_folder(tmp_path / "folder"),
        "folder is a mount point, which cannot be replaced; mount its parent",
    )
    assert names(tmp_path) == ["file", "folder", "gone", "link"]
    assert (tmp_path / "file").read_text() == "mine"


def test_json_is_sorted_and_rounded(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1 / 3, (2e-9, 7)], "a": {"z": True, "y": None, "x": 123456789.0}})
    assert path.read_text().endswith("}\n")
    assert json.loads(path.read_text()) == {
        "a": {"x": 123457000.0, "y": None, "z": True},
        "b": [0.333333, [2e-09, 7]],
    }
    assert path.read_text().index('"a"') < path.read_text().index('"b"')


def test_json_takes_no_nan_and_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


OLD = {"a": "old", "deep/b": "old", "deep/c": "old"}
NEW = {"a": "new", "deep/d": "new"}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def read(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def replace(target):
    with replace_folder(target) as folder:
        write(folder, NEW)


def whole(root):
    """Tell whether nothing under the name of the output, or beside it for a rename, is half."""
    places = [root / name for name in ("out", ".out.old")]
    return all(read(place) in (OLD, NEW) for place in places if place.exists())


@pytest.mark.parametrize("dvc_deletes_outputs", [False, True])
def test_killed_anywhere_a_folder_is_the_old_one_or_the_new_one(tmp_path, dvc_deletes_outputs):
    for number in itertools.count(1):
        root = tmp_path / str(number)
        write(root / "out", OLD)
        killed = killed_at(number, lambda root=root: replace(root / "out"))
        assert whole(root)
        assert names(root) != [".out.partial"]
        if dvc_deletes_outputs:
            shutil.rmtree(root / "out", ignore_errors=True)
        replace(root / "out")
        assert names(root) == ["out"]
        assert read(root / "out") == NEW
        if not killed:
            break
    assert number > 10


@pytest.mark.slow
@pytest.mark.parametrize("dvc_deletes_outputs", [False, True])
def test_killed_twice_a_folder_is_the_old_one_or_the_new_one(tmp_path, dvc_deletes_outputs):
    for first, second in itertools.product(range(1, 15), range(1, 20)):
        root = tmp_path / f"{first} {second}"
        write(root / "out", OLD)
        killed_at(first, lambda root=root: replace(root / "out"))
        if dvc_deletes_outputs:
            shutil.rmtree(root / "out", ignore_errors=True)
        killed_at(second, lambda root=root: replace(root / "out"))
        assert whole(root)
        replace(root / "out")
        assert names(root) == ["out"]
        assert read(root / "out") == NEW


def test_killed_anywhere_a_file_is_the_old_one_or_the_new_one(tmp_path):
    target = tmp_path / "deep/a.csv"

    def replace_it():
        with replace_file(target) as partial:
            partial.write_text("new")

    for number in itertools.count(1):
        write(tmp_path / "deep", {"a.csv": "old"})
        killed = killed_at(number, replace_it)
        assert target.read_text() in ("old", "new")
        replace_it()
        assert read(target.parent) == {"a.csv": "new"}
        if not killed:
            break
    assert number > 2
