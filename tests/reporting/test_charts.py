"""Charts: what is drawn, what is written, and the boundary cases of data."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from blackswan.reporting import charts


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


def test_curves_name_the_best_and_grey_the_rest():
    points = pd.DataFrame({"threshold": [1, 0], "false_positive_rate": [0, 1], "recall": [0, 1]})
    [axes] = charts.curves("ROC", {f"{n:02}" + "x" * 50: points for n in range(30)}).axes
    assert len(axes.lines) == 30
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(labels) == charts.NAMED + 1
    assert labels[-1] == "the rest"
    assert max(map(len, labels)) == 28
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("false positive rate", "recall")


@pytest.mark.parametrize("probabilities", [True, False])
@pytest.mark.parametrize("values", [[0.0], [1.0, 0.0, 0.5], [0.2, 0.2]])
def test_score_histogram_counts_every_image(probabilities, values):
    figure = charts.score_histogram("scores", {"normal": pd.Series(values)}, 0.2, probabilities)
    [axes] = figure.axes
    assert sum(bar.get_height() for bar in axes.patches) == len(values)
    assert "image threshold 0.2" in words(figure)


def test_confusion_matrix_counts(tmp_path):
    figure = charts.confusion_matrix(
        "verdicts", pd.Series([0, 0, 0, 1]), pd.Series([False, False, True, True])
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["2\n66.7%", "1\n33.3%", "0\n0.0%", "1\n100.0%"]
    one_class = charts.confusion_matrix("verdicts", pd.Series([0]), pd.Series([False]))
    texts = [text.get_text() for text in one_class.axes[0].texts]
    assert texts == ["1\n100.0%", "0\n0.0%", "0", "0"]


def test_losses_have_a_logarithmic_axis_only_where_all_are_positive():
    for low, axis in ((0.1, "log"), (0.0, "linear")):
        table = pd.DataFrame({"epoch": [1, 2], "train": [1.0, low]})
        drawn = charts.losses("loss", table).axes[0]
        assert drawn.get_yscale() == axis
        assert drawn.get_xlabel() == "epoch"


def test_reliability_diagram_tells_bins_near_0_and_1_apart():
    bins = pd.DataFrame({"n": [1, 3], "probability": [5e-6, 1 - 4e-6], "frequency": [0.0, 1.0]})
    [axes] = charts.reliability_diagram("calibration", bins).axes
    places = np.asarray(axes.collections[0].get_offsets())
    assert places[:, 0] == pytest.approx([np.log(5e-6 / (1 - 5e-6)), np.log((1 - 4e-6) / 4e-6)])
    assert places[:, 1].tolist() == [0, 1]
    assert axes.collections[0].get_sizes().tolist() == [105, 235]
    assert axes.get_xlim()[0] < places[0, 0] < places[1, 0] < axes.get_xlim()[1]


def test_no_two_named_lines_look_alike_without_colour():
    points = pd.DataFrame({"threshold": [1, 0], "false_positive_rate": [0, 1], "recall": [0, 1]})
    [axes] = charts.curves("ROC", {f"{n:02}": points for n in range(charts.NAMED)}).axes
    looks = {(line.get_marker(), str(line._unscaled_dash_pattern)) for line in axes.lines}
    assert len(looks) == charts.NAMED
    widths = [line.get_linewidth() for line in axes.lines]
    assert widths == sorted(widths, reverse=True)  # what is drawn over another hides it not
    assert widths[0] > widths[1]


def test_probabilities_are_written_so_that_both_ends_can_be_read():
    values = pd.Series([1e-6, 1 - 1e-7])
    figure = charts.score_histogram("scores", {"normal": values}, 5e-6, probabilities=True)
    assert "image threshold 5e-6" in words(figure)
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks[0] == "1e-6"
    assert ticks[-1] == "1 - 1e-6"
