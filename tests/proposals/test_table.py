"""A table that is broken ends in one sentence and stays as it is."""

import pytest
from drawn_proposals import row

from blackswan.errors import InputError
from blackswan.proposals.table import COLUMNS, opened, read_proposals


@pytest.fixture
def path(tmp_path):
    with opened(tmp_path / "proposals.csv") as table:
        table.add(row(1))
        table.add(row(2, label="anomalous", defect="new", confidence=None, tokens_in=None))
    return tmp_path / "proposals.csv"


def test_rows_come_back_as_they_were(path):
    first, second = read_proposals(path)
    assert first == row(1)
    assert second == row(2, label="anomalous", defect="new", confidence=None, tokens_in=None)
    assert read_proposals(path.with_name("other.csv")) == []


def test_an_editor_may_leave_out_the_last_line_break(path):
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with opened(path) as table:
        table.add(row(3))
    assert [each.image for each in read_proposals(path)] == ["1.png", "2.png", "3.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: text.replace("image,", "picture,", 1),
            "the first line of PATH must be image,",
        ),
        (lambda text: text + "a,b\n", "line 4 of PATH is no proposal; mend or remove it"),
        (lambda text: text.replace("0.06", "much", 1), "line 2 of PATH is no proposal"),
        (lambda text: text.replace(",proposed,", ",sure,", 1), "line 2 of PATH is no proposal"),
        (lambda text: text.replace(",normal,none", ",fine,none", 1), "line 2 of PATH is no"),
        (lambda text: text.replace(",false,", ",no,", 1), "line 2 of PATH is no proposal"),
        (lambda text: text.replace(",0.0022", ",nan", 1), "line 2 of PATH is no proposal"),
        (lambda text: text + '"open', "line 4 of PATH is no proposal"),
        (
            lambda text: text + text.splitlines()[1] + "\n",
            "PATH has two rows of 1.png by gpt and v1",
        ),
    ],
)
def test_a_broken_table_is_named_and_stays(path, change, message):
    path.write_text(change(path.read_text()))
    before = path.read_bytes()
    with pytest.raises(InputError) as raised, opened(path):
        pass
    assert str(raised.value).startswith(message.replace("PATH", str(path)))
    assert path.read_bytes() == before


def test_what_is_no_text_is_named(path):
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"proposals\.csv is no table in UTF-8"):
        read_proposals(path)


def test_two_runs_do_not_write_one_table(path):
    with opened(path), pytest.raises(InputError, match="another run writes"), opened(path):
        pass


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(InputError, match="is a folder; name a file with --out"), opened(tmp_path):
        pass


def test_the_columns_are_those_that_people_know():
    assert COLUMNS[:6] == ["image", "sha256", "status", "label", "defect", "confidence"]
