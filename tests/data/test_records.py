import pytest

from blackswan.data.records import COLUMNS, Frame, read_index, write_index
from blackswan.errors import InputError


def test_what_is_written_is_read(tmp_path):
    frames = [
        Frame("images/b.png", "clip.mp4", 0.041667, "clip.mp4/000000", "train", "normal"),
        Frame("images/NA.png", "null", None, "nan", "test", "anomalous", "None", "masks/NA.png"),
        Frame('images/a,"ü".png', "x"),
    ]
    write_index(tmp_path / "index.csv", frames)
    assert read_index(tmp_path / "index.csv") == sorted(frames, key=lambda frame: frame.image)


def test_order_of_writing_changes_no_byte(tmp_path):
    frames = [Frame(f"{number:03d}", "s", number / 24) for number in range(30)]
    write_index(tmp_path / "a.csv", frames)
    write_index(tmp_path / "b.csv", reversed(frames))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.csv").read_text().splitlines()[:3] == [
        ",".join(COLUMNS),
        "000,s,0.000000,,,,,",
        "001,s,0.041667,,,,,",
    ]


def test_an_index_may_be_empty(tmp_path):
    write_index(tmp_path / "index.csv", [])
    assert read_index(tmp_path / "index.csv") == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing or empty"),
        (b"", "is missing or empty"),
        (b"a,b\n1,2\n", r"has the columns \['a', 'b'\]"),
        (b"\xff\xfe\x00\x01", "is no index"),
        (",".join(COLUMNS).encode() + b"\na,b,soon,,,,,\n", "is no index"),
    ],
)
def test_what_is_no_index_is_refused(tmp_path, content, words):
    path = tmp_path / "index.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_index(path)
