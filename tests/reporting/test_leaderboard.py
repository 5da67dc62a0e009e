"""The one table: order, columns, digits and what is bold."""

from blackswan.evaluation.verdict import HOLDS, VOID
from blackswan.reporting.leaderboard import board, by_kind


def metrics(image_auroc, unseen=None, **others):
    counts = {"n_normal": 29, "n_anomalous": 29, "n_groups": 7, "n_pixel_groups": 7}
    return {"image_auroc": image_auroc, "unseen": unseen or {}} | counts | others


def column(summary, title):
    table = board(summary)
    place = [column.title for column in table.columns].index(title)
    return [line.cells[place] for line in table.lines]


def best(summary, title):
    names = [line.name for line in board(summary).lines]
    cells = column(summary, title)
    return [name for name, cell in zip(names, cells, strict=True) if cell.best]


def test_detectors_come_by_image_auroc_with_operating_point_and_unseen_kinds_in_one_table():
    summary = {
        "a": metrics(0.7, {"blur": 0.8}, recall=0.5, false_positive_rate=0.1, verdict=HOLDS),
        "b": metrics(0.9, {"cut": 0.6}, recall=0.25, pixel_auroc=0.95),
    }
    table = board(summary)
    assert [(line.name, line.count) for line in table.lines] == [("b", "7"), ("a", "7")]
    assert [column.title for column in table.columns] == [
        "image AUROC",
        "false alarms",
        "recall",
        "blur",
        "cut",
        "pixel AUROC",
    ]
    assert table.spans == [
        ("", 1),
        ("at the threshold", 2),
        ("unseen kinds, image AUROC", 2),
        ("pixels", 1),
    ]
    assert [cell.text for cell in table.lines[0].cells] == ["0.90", "", "0.25", "", "0.60", "0.95"]
    assert column(summary, "false alarms")[1].note == HOLDS


def test_digits_are_those_that_images_or_the_surest_interval_support():
    summary = {"a": metrics(0.98345), "b": metrics(0.99714)}
    assert [cell.text for cell in column(summary, "image AUROC")] == [">0.99", "0.98"]
    summary["a"] |= {"image_auroc_low": 0.9803, "image_auroc_high": 0.9871}
    cells = column(summary, "image AUROC")
    assert [cell.text for cell in cells] == ["0.997", "0.983"]
    assert [cell.bounds for cell in cells] == ["", "[0.980, 0.988]"]
    few = {"a": metrics(0.98345, n_normal=2000, n_anomalous=5, false_positive_rate=0.0515)}
    assert [column(few, title)[0].text for title in ("image AUROC", "false alarms")] == [
        "0.98",
        "0.0515",
    ]


def test_bold_is_the_best_and_all_that_show_the_same():
    summary = {
        "a": metrics(0.9834, {"blur": 0.5}, false_positive_rate=0.1),
        "b": metrics(0.9812, {"blur": 0.7}, false_positive_rate=0.05),
        "c": metrics(0.9712, false_positive_rate=0.2),
    }
    assert best(summary, "image AUROC") == ["a", "b"]  # both 0.98
    assert best(summary, "false alarms") == ["b"]  # the fewest
    assert best(summary, "blur") == ["b"]
    assert best({"a": summary["a"]}, "image AUROC") == []  # of one, nothing is the best
    assert best(summary | {"b": metrics(0.9)}, "blur") == []


def test_a_void_threshold_earns_nothing_at_the_threshold():
    summary = {
        "void": metrics(0.99, recall=1.0, false_positive_rate=0.0, verdict=VOID),
        "sound": metrics(0.9, recall=0.5, false_positive_rate=0.1, verdict=HOLDS),
    }
    assert best(summary, "recall") == ["sound"]
    assert best(summary, "false alarms") == ["sound"]
    assert best(summary, "image AUROC") == ["void"]


def test_where_all_thresholds_are_void_none_is_the_best():
    summary = {name: metrics(0.9, recall=1.0, verdict=VOID) for name in ("a", "b")}
    assert best(summary, "recall") == []


def test_kinds_have_the_images_that_they_have():
    result = metrics(0.9, {"blur": metrics(0.75, recall=0.5, n_anomalous=4)}, pixel_auroc=0.8)
    dent = {"defect": "dent", "n": 200, "recall": 0.995, "image_auroc": 0.5}
    result["defects"] = [dent, {"defect": "hole", "n": 5, "recall": 0.2}]
    table = by_kind(result)
    assert [(line.name, line.count) for line in table.lines] == [
        ("dent", "200"),
        ("hole", "5"),
        ("all defects", "29"),
        ("unseen: blur", "4"),
    ]
    assert [column.title for column in table.columns] == ["image AUROC", "recall", "pixel AUROC"]
    assert [[cell.text for cell in line.cells] for line in table.lines] == [
        ["0.50", "0.995", ""],
        ["", "0.200", ""],
        ["0.90", "", "0.80"],
        ["0.75", "0.500", ""],
    ]
    assert not any(cell.best for line in table.lines for cell in line.cells)


def test_one_kind_of_defect_is_all_of_them():
    row = {"defect": "scratch", "n": 29, "recall": 0.5, "image_auroc": 0.9}
    [line] = by_kind(metrics(0.9, recall=0.5, pixel_auroc=0.8) | {"defects": [row]}).lines
    assert line.name == "scratch"
    assert [cell.text for cell in line.cells] == ["0.90", "0.50", "0.80"]
    assert by_kind(metrics(0.9) | {"defects": []}).lines == []
