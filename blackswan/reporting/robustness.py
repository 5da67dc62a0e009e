"""What `make drift` measured of detectors, laid side by side, and which to choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blackswan.reporting import formats

LIGHT = "light"
# Few images seldom say that a promise is kept; the test may only not say that it is void.
NO_BREAK, VOID_BEFORE = "no break found", "void without drift"


@dataclass(frozen=True)
class Line:
    """A drift, and what each detector makes of it."""

    drift: str
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """Detectors, best first where the light changes, and a line for each drift."""

    severity: int
    choice: str
    detectors: list[str]
    lines: list[Line]


def of_these(
    summary: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]], test_images: str
) -> dict[str, Any]:
    """Leave out what was measured of a fit before these `results`, or of other test images."""
    return {
        **summary,
        "detectors": {
            name: found
            for name, found in summary["detectors"].items()
            if name in results
            and found["test_images"] == test_images
            and found["threshold"] == results[name]["threshold"]
        },
    }


def table(summary: Mapping[str, Any]) -> Table | None:
    """Lay out what blackswan/drift/robustness.py summed up; None where no detector was measured.

    A cell has image AUROC and recall at the severity, and that at which the promise on false alarms
    breaks.
    """
    found = summary["detectors"]
    if not found:
        return None
    names = best_first(summary)
    return Table(
        severity=summary["severity"],
        choice=_choice(names[0], summary),
        detectors=names,
        lines=[
            Line(drift.replace("_", " "), [_cell(found[name]["drifts"][drift]) for name in names])
            for drift in found[names[0]]["drifts"]
        ],
    )


def best_first(summary: Mapping[str, Any]) -> list[str]:
    """Return the detectors by mean image AUROC where the light changes; then fewer broken ones."""
    found = summary["detectors"]

    def rank(name: str) -> tuple[float, int, str]:
        return -(found[name]["kinds"][LIGHT]["image_auroc"] or 0), _broken(name, summary), name

    return sorted(found, key=rank)


def _choice(name: str, summary: Mapping[str, Any]) -> str:
    rates = summary["detectors"][name]["kinds"][LIGHT]
    return (
        f"When the light changes, choose {name}, of {len(summary['detectors'])} measured: over "
        f"{len(summary['light'])} drifts of the light at severity {summary['severity']} its mean "
        f"image AUROC is {_rate(rates['image_auroc'])} and its mean recall "
        f"{_rate(rates['recall'])}; its promise on false alarms is void under "
        f"{_broken(name, summary)} of them."
    )


def _broken(name: str, summary: Mapping[str, Any]) -> int:
    drifts = summary["detectors"][name]["drifts"]
    return sum(drifts[drift]["breaks_at"] is not None for drift in summary["light"])


def _cell(rates: Mapping[str, float | None]) -> str:
    broken = rates["breaks_at"]
    promise = f"breaks at {broken:g}" if broken else NO_BREAK if broken is None else VOID_BEFORE
    return f"{_rate(rates['image_auroc'])} / {_rate(rates['recall'])}, {promise}"


def _rate(value: float | None) -> str:
    return "–" if value is None else formats.rate(value, 2)
