"""Pictures: sizes, pixels, bytes and the boundary cases of data."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from blackswan.reporting import figures
from blackswan.reporting.figures import DPI, Example, shorten
from blackswan.reporting.heatmaps import HeatmapScale
from blackswan.seeds import generator

SCALE = HeatmapScale(1, 3)


def example(value=0.0, size=(40, 60), mask=True, anomalous=True, flagged=True):
    image = generator(0, "image").integers(0, 255, (*size, 3), dtype=np.uint8)
    drawn = np.zeros(size, bool)
    drawn[5:10, 5:12] = True
    anomaly_map = np.full(size, value, np.float32)
    return Example(image, drawn if mask else None, anomaly_map, anomalous, flagged, "$name 0.5")


def pixels(figure, tmp_path):
    figures.write_png(figure, tmp_path / "picture.png")
    return np.asarray(Image.open(tmp_path / "picture.png").convert("RGB"))


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_verdicts():
    verdicts = [
        example(anomalous=anomalous, flagged=flagged).verdict
        for anomalous in (True, False)
        for flagged in (True, False)
    ]
    assert verdicts == ["found", "miss", "false alarm", "normal"]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_gallery_grows_by_lines_of_three(count, tmp_path):
    figure = figures.gallery("title", (example() for _ in range(count)), SCALE)
    assert round(figure.get_figheight() * DPI) == 140 + -(-count // 3) * 220
    assert pixels(figure, tmp_path).shape == (140 + -(-count // 3) * 220, 1114, 3)
    assert words(figure).count("found") == count
    assert "1 threshold" in words(figure)
    assert "3 and above" in words(figure)


def test_gallery_leaves_the_photo_of_a_good_part_as_it_is(tmp_path):
    good = example(0, size=(168, 168), mask=False, anomalous=False, flagged=False)
    drawn = pixels(figures.gallery("title", [good], SCALE), tmp_path)
    top, left = 82, 20
    assert (drawn[top : top + 168, left : left + 168] == good.image).all()
    assert (drawn[top : top + 168, left + 174 : left + 342] == good.image).all()


def test_same_figure_same_bytes_and_no_maker_in_the_file(tmp_path):
    for name in ("a.png", "b.png"):
        figures.write_png(figures.gallery("title", [example(2)], SCALE), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "a.png").read_bytes()


def test_strip_is_small_whatever_it_shows(tmp_path):
    noise = generator(0, "noise").integers(0, 255, (300, 300, 3), dtype=np.uint8)
    flat = np.zeros((300, 300))
    worst = Example(noise, flat.astype(bool), flat.astype(np.float32), True, True, "")
    figures.write_small_png(figures.strip(worst, SCALE), tmp_path / "strip.png")
    assert (tmp_path / "strip.png").stat().st_size < 300_000
    with Image.open(tmp_path / "strip.png") as image:
        assert image.size == (912, 326)
    without_mask = figures.strip(example(mask=False), SCALE)
    assert round(without_mask.get_figwidth() * DPI) == 606


def test_contact_sheet_has_no_line_of_masks_where_there_are_none():
    image, mask = np.zeros((20, 30, 3), np.uint8), np.ones((20, 30), bool)
    rows = {"normal": [(image, None)]}
    assert round(figures.contact_sheet("title", rows).get_figheight() * DPI) == 250
    rows |= {"a" * 40: [(image, mask)] * 3}
    assert round(figures.contact_sheet("title", rows).get_figheight() * DPI) == 576


def test_curves_name_the_best_and_grey_the_rest():
    points = pd.DataFrame({"threshold": [1, 0], "false_positive_rate": [0, 1], "recall": [0, 1]})
    [axes] = figures.curves("ROC", {f"{n:02}" + "x" * 50: points for n in range(30)}).axes
    assert len(axes.lines) == 30
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(labels) == 13
    assert labels[-1] == "the rest"
    assert max(map(len, labels)) == 28
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("false positive rate", "recall")


@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("values", [[0.0], [1.0, 0.0, 0.5], [0.2, 0.2]])
def test_score_histogram_counts_every_image(probabilities, values):
    figure = figures.score_histogram(
        "scores", {"normal": pd.Series(values)}, 0.2, probabilities=probabilities
    )
    [axes] = figure.axes
    assert sum(bar.get_height() for bar in axes.patches) == len(values)
    assert "threshold 0.2" in words(figure)


def test_confusion_matrix_counts(tmp_path):
    figure = figures.confusion_matrix(
        "verdicts", pd.Series([0, 0, 0, 1]), pd.Series([False, False, True, True])
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["2\n66.7%", "1\n33.3%", "0\n0.0%", "1\n100.0%"]
    one_class = figures.confusion_matrix("verdicts", pd.Series([0]), pd.Series([False]))
    texts = [text.get_text() for text in one_class.axes[0].texts]
    assert texts == ["1\n100.0%", "0\n0.0%", "0", "0"]


def test_losses_have_a_logarithmic_axis_only_where_all_are_positive():
    for low, axis in ((0.1, "log"), (0.0, "linear")):
        table = pd.DataFrame({"epoch": [1, 2], "train": [1.0, low]})
        drawn = figures.losses("loss", table).axes[0]
        assert drawn.get_yscale() == axis
        assert drawn.get_xlabel() == "epoch"


def test_reliability_diagram_marks_each_bin():
    bins = pd.DataFrame({"n": [1, 3], "probability": [0.1, 0.9], "frequency": [0.0, 1.0]})
    [axes] = figures.reliability_diagram("calibration", bins).axes
    assert axes.collections[0].get_offsets().tolist() == [[0.1, 0], [0.9, 1]]
    assert axes.collections[0].get_sizes().tolist() == [105, 235]


def test_shorten_keeps_both_ends():
    assert shorten("short", 8) == "short"
    assert shorten("abcdefghijkl", 8) == "abc…ijkl"
