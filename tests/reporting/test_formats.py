"""The digits of numbers."""

import pytest

from blackswan.reporting import formats


@pytest.mark.parametrize(
    ("uncertainty", "digits"),
    [(1, 2), (0.2, 2), (1 / 29, 2), (0.01, 2), (0.0099, 3), (1 / 200, 3), (0.0005, 4), (0, 4)],
)
def test_decimals_end_where_the_uncertainty_begins(uncertainty, digits):
    assert formats.decimals(uncertainty) == digits


def test_what_is_not_quite_0_or_1_is_not_rounded_to_it():
    assert [formats.rate(value, 2) for value in (1, 0.997, 0.9834, 0.5, 0.004, 0)] == [
        "1.00",
        ">0.99",
        "0.98",
        "0.50",
        "<0.01",
        "0.00",
    ]
    assert formats.rate(0.9997, 3) == ">0.999"


def test_an_interval_is_rounded_outwards():
    assert formats.bounds(0.4781, 0.9912, 2) == "[0.47, 1.00]"
    assert formats.bounds(0.47, 0.99, 2) == "[0.47, 0.99]"


def test_probabilities_can_be_read_near_0_and_near_1():
    values = [0, 5e-6, 3.85e-6, 2e-12, 0.000999, 0.001, 0.25, 0.999, 1 - 4.2e-6, 1]
    assert [formats.probability(value) for value in values] == [
        "0",
        "5e-6",
        "3.9e-6",
        "2e-12",
        "1e-3",
        "0.001",
        "0.25",
        "0.999",
        "1 - 4.2e-6",
        "1",
    ]


def test_only_calibrated_scores_are_written_as_probabilities():
    assert formats.of_scores({"expected_calibration_error": 0.1})(1e-6) == "1e-6"
    assert formats.of_scores({})(43.95721) == "43.96"
