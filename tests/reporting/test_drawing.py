"""How pictures are written."""

from matplotlib.figure import Figure

from blackswan.reporting.drawing import shorten, write_png


def test_same_figure_same_bytes_and_no_maker_in_the_file(tmp_path):
    for name in ("a.png", "b.png"):
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.5, "text")
        write_png(figure, tmp_path / "folder" / name)
    first, second = ((tmp_path / "folder" / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert b"matplotlib" not in first


def test_shorten_keeps_both_ends():
    assert shorten("short", 8) == "short"
    assert shorten("abcdefghijkl", 8) == "abc…ijkl"
