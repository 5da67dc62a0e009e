"""Numbers as text, with the digits that they are worth."""

import math
from collections.abc import Callable, Mapping
from typing import Any


def decimals(uncertainty: float) -> int:
    """Return how many decimals a number of 0 to 1 is worth, 2 to 4, given how far it may be off.

    Those up to the first digit of the uncertainty: half the width of a 95 % interval or, where
    there is none, 1 / n of the n images that were counted. What follows is noise: 29 images, or
    an interval of +- 0.09, give 0.98 and not 0.9834.
    """
    place = math.ceil(-math.log10(max(uncertainty, 1e-9)) - 1e-9)
    return min(max(place, 2), 4)


def rate(value: float, digits: int) -> str:
    """Format a number of 0 to 1; what is not quite 0 or 1 is never rounded to it."""
    text, step = f"{value:.{digits}f}", 10.0**-digits
    if value < 1 and float(text) == 1:
        return f">{1 - step:.{digits}f}"
    if value > 0 and float(text) == 0:
        return f"<{step:.{digits}f}"
    return text


def bounds(low: float, high: float, digits: int) -> str:
    """Format an interval, rounded outwards so that it promises no more than it holds."""
    scale = 10**digits
    down, up = math.floor(low * scale + 1e-6) / scale, math.ceil(high * scale - 1e-6) / scale
    return f"[{down:.{digits}f}, {up:.{digits}f}]"


def score(value: float) -> str:
    """Format an image score or a value of a map, of whatever range."""
    return f"{value:.4g}"


def probability(value: float) -> str:
    """Format a probability so that it can be read near 0 and near 1: 3.9e-6, 1 - 4.2e-6."""
    if 0.999 < value < 1:
        return f"1 - {_power(1 - value)}"
    return _power(value) if 0 < value < 0.001 else f"{value:.3g}"


def of_scores(result: Mapping[str, Any]) -> Callable[[float], str]:
    """Return how the scores and map values of a detector are written, given its metrics."""
    return probability if "expected_calibration_error" in result else score


def _power(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
