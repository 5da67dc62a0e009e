import json
import math

import pytest

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
