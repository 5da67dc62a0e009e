"""The report page: its one line of warning and its settings; the page is in tests/stages."""

from blackswan.evaluation.verdict import HOLDS, VOID
from blackswan.reporting.report import flattened, warning

BASELINE = {"image_auroc": 0.9}


def test_one_line_warns_of_what_is_not_ahead_and_of_void_thresholds():
    summary = {
        "median_residual": BASELINE | {"verdict": VOID},
        "behind": {"image_auroc": 0.8, "verdict": HOLDS},
        "level": {"image_auroc": 0.9},
        "ahead": {"image_auroc": 0.95},
    }
    assert warning(summary) == (
        "No better in image AUROC than median_residual, which learns nothing: 2 of 3 detectors. "
        "Void thresholds: 1 of 4."
    )


def test_there_is_no_warning_without_a_reason():
    assert warning({"median_residual": BASELINE, "ahead": {"image_auroc": 0.95}}) == ""
    assert warning({"alone": {"image_auroc": 0.1, "verdict": HOLDS}}) == ""
    assert warning({"median_residual": {}, "other": {}}) == ""  # nothing is defined


def test_settings_have_dotted_names_in_their_order():
    nested = {"b": {"x": None, "deep": {"y": [1, "two"]}}, "a": {"z": 0.05}, "empty": {}}
    assert list(flattened(nested)) == [("b.x", ""), ("b.deep.y", "1, two"), ("a.z", "0.05")]
