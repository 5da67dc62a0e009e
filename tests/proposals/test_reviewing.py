"""Only what a person signed becomes a correction, and what stands there stays."""

import csv

import numpy as np
import pytest
from conftest import draw_part
from drawn_proposals import row

from blackswan.data.corrections import Correction, read_corrections, write_corrections
from blackswan.data.images import write_png
from blackswan.data.known import sha256_of
from blackswan.data.records import Frame, write_index
from blackswan.errors import InputError
from blackswan.proposals.reviewing import confirm, read_labels, write_review
from blackswan.proposals.table import opened


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Four frames, one of them of a photo, proposals of three and of an image from elsewhere."""
    monkeypatch.chdir(tmp_path)
    rng, frames = np.random.default_rng(0), tmp_path / "data/frames"
    for number in range(4):
        write_png(frames / f"images/{number}.png", draw_part(rng)[0])
    write_png(tmp_path / "raw/3.png", draw_part(rng)[0])
    write_index(frames / "index.csv", [Frame(f"images/{number}.png", "raw") for number in range(4)])
    sha256 = [sha256_of((frames / f"images/{number}.png").read_bytes()) for number in range(3)]
    sha256.append(sha256_of((tmp_path / "raw/3.png").read_bytes()))
    with opened(tmp_path / "proposals.csv") as table:
        table.add(row(0, sha256=sha256[0], label="anomalous", defect="scratch", disagrees=True))
        table.add(row(1, sha256=sha256[1], status="abstained", label="", defect="", reason="cut"))
        table.add(row(2, sha256=sha256[2], status="disputed", disagrees=True, verdict="anomalous"))
        table.add(row(3, sha256=sha256[3]))
        table.add(row(9))
    return tmp_path


def done(project):
    return confirm(
        project / "review.csv", project / "proposals.csv", project / "corrections.csv",
        project / "data/frames", project / "raw",
    )  # fmt: skip


def edit(project, **rows):
    """Change cells of the review: by image, the values of label, defect and reviewer."""
    path = project / "review.csv"
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    for each in found:
        if (key := f"n{each['image'][0]}") in rows:
            each |= dict(zip(("label", "defect", "reviewer"), rows[key], strict=True))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0].keys())
        writer.writeheader()
        writer.writerows(found)


def test_the_review_proposes_but_signs_nothing(project):
    assert write_review(project / "review.csv", project / "proposals.csv") == (5, 5)
    with (project / "review.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(each["image"], each["label"], each["defect"]) for each in rows[:4]] == [
        ("0.png", "anomalous", "scratch"), ("1.png", "", ""), ("2.png", "", ""),
        ("3.png", "normal", ""),
    ]  # fmt: skip
    assert {each["reviewer"] for each in rows} == {""}
    assert rows[2]["proposal"] == "disputed normal none: Smooth, all over. (detector: anomalous)"
    edit(project, n1=("normal", "", "anna"))
    assert write_review(project / "review.csv", project / "proposals.csv") == (5, 0)
    before = (project / "review.csv").read_text()
    with opened(project / "proposals.csv") as table:
        table.add(row(7))
    assert write_review(project / "review.csv", project / "proposals.csv") == (6, 1)
    assert (project / "review.csv").read_text().startswith(before.replace("\r\n", "\n"))


def test_only_signed_rows_become_corrections(project):
    earlier = Correction("images/2.png", "normal", "", "ben", "2026-01-01T00:00:00.000+00:00")
    gone = Correction("images/8.png", "normal", "", "ben", "2026-01-01T00:00:00.000+00:00")
    write_corrections(project / "corrections.csv", [earlier, gone])
    write_review(project / "review.csv", project / "proposals.csv")
    found = done(project)
    assert (found.corrections, found.others, found.unknown, found.open) == (0, 1, 0, 5)
    edit(
        project,
        n0=("anomalous", "dent", "anna"),
        n3=("normal", "", "anna"),
        n9=("normal", "", "anna"),
    )
    found = done(project)
    assert (found.corrections, found.others, found.unknown, found.open) == (2, 1, 1, 2)
    rows = read_corrections(project / "corrections.csv")
    assert [(each.image, each.label, each.defect, each.user) for each in rows] == [
        ("images/0.png", "anomalous", "dent", "anna"), ("images/2.png", "normal", "", "ben"),
        ("images/3.png", "normal", "", "anna"),
    ]  # fmt: skip
    assert rows[1] == earlier
    before = (project / "corrections.csv").read_bytes()
    done(project)
    assert (project / "corrections.csv").read_bytes() == before  # the same keeps its time


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n0": ("", "", "anna")}, "line 2 of .* has the label ''; write normal or anomalous"),
        ({"n0": ("good", "", "anna")}, "line 2 of .* has the label 'good'; write"),
        ({"n3": ("normal", "dent", "anna")}, "line 5 of .* is normal with a defect"),
    ],
)
def test_a_wrong_row_of_the_review_changes_nothing(project, change, message):
    write_review(project / "review.csv", project / "proposals.csv")
    edit(project, **change)
    with pytest.raises(InputError, match=message):
        done(project)
    assert not (project / "corrections.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label,defect,reviewer\n5.png,normal,,anna\n", "line 2 of .* names 5.png, of which"),
        ("image,label,defect,reviewer\n0.png,normal,,a\n0.png,normal,,a\n", "line 3 .* again"),
        ("image;label;defect;reviewer\n", "the first line of .* must name image,label,defect,rev"),
        ("image,label,defect,reviewer\n0.png,normal\n", "line 2 of .* needs 4 cells"),
        ('image,label,defect,reviewer\n"0.png', "is no table in UTF-8"),
        ("", "the first line of"),
    ],
)
def test_a_broken_review_is_named(project, text, message):
    (project / "review.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        done(project)
    assert not (project / "corrections.csv").exists()


def test_broken_corrections_are_not_lost(project):
    (project / "corrections.csv").write_text("mine")
    write_review(project / "review.csv", project / "proposals.csv")
    with pytest.raises(InputError, match="corrections.csv is broken, and what it holds would be"):
        done(project)
    assert (project / "corrections.csv").read_text() == "mine"


def test_two_images_of_one_name_are_not_confused(project):
    with opened(project / "proposals.csv") as table:
        table.add(row(0, sha256="f" * 64))
    write_review(project / "review.csv", project / "proposals.csv")
    with pytest.raises(InputError, match="has two different images of the name 0.png"):
        done(project)


def test_without_proposals_there_is_nothing_to_review(tmp_path):
    with pytest.raises(InputError, match="has no proposals; run `blackswan propose-labels ask`"):
        write_review(tmp_path / "review.csv", tmp_path / "proposals.csv")
    with pytest.raises(InputError, match="review.csv is missing; name a table with image,label"):
        read_labels(tmp_path / "review.csv")


def test_labels_of_a_review_are_the_signed_ones(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("\ufeffimage,label\na.png,normal\nb.png,anomalous\n", encoding="utf-8")
    assert read_labels(path) == {"a.png": "normal", "b.png": "anomalous"}
    path.write_text("image,label,reviewer\na.png,normal,\nb.png,anomalous,anna\n")
    assert read_labels(path) == {"b.png": "anomalous"}
