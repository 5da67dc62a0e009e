"""The order of detectors and of mistakes."""

import pandas as pd

from blackswan.evaluation.ranking import (
    AGAINST,
    group_count,
    interval,
    rank_detectors,
    summarise,
    typical_find,
    worst_first,
)


def result(image_auroc=None, pixel_auroc=None, unseen=None):
    metrics = {"n_normal": 2, "n_anomalous": 3, "unseen": unseen or {}, "defects": []}
    named = {"image_auroc": image_auroc, "pixel_auroc": pixel_auroc}
    return metrics | {key: value for key, value in named.items() if value is not None}


def standing(ours, baseline):
    [table] = rank_detectors({"a": ours, "median_residual": baseline}).values()
    return [(row["rank"], row["detector"], row[AGAINST]) for row in table]


def test_image_auroc_decides_and_then_pixel_auroc():
    assert standing(result(0.9, 0.1), result(0.8, 0.9)) == [
        (1, "a", "ahead in image_auroc"),
        (2, "median_residual", ""),
    ]
    assert standing(result(1.0, 0.98), result(1.0, 0.99)) == [
        (1, "median_residual", ""),
        (2, "a", "behind in pixel_auroc"),
    ]
    assert standing(result(0.5, 0.5), result(0.5, 0.5))[0] == (1, "a", "level")


def test_what_was_not_measured_is_not_compared():
    assert standing(result(0.9), result(0.9, 0.9))[1] == (2, "a", "level")
    assert standing(result(), result())[0] == (1, "a", "")
    [table] = rank_detectors({"b": result(), "a": result(0.1)}).values()
    assert [(row["detector"], row[AGAINST]) for row in table] == [("a", ""), ("b", "")]
    assert "image_auroc" not in table[1]


def test_main_comes_first_and_a_table_holds_those_that_were_measured():
    tables = rank_detectors(
        {
            "a": result(0.9, unseen={"blur": result(0.6)}),
            "b": result(0.8, unseen={"blur": result(0.7), "alpha": result(0.5)}),
        }
    )
    assert {name: [row["detector"] for row in rows] for name, rows in tables.items()} == {
        "main": ["a", "b"],
        "alpha": ["b"],
        "blur": ["b", "a"],
    }
    assert list(tables) == ["main", "alpha", "blur"]


def test_summary_holds_main_keys_and_no_others():
    unseen = {"blur": result(0.6, 0.7), "noise": result()}
    assert summarise({"a": result(0.9, unseen=unseen)}) == {
        "a": {"image_auroc": 0.9, "n_normal": 2, "n_anomalous": 3, "unseen": {"blur": 0.6}}
    }


def test_the_number_of_groups_stands_beside_an_interval():
    row = {"image_auroc": 0.9, "image_auroc_low": 0.71234, "image_auroc_high": 1.0, "recall": 0.5}
    assert interval(row, "image_auroc", 3) == "0.900 [0.712, 1.000]"
    assert interval(row, "recall", 2) == "0.50"
    assert interval(pd.Series(row | {"image_auroc_low": float("nan")}), "image_auroc", 1) == "0.9"
    assert group_count({"n_groups": 5, "n_pixel_groups": 5}) == "5"
    assert group_count({"n_groups": 5.0, "n_pixel_groups": 3}) == "5, of pixels 3"
    assert group_count({"n_groups": 2, "n_pixel_groups": float("nan")}) == "2"
    assert group_count({}) == ""
    counted = result(0.9) | {"n_groups": 4}
    [[ranked]] = rank_detectors({"a": counted}).values()
    assert (ranked["n_groups"], summarise({"a": counted})["a"]["n_groups"]) == (4, 4)


def scores(rows):
    table = pd.DataFrame(rows, columns=["path", "label", "image_score", "table"])
    return table.assign(flagged=table.image_score > 1)


def test_grossest_mistakes_come_first_and_sides_mix():
    rows = [
        ("sure", 1, 9, "main"),
        ("alarm", 0, 5, "main"),
        ("miss", 1, 0, "main"),
        ("near miss", 1, 0.9, "main"),
        ("quiet", 0, 0.5, "main"),
        ("near", 1, 1.5, "main"),
    ]
    assert worst_first(scores(rows), 1).path.tolist() == [
        "miss",
        "alarm",
        "near miss",
        "near",
        "quiet",
        "sure",
    ]


def test_tables_take_turns():
    rows = [("a1", 1, 0.1, "a"), ("a2", 1, 0.2, "a"), ("b1", 1, 0.8, "b"), ("b2", 1, 0.9, "b")]
    assert worst_first(scores(rows), 1).path.tolist() == ["a1", "b1", "a2", "b2"]


def test_scores_all_at_the_threshold():
    rows = [("b", 0, 1, "main"), ("a", 0, 1, "main")]
    assert worst_first(scores(rows), 1).path.tolist() == ["a", "b"]


def test_typical_find_has_the_middle_score():
    rows = [(name, 1, score, "main") for name, score in (("a", 2), ("b", 9), ("c", 4), ("miss", 0))]
    assert typical_find(scores([*rows, ("u", 1, 5, "blur")])).path.tolist() == ["c"]
    assert typical_find(scores([("only", 0, 0, "main")])).path.tolist() == ["only"]
