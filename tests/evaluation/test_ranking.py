"""The order of detectors and of mistakes."""

import pandas as pd

from blackswan.evaluation.ranking import (
    AGAINST,
    best_first,
    group_count,
    interval,
    mixed,
    outcome,
    outcome_counts,
    rank_detectors,
    summarise,
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


def test_best_first_by_image_auroc_then_pixel_auroc_then_name():
    found = {"d": result(), "c": result(0.9, 0.5), "b": result(0.9, 0.6), "a": result(0.9, 0.5)}
    assert best_first(found) == ["b", "a", "c", "d"]


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


def test_outcomes():
    both = (True, False)
    assert [outcome(anomalous, flagged) for anomalous in both for flagged in both] == [
        "found",
        "miss",
        "false alarm",
        "normal",
    ]


def test_outcomes_take_turns_so_that_many_false_alarms_leave_room():
    rows = [
        *[(f"alarm {score}", 0, score, "main") for score in range(2, 9)],
        ("miss", 1, 0, "main"),
        ("near miss", 1, 0.9, "main"),
        ("found", 1, 9, "main"),
        ("near find", 1, 1.5, "main"),
        ("quiet", 0, 0.5, "main"),
    ]
    assert mixed(scores(rows), 1, 7).path.tolist() == [
        "alarm 8",
        "alarm 7",
        "miss",
        "near miss",
        "near find",
        "found",
        "quiet",
    ]
    assert mixed(scores(rows), 1, 3).path.tolist() == ["alarm 8", "miss", "near find"]
    assert len(mixed(scores(rows), 1, 60)) == len(rows)
    assert outcome_counts(scores(rows)) == "false alarm 7, miss 2, found 2, normal 1"
    assert outcome_counts(scores(rows[-2:])) == "found 1, normal 1"


def test_tables_take_turns():
    rows = [("a1", 1, 0.1, "a"), ("a2", 1, 0.2, "a"), ("b1", 1, 0.8, "b"), ("b2", 1, 0.9, "b")]
    assert mixed(scores(rows), 1, 4).path.tolist() == ["a1", "b1", "a2", "b2"]
    assert mixed(scores(rows), 1, 2).path.tolist() == ["a1", "b1"]


def test_scores_all_at_the_threshold():
    rows = [("b", 0, 1, "main"), ("a", 0, 1, "main")]
    assert mixed(scores(rows), 1, 2).path.tolist() == ["a", "b"]
