"""What detectors are worth when the camera drifts: the tables of `make drift`, summed up."""

from pathlib import Path
from typing import Any

import pandas as pd

from blackswan.drift.corruptions import FAMILIES, NAMES
from blackswan.drift.simulation import RAMP, STEP

SEVERITY = 3  # that is shown
LIGHT = "light"  # of FAMILIES
RATES = ("image_auroc", "false_positive_rate", "recall")


def summarise(folder: Path) -> dict[str, Any]:
    """Sum up the tables of simulate_drift in a folder, of as many detectors as there are.

    Of each: rates without drift, by kind of drift and by drift, at SEVERITY; of a drift also where
    the promise on false alarms breaks, in steps and on the ramp.
    """
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    return {
        "severity": SEVERITY,
        "light": list(FAMILIES[LIGHT]),
        "detectors": {name: _of_detector(table) for name, table in tables.items()},
    }


def _of_detector(table: pd.DataFrame) -> dict[str, Any]:
    steps = table[table.kind == STEP]
    at = steps[steps.severity == SEVERITY].set_index("drift")
    broken = {kind: table[table.kind == kind].groupby("drift").breaks_at.min()
              for kind in (STEP, RAMP)}  # fmt: skip
    return {
        "no drift": _rates(steps[steps.severity == 0]),
        "kinds": {kind: _rates(at.loc[list(drifts)]) for kind, drifts in FAMILIES.items()},
        "drifts": {
            drift: _rates(at.loc[[drift]])
            | {"breaks_at": _number(broken[STEP][drift]), "ramp": _number(broken[RAMP][drift])}
            for drift in NAMES
        },
    }


def _rates(rows: pd.DataFrame) -> dict[str, float | None]:
    return {rate: _number(rows[rate].mean()) for rate in RATES}


def _number(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
