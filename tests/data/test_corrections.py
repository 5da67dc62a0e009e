import pytest

from blackswan.data.corrections import COLUMNS, Correction, corrected, write_corrections
from blackswan.data.records import Frame
from blackswan.errors import InputError

FRAMES = [
    Frame("images/a.png", "s", label="normal"),
    Frame("images/b.png", "s", label="anomalous", defect="scratch", mask="masks/b.png"),
    Frame("images/c.png", "s", label="anomalous", defect="hole", mask="masks/c.png"),
    Frame("images/d.png", "s", label="anomalous", defect="hole", mask="masks/d.png"),
    Frame("images/e.png", "s", label="normal"),
]


def test_what_people_decided_outranks_the_source(tmp_path):
    path = tmp_path / "corrections.csv"
    rows = [("e", "anomalous", "dent"), ("b", "normal", ""), ("c", "anomalous", ""),
            ("d", "anomalous", "dent")]  # fmt: skip
    write_corrections(
        path, [Correction(f"images/{name}.png", *said, "anna", "now") for name, *said in rows]
    )
    assert path.read_text().splitlines()[:2] == [
        "image,label,defect,user,time",
        "images/b.png,normal,,anna,now",
    ]
    found = [(frame.label, frame.defect, frame.mask) for frame in corrected(FRAMES, path)]
    assert found == [
        ("normal", "", ""),
        ("normal", "", ""),
        ("anomalous", "hole", "masks/c.png"),
        ("anomalous", "dent", "masks/d.png"),
        ("anomalous", "dent", ""),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the first line of .* must be image,label"),
        (["image,label"], "the first line of .* must be image,label"),
        ([",".join(COLUMNS), "images/a.png,good,,anna,now"], "line 2 of .* needs image,label"),
        ([",".join(COLUMNS), "images/a.png,normal,dent,anna,now"], "line 2 of .* needs image"),
        ([",".join(COLUMNS), "images/a.png,normal"], "line 2 of .* needs image"),
        ([",".join(COLUMNS), *["images/a.png,normal,,a,n"] * 2], "line 3 .* names images/a.png ag"),
        ([",".join(COLUMNS), "images/z.png,normal,,a,n"], "names images/z.png, which is no image"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, lines, message):
    path = tmp_path / "corrections.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=message):
        corrected(FRAMES, path)


def test_without_a_table_nothing_is_corrected(tmp_path):
    assert corrected(FRAMES, tmp_path / "corrections.csv") == FRAMES
