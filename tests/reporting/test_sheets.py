"""Sheets of pictures: sizes, pixels and the boundary cases of data."""

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from blackswan.reporting import drawing, formats, sheets
from blackswan.reporting.drawing import DPI
from blackswan.reporting.heatmaps import HeatmapScale
from blackswan.reporting.sheets import Example
from blackswan.seeds import generator

SCALE = HeatmapScale(1, 3)


def example(value=0.0, size=(40, 60), mask=True, outcome="found"):
    image = generator(0, "image").integers(0, 255, (*size, 3), dtype=np.uint8)
    drawn = np.zeros(size, bool)
    drawn[5:10, 5:12] = True
    anomaly_map = np.full(size, value, np.float32)
    return Example(image, drawn if mask else None, anomaly_map, outcome, "$name 0.5")


def pixels(figure, tmp_path):
    drawing.write_png(figure, tmp_path / "picture.png")
    return np.asarray(Image.open(tmp_path / "picture.png").convert("RGB"))


def words(figure):
    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("count", [1, 3, 4])
def test_gallery_grows_by_lines_of_three(count, tmp_path):
    figure = sheets.gallery("title", (example() for _ in range(count)), SCALE)
    assert round(figure.get_figheight() * DPI) == 140 + -(-count // 3) * 220
    assert pixels(figure, tmp_path).shape == (140 + -(-count // 3) * 220, 1114, 3)
    assert words(figure).count("found") == count
    assert "1 pixel threshold" in words(figure)
    assert "3 and above" in words(figure)


def test_a_gallery_says_of_each_image_what_became_of_it_and_mistakes_stand_out():
    outcomes = ["false alarm", "miss", "found", "normal"]
    figure = sheets.gallery("title", [example(outcome=each) for each in outcomes], SCALE)
    colours = {text.get_text(): text.get_color() for text in figure.findobj(Text)}
    assert {each for each in outcomes if colours[each] == drawing.ANOMALOUS} == {
        "false alarm",
        "miss",
    }


def test_a_gallery_of_probabilities_has_a_bar_that_can_be_read():
    scale = HeatmapScale(2e-6, 1 - 4e-6)
    figure = sheets.gallery("title", [example()], scale, formats.probability)
    assert "2e-6 pixel threshold" in words(figure)
    assert "1 - 4e-6 and above" in words(figure)


def test_gallery_leaves_the_photo_of_a_good_part_as_it_is(tmp_path):
    good = example(0, size=(168, 168), mask=False, outcome="normal")
    drawn = pixels(sheets.gallery("title", [good], SCALE), tmp_path)
    top, left = 82, 20
    assert (drawn[top : top + 168, left : left + 168] == good.image).all()
    assert (drawn[top : top + 168, left + 174 : left + 342] == good.image).all()


def test_strip_shows_the_image_its_heatmap_and_what_is_above_the_pixel_threshold(tmp_path):
    found = example(0, size=(150, 300))
    found.anomaly_map[40:80, 100:160] = 2
    drawn = pixels(sheets.strip(found, SCALE, 300), tmp_path)
    assert drawn.shape == (150 + 26, 912, 3)
    image, heat, outlined = (drawn[26:, left : left + 300] for left in (0, 306, 612))
    assert (image == found.image).all()
    assert (heat[50:70, 110:150] != found.image[50:70, 110:150]).any(axis=2).all()
    assert (heat[:30] == found.image[:30]).all()
    assert (outlined[38, 105:155] == 255).all()
    assert (outlined[45:75, 105:155] == found.image[45:75, 105:155]).all()


def test_contact_sheet_has_no_line_of_masks_where_there_are_none():
    image, mask = np.zeros((20, 30, 3), np.uint8), np.ones((20, 30), bool)
    rows = {"normal": [(image, None)]}
    assert round(sheets.contact_sheet("title", rows).get_figheight() * DPI) == 250
    rows |= {"a" * 40: [(image, mask)] * 3}
    assert round(sheets.contact_sheet("title", rows).get_figheight() * DPI) == 576
